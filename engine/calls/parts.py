"""The models every call shares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.config import Agent, LimitSettings
from engine.dialog.llm.base import LanguageModel
from engine.media.frame import Pcm
from engine.stt.base import SpeechToText
from engine.turns.vad import Vad


class TurnModel(Protocol):
    async def probability(self, audio: Pcm) -> float:
        """How likely the caller has finished, 0..1. Raises ModelError."""
        ...


class Voice(Protocol):
    """A TextToSpeech whose voices are chosen by the agent's file."""

    def speak(self, text: str, *, language: str) -> AsyncIterator[Pcm]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """`voices` are by agent id."""

    stt: SpeechToText
    llm: LanguageModel
    voices: Mapping[str, Voice]
    turn_model: TurnModel
    make_vad: Callable[[int], Vad]
    limits: LimitSettings
    prepare: Callable[[Mapping[str, Agent]], Awaitable[Mapping[str, Voice]]]
    """Voices for more agents, by id, with all that their calls need warm. Raises OffhookError."""
    spare: Callable[[], bool] = lambda: True
    """Whether there is time for a guess that will perhaps be thrown away."""
