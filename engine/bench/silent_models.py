"""Models that hear and say nothing: what is left is the media plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack

from engine.calls.parts import Parts
from engine.config import Agent, Settings
from engine.dialog.llm.base import Delta, Message, ToolSpec
from engine.media.frame import Pcm
from engine.stt.base import Transcript
from engine.turns.vad import make_vad
from engine.turns.vad_batch import SileroBatch


class SilentStt:
    name = "silent"

    async def transcribe(
        self, audio: Pcm, *, language: str | None, languages: tuple[str, ...] = (), prompt: str = ""
    ) -> Transcript:
        return Transcript("", language or "en", 1.0)

    async def warm(self) -> None: ...
    async def close(self) -> None: ...


class SilentLlm:
    name = "silent"

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[Delta]:
        return
        yield

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None: ...

    async def forget(self, cache_key: str) -> None: ...
    async def close(self) -> None: ...


class SilentVoice:
    async def speak(self, text: str, *, language: str) -> AsyncIterator[Pcm]:
        yield Pcm.silence(0.02, 8000)


class SilentTurnModel:
    async def probability(self, audio: Pcm) -> float:
        return 1.0


async def silent_parts(
    settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
) -> Parts:
    async def prepare(agents: Mapping[str, Agent]) -> Mapping[str, SilentVoice]:
        return {name: SilentVoice() for name in agents}

    vads = SileroBatch()
    stack.push_async_callback(vads.close)
    return Parts(
        stt=SilentStt(),
        llm=SilentLlm(),
        voices=await prepare(agents),
        turn_model=SilentTurnModel(),
        make_vad=lambda rate: make_vad(settings.models.vad, rate, vads),
        limits=settings.limits,
        prepare=prepare,
    )
