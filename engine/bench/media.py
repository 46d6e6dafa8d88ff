"""`offhook bench media`: the playout clock and the cost of a call, without models.

Callers ask recorded questions, voice and end of turn are detected, the agent answers with a sound of two
and a half seconds, both sides are recorded. Nothing is understood: hearing, thinking and speaking cost nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from engine.app import keep_for_good
from engine.bench.harness import Lab, engine_for
from engine.bench.report import machine, spread
from engine.bench.silent_models import SilentLlm, SilentStt, silent_parts
from engine.calls.parts import Parts
from engine.config import Agent, Settings
from engine.dialog.llm.base import Delta, TextDelta
from engine.errors import OffhookError
from engine.media.frame import Pcm
from engine.stt.base import Transcript

SETTLE_S = 2.0
ANSWER_S = 2.5
AGENT = Agent(
    id="bench",
    name="bench",
    languages=("en",),
    greeting="",
    prompt="-",
    record=True,
    record_notice="This call is recorded.",
)
Heard = Callable[[], Awaitable[list[int]]]
"""How many frames each caller has heard so far."""


class _Words(SilentStt):
    async def transcribe(
        self, audio: Pcm, *, language: str | None, languages: tuple[str, ...] = (), prompt: str = ""
    ) -> Transcript:
        return Transcript("What are your opening hours?", "en", 1.0)


class _Answer(SilentLlm):
    async def reply(self, *_: Any, **__: Any) -> AsyncIterator[Delta]:
        yield TextDelta("We are open from nine to five.")


class _Voice:
    """Noise that swells four times a second, as syllables do."""

    def __init__(self) -> None:
        at = np.arange(round(ANSWER_S * 8000)) / 8000
        noise = np.random.default_rng(1).normal(0, 3000, len(at))
        self._sound = Pcm((noise * np.sin(4 * np.pi * at) ** 2).astype(np.int16), 8000)

    async def speak(self, text: str, *, language: str) -> AsyncIterator[Pcm]:
        yield self._sound


async def canned_parts(
    settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
) -> Parts:
    """A conversation without models."""
    silent = await silent_parts(settings, agents, stack)
    return replace(silent, stt=_Words(), llm=_Answer(), voices=dict.fromkeys(agents, _Voice()))


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """`calls` conversations for `seconds`: lateness of every tick, CPU of the engine's process.

    Raises ConfigError, AsteriskMissing, and VoiceMissing without Asterisk's prompts.
    """
    async with engine_for(settings, AGENT, calls=calls, through=through, parts=canned_parts) as lab:
        keep_for_good()
        async with _callers(lab, calls, through) as heard:
            await asyncio.sleep(SETTLE_S)
            players = [session.player for session in lab.engine.desk.sessions()]
            for player in players:
                player.lateness_ms.clear()
            before = await heard()
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(seconds)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            lateness = [late for player in players for late in player.lateness_ms]
            resyncs = sum(player.resyncs for player in players)
            got = [now - then for now, then in zip(await heard(), before, strict=True)]
    note = "share of one core" + (
        ", the engine alone"
        if through == "audiosocket"
        else ", engine and telephones together; Asterisk is another process"
    )
    return {
        "bench": "media",
        "through": through,
        "calls": calls,
        "seconds": round(wall, 1),
        "lateness_ms": spread(lateness),
        "frames_per_call_per_s": round(float(np.mean(got)) / wall, 2),
        "resyncs": resyncs,
        "cpu_per_call": round(cpu / wall / calls, 5),
        "cpu_note": note,
        "machine": machine(),
    }


@asynccontextmanager
async def _callers(lab: Lab, calls: int, through: str) -> AsyncIterator[Heard]:
    if through == "audiosocket":
        async with _callers_beside(lab, calls) as heard:
            yield heard
        return
    callers = [await lab.call() for _ in range(calls)]

    async def frames() -> list[int]:
        return [caller.heard.frames for caller in callers]

    yield frames
    for caller in callers:
        await caller.hang_up()


@asynccontextmanager
async def _callers_beside(lab: Lab, calls: int) -> AsyncIterator[Heard]:
    """In a process of their own."""
    agi = lab.engine.settings.agi.host, str(lab.engine.agi.port)
    module = "engine.bench.media_callers"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *agi, str(calls)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    async def told() -> list[int]:
        line = await answers.readline()
        if not line:
            raise OffhookError("the callers' process has ended")
        counts: list[int] = json.loads(line)
        return counts

    async def frames() -> list[int]:
        requests.write(b"\n")
        return await told()

    try:
        await told()  # all calls are up
        yield frames
    finally:
        requests.close()
        await process.wait()
