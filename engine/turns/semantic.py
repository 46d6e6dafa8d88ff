"""Does it sound as if the caller has finished? Smart Turn v3 hears it in the melody of the voice.

The model takes the last 8 s of the caller's turn at 16 kHz, zero-padded at the front, normalised to mean
0 and variance 1, as Whisper log-mel features [1, 80, 800], and gives the probability that the turn is
complete. Ask when about 200 ms of silence have passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError, WeightsError
from engine.inference.pool import Priority, Workers
from engine.media.frame import Pcm
from engine.media.logmel import RATE, log_mel, waveform

LANE = "turn"
_WINDOW = 8 * RATE


class SmartTurn:
    """One model for all calls, on the lane `turn`."""

    name = "smart-turn"

    def __init__(self, path: Path, workers: Workers, *, threads: int = 1) -> None:
        """`path` is the ONNX file. It is loaded by `warm` or the first call."""
        self._path = path
        self._workers = workers
        self._threads = threads
        self._session: Any = None

    async def probability(self, audio: Pcm) -> float:
        """How likely the caller has finished, 0..1, from the sound of the turn so far.

        Raises ModelError. Cancelling is safe at any moment.
        """
        return await self._workers.run(LANE, self._probability, audio, priority=Priority.TURN)

    async def warm(self) -> None:
        await self._workers.run(
            LANE, self._probability, Pcm.silence(1.0, RATE), priority=Priority.BACKGROUND
        )

    # --- On the lane's thread --------------------------------------------------------------------

    def _probability(self, audio: Pcm) -> float:
        # Only the last 8 s are heard, so only those are resampled.
        recent = Pcm(audio.samples[-8 * audio.rate :], audio.rate)
        wave = waveform(recent)[-_WINDOW:]
        wave = np.pad(wave, (_WINDOW - len(wave), 0))
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
        features = log_mel(wave.astype(np.float32))[np.newaxis]
        try:
            logits = self._load().run(None, {"input_features": features})[0]
        except RuntimeError as error:
            raise ModelError(f"Smart Turn failed: {error}") from error
        return float(np.clip(logits[0, 0], 0.0, 1.0))

    def _load(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            # Threads that spin between two runs take the core away from the 20 ms clock.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                self._session = onnxruntime.InferenceSession(
                    str(self._path), options, providers=["CPUExecutionProvider"]
                )
            # onnxruntime's errors share no base but this.
            except Exception as error:
                raise WeightsError(
                    f"{self._path} cannot be opened: {error}", how_to_fix=["offhook models fetch"]
                ) from error
        return self._session
