"""The models every call shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.config import LimitSettings
from engine.dialog.llm.base import LanguageModel
from engine.media.frame import Pcm
from engine.stt.base import SpeechToText
from engine.tts.voices import Voices
from engine.turns.vad import Vad


class TurnModel(Protocol):
    async def probability(self, audio: Pcm) -> float:
        """How likely the caller has finished, 0..1. Raises ModelError."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    stt: SpeechToText
    llm: LanguageModel
    voices: Voices
    turn_model: TurnModel
    make_vad: Callable[[int], Vad]
    limits: LimitSettings
