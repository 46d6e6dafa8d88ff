"""Piper: neural voices that run ahead of real time on a CPU.

Piper makes a sentence at one go, so the first sound comes when the whole sentence is done. A long
sentence is therefore cut after its first clause: the caller hears that while the rest is made.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import numpy as np

from engine.errors import ModelError, WeightsError
from engine.inference.pool import Priority, Workers
from engine.inference.weights import WeightStore
from engine.media.frame import Pcm
from engine.tts.spoken import spoken
from engine.tts.trim import LeadingSilence, cut_tail

log = logging.getLogger(__name__)

LANE = "tts"
_FIRST_CLAUSE = re.compile(r"^.{4,60}?[,;:—–](?=\s.{20,})", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
_CLAUSE_ENDS = tuple(",;:—–")
_CLAUSE_PAUSE_S = 0.12
_VOLUME = 1.2


class Piper:
    """TextToSpeech over Piper voices; all calls take turns on the lane `tts`."""

    name = "piper"

    def __init__(
        self, store: WeightStore, workers: Workers, *, default_voice: str, threads: int = 2
    ) -> None:
        """Voices are models of the manifest, e.g. en_US-joe-medium; each is loaded once, when first asked for."""
        self._store = store
        self._workers = workers
        self._default = default_voice
        self._threads = threads
        self._voices: dict[str, Any] = {}

    async def speak(
        self,
        text: str,
        *,
        voice: str,
        language: str,
        speed: float = 1.0,
        priority: int = Priority.TURN,
    ) -> AsyncGenerator[Pcm, None]:
        """See TextToSpeech. `voice` empty means the default one; `speed` 1.2 is a fifth faster."""
        words = spoken(text, language)
        if not any(map(str.isalnum, words)):
            return
        chunks = self._workers.stream(
            LANE,
            lambda: self._synthesise(voice or self._default, words, speed),
            priority=priority,
        )
        async with aclosing(chunks):
            async for pcm in chunks:
                yield pcm

    async def warm(self) -> None:
        async with aclosing(
            self.speak("Hello.", voice="", language="en", priority=Priority.BACKGROUND)
        ) as sound:
            async for _ in sound:
                pass

    async def close(self) -> None:
        """The lane belongs to the Workers; here only the voices are let go."""
        self._voices.clear()

    # --- On the lane's thread --------------------------------------------------------------------

    def _synthesise(self, voice_id: str, text: str, speed: float) -> Iterator[Pcm]:
        from piper.config import SynthesisConfig

        voice = self._voice(voice_id)
        rate = int(voice.config.sample_rate)
        # Scaling each piece to full range would make the pieces of one sentence differ in loudness.
        style = SynthesisConfig(
            length_scale=voice.config.length_scale / speed, normalize_audio=False, volume=_VOLUME
        )
        lead = LeadingSilence(rate)
        try:
            for piece in pieces(text):
                for chunk in voice.synthesize(piece, style):
                    samples = lead.push(np.asarray(chunk.audio_int16_array, dtype=np.int16))
                    if piece.endswith(_CLAUSE_ENDS):
                        samples = cut_tail(samples, rate, _CLAUSE_PAUSE_S)
                    if len(samples):
                        yield Pcm(samples, rate)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(f"Piper failed: {error}") from error

    def _voice(self, voice_id: str) -> Any:
        if voice_id not in self._voices:
            import onnxruntime
            from piper import PiperVoice
            from piper.config import PiperConfig

            folder = self._store.path(voice_id)
            model = folder / f"{voice_id}.onnx"
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.inter_op_num_threads = 1
            # Threads that spin between two runs take the core away from the 20 ms clock.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            try:
                config = json.loads(model.with_name(f"{model.name}.json").read_text("utf-8"))
                session = onnxruntime.InferenceSession(
                    str(model), options, providers=["CPUExecutionProvider"]
                )
            # onnxruntime's errors share no base but this.
            except Exception as error:
                raise WeightsError(
                    f"voice {voice_id} cannot be opened: {error}",
                    how_to_fix=[f"offhook models fetch {voice_id}"],
                ) from error
            self._voices[voice_id] = PiperVoice(
                session=session, config=PiperConfig.from_dict(config)
            )
            log.info("voice loaded", extra={"voice": voice_id})
        return self._voices[voice_id]


def pieces(text: str) -> list[str]:
    """The text in the pieces it is synthesised in: sentences, the first one's first clause apart."""
    sentences = [part for part in _SENTENCE_END.split(text.strip()) if part]
    if sentences and (match := _FIRST_CLAUSE.match(sentences[0])):
        rest = sentences[0][match.end() :].strip()
        sentences[:1] = [match.group(), rest]
    return sentences
