"""Models by the script for real calls: what a caller said is given, and the agent's voice is a known noise."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.bench.silent_models import SilentLlm, SilentStt, SilentTurnModel
from engine.calls.parts import Parts
from engine.config import Agent, Settings, TransferTarget
from engine.dialog.llm.base import Delta, LanguageModel, Message, TextDelta, ToolSpec
from engine.media.frame import Pcm, Samples
from engine.stt.base import Transcript
from engine.turns.vad import make_vad

RATE = 8000
CHARACTER_S = 0.05
LONG = "This is a story that takes quite a while to tell, since it has many words. " * 2  # 7.5 s


def agent(id: str, **changes: Any) -> Agent:
    values: dict[str, Any] = {
        "id": id,
        "name": id,
        "languages": ("en",),
        "greeting": "Good day.",
        "prompt": f"You are {id}.",
        "transfers": (TransferTarget(name="operator", to="600"),),
    }
    return Agent(**(values | changes))


def voice(text: str) -> Samples:
    """How the agent says it: no two texts sound alike."""
    length = round(len(text) * CHARACTER_S * RATE)
    return np.random.default_rng(zlib.crc32(text.encode())).integers(-3000, 3000, length, np.int16)


class Voice:
    def __init__(self, fails_on: Mapping[str, Exception]) -> None:
        self._fails_on = fails_on

    async def speak(self, text: str, *, language: str) -> AsyncIterator[Pcm]:
        if error := self._fails_on.get(text):
            raise error
        yield Pcm(voice(text), RATE)


class Hearing(SilentStt):
    """Every caller has said `says`; in a language of `fails_in` nothing is understood at all."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def transcribe(
        self, audio: Pcm, *, language: str | None, languages: tuple[str, ...] = (), prompt: str = ""
    ) -> Transcript:
        if error := self._script.stt_fails_in.get(language or ""):
            raise error
        return Transcript(self._script.says, language or languages[0], 0.95)


class Thinking(SilentLlm):
    """Answers `answer`, but for an agent of `llm_fails_for` raises, or lets another model answer."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[Delta]:
        for name, trouble in self._script.llm_fails_for.items():
            if f"You are {name}." in messages[0].content:
                if isinstance(trouble, Exception):
                    raise trouble
                async for delta in trouble.reply(messages, tools, max_tokens=max_tokens):
                    yield delta
                return
        yield TextDelta(self._script.answer)


@dataclass
class Script:
    """A PartsFactory. What it says can change between calls."""

    says: str = "When do you open?"
    answer: str = "We open at nine."
    llm_fails_for: dict[str, Exception | LanguageModel] = field(default_factory=dict)
    """By agent."""
    stt_fails_in: dict[str, Exception] = field(default_factory=dict)
    """By language."""
    tts_fails_on: dict[str, Exception] = field(default_factory=dict)
    """By text."""

    async def __call__(
        self, settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
    ) -> Parts:
        async def prepare(agents: Mapping[str, Agent]) -> Mapping[str, Voice]:
            return {name: Voice(self.tts_fails_on) for name in agents}

        return Parts(
            stt=Hearing(self),
            llm=Thinking(self),
            voices=await prepare(agents),
            turn_model=SilentTurnModel(),
            make_vad=lambda rate: make_vad(settings.models.vad, rate),
            limits=settings.limits,
            prepare=prepare,
        )
