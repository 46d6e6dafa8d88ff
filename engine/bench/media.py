"""`offhook bench media`: the playout clock and the cost of a call, without models."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from engine.bench.harness import engine_for
from engine.bench.report import machine, spread
from engine.bench.silent_models import silent_parts
from engine.config import Agent, Settings


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """`calls` callers who talk and listen for `seconds`; lateness of every tick, CPU of this process."""
    agent = Agent(
        id="bench",
        name="bench",
        languages=("en",),
        greeting="",
        prompt="-",
    )
    async with engine_for(settings, agent, calls=calls, through=through, parts=silent_parts) as lab:
        callers = [await lab.call() for _ in range(calls)]
        await asyncio.sleep(1.0)
        players = [session.player for session in lab.engine.desk.sessions()]
        for player in players:
            player.lateness_ms.clear()
        cpu, wall = time.process_time(), time.monotonic()
        frames = [caller.heard.frames for caller in callers]
        await asyncio.sleep(seconds)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        got = [caller.heard.frames - before for caller, before in zip(callers, frames, strict=True)]
        lateness = [late for player in players for late in player.lateness_ms]
        resyncs = sum(player.resyncs for player in players)
        for caller in callers:
            await caller.hang_up()
    return {
        "bench": "media",
        "through": through,
        "calls": calls,
        "seconds": round(wall, 1),
        "lateness_ms": spread(lateness),
        "frames_per_call_per_s": round(float(np.mean(got)) / wall, 2),
        "resyncs": resyncs,
        "cpu_per_call": round(cpu / wall / calls, 5),
        "cpu_note": "share of one core, engine and callers together in one process; Asterisk is another",
        "machine": machine(),
    }
