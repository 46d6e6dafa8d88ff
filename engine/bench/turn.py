"""`offhook bench turn`: the caller's last sound to the agent's first, with the real models."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.bench.harness import engine_for
from engine.bench.report import machine, models, spread
from engine.bench.speech import questions
from engine.config import Agent, Settings, load_agents
from engine.events import Event
from engine.lab.caller import Caller
from engine.media.frame import Samples

ANSWER_S = 12.0


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """Each caller asks recorded questions, one after another, until `seconds` have passed."""
    agent = _agent(settings)
    spoken = questions()
    stages: dict[str, list[float]] = {}
    late: list[float] = []

    def note(event: Event) -> None:
        if event.type == "turn.finished":
            for stage, took in event.data["stages_ms"].items():
                if took is not None:
                    stages.setdefault(stage, []).append(took)

    async with engine_for(settings, agent, calls=calls, through=through) as lab:
        lab.engine.bus.listen(note)
        callers = [await lab.call() for _ in range(calls)]
        await asyncio.sleep(0.2)
        players = [session.player for session in lab.engine.desk.sessions()]
        cpu, wall = time.process_time(), time.monotonic()
        until = wall + seconds
        results = await asyncio.gather(
            *(
                _converse(caller, spoken[i::calls] or spoken, until)
                for i, caller in enumerate(callers)
            )
        )
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        late = [value for player in players for value in player.lateness_ms]
        await asyncio.gather(*(caller.hang_up() for caller in callers))
    gaps = [gap for result in results for gap in result[0]]
    cutoffs = sum(result[1] for result in results)
    missed = sum(result[2] for result in results)
    return {
        "bench": "turn",
        "through": through,
        "calls": calls,
        "seconds": round(wall, 1),
        "turns": len(gaps) + cutoffs + missed,
        "gap_ms": spread(gaps),
        "first_turn_gap_ms": [round(result[0][0], 1) for result in results if result[0]],
        "stages_ms": {name: spread(values) for name, values in stages.items()},
        "false_cutoffs": cutoffs,
        "missed": missed,
        "lateness_ms": spread(late),
        "cpu_per_call": round(cpu / wall / calls, 3),
        "machine": machine(),
        "models": models(settings.models),
    }


async def _converse(
    caller: Caller, spoken: list[Samples], until: float
) -> tuple[list[float], int, int]:
    """Gaps in milliseconds, false cut-offs, turns without an answer."""
    gaps: list[float] = []
    cutoffs = missed = 0
    await caller.wait_for_sound(caller.answered_at, ANSWER_S)
    turn = 0
    while time.monotonic() < until and not caller.ended.is_set():
        await caller.wait_for_quiet(0.8, 40.0)
        _first, last = await caller.play(spoken[turn % len(spoken)])
        turn += 1
        during = caller.heard.first_sound(_first)
        if during is not None and during < last:
            cutoffs += 1
            continue
        answer = await caller.wait_for_sound(last, ANSWER_S)
        if answer is None:
            missed += 1
            continue
        gaps.append((answer - last) * 1000)
    return gaps, cutoffs, missed


def _agent(settings: Settings) -> Agent:
    agent = load_agents(settings.agents)["reception"]
    # No tool may end the call while it is measured.
    return agent.model_copy(update={"tools": (), "transfers": (), "record": False})
