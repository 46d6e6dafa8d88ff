"""GigaAM, Parakeet and Vosk through the `onnx-asr` package: offhook[onnx-asr].

These models know one language or tell none, so the transcript carries the language that was asked for,
else the first of the agent's. Confidence is exp(mean log-probability of the tokens) where the model
gives them, else 1 for any text.
"""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path
from typing import Any

from engine.errors import ConfigError, ModelError
from engine.inference.pool import Priority, Workers
from engine.media.frame import Pcm
from engine.media.logmel import RATE, waveform
from engine.stt.base import Transcript

LANE = "stt"
_SHORTEST_S = 0.1


class OnnxAsr:
    """SpeechToText over one onnx-asr model; all calls take turns on the lane `stt`."""

    name = "onnx-asr"

    def __init__(
        self, model: str, workers: Workers, *, folder: Path | None = None, threads: int = 2
    ) -> None:
        """`model` is a name onnx-asr knows, such as gigaam-v3-ctc; its files are in `folder`.

        Without a folder onnx-asr takes them from its hub. Raises ConfigError when the package is missing.
        """
        if importlib.util.find_spec("onnx_asr") is None:
            raise ConfigError(
                f"speech model {model} needs the package onnx-asr",
                how_to_fix=[
                    'pip install "offhook[onnx-asr]"',
                    'or set [models] stt = "faster-whisper"',
                ],
            )
        self._name = model
        self._folder = folder
        self._workers = workers
        self._threads = threads
        self._model: Any = None

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
        priority: int = Priority.TURN,
    ) -> Transcript:
        """See SpeechToText. These models take no prompt."""
        spoken = language or (languages[0] if languages else "ru")
        started = time.perf_counter()
        if audio.seconds < _SHORTEST_S:
            return Transcript("", spoken, 0.0, 1.0, audio.seconds)
        text, confidence = await self._workers.run(
            LANE, self._recognise, audio, spoken, priority=priority
        )
        return Transcript(
            text,
            spoken,
            confidence,
            seconds=audio.seconds,
            took_ms=(time.perf_counter() - started) * 1000,
        )

    async def warm(self) -> None:
        await self.transcribe(Pcm.silence(1.0, RATE), language=None, priority=Priority.BACKGROUND)

    async def close(self) -> None:
        """The lane belongs to the Workers; here only the model is let go."""
        self._model = None

    # --- On the lane's thread --------------------------------------------------------------------

    def _recognise(self, audio: Pcm, language: str) -> tuple[str, float]:
        try:
            result = self._load().recognize(waveform(audio), sample_rate=RATE, language=language)
        # The package raises errors of its own beside onnxruntime's, which share no base but this.
        except Exception as error:
            raise ModelError(f"{self._name} failed: {error}") from error
        text = result.text.strip()
        logprobs = getattr(result, "logprobs", None)
        if not text:
            return "", 0.0
        return text, math.exp(min(0.0, sum(logprobs) / len(logprobs))) if logprobs else 1.0

    def _load(self) -> Any:
        if self._model is None:
            import onnx_asr
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            # Threads that spin between two runs take the core away from the 20 ms clock.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._model = onnx_asr.load_model(
                self._name, self._folder, sess_options=options
            ).with_timestamps()
        return self._model
