"""`offhook bench bargein`: the caller's first sound over the agent to silence at the caller."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.bench.harness import engine_for
from engine.bench.report import machine, models, spread
from engine.bench.speech import questions
from engine.config import Agent, Settings
from engine.lab.caller import Caller
from engine.media.frame import Samples

# Long enough that the caller is always first; several sentences, so that pauses are among what is cut.
SPEECH = (
    "We are open from Monday to Friday from nine in the morning until six in the evening, and on "
    "Saturday from ten until four. Our workshop stands on Mill Road, beside the old harbour, and there is "
    "a car park behind the building. Fitting four wheels takes about forty minutes. We sell summer tyres, "
    "winter tyres and tyres for all seasons, and we can store the other set for you until spring comes. "
    "If you tell me the size that is printed on the side of your tyre, I can look up what is in stock."
)
SETTLE_S = 1.5


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """Each caller calls again and again and speaks over the greeting, at another moment each time."""
    agent = Agent(
        id="bench", name="bench", languages=("en",), greeting=SPEECH, prompt="Say OK.", tools=()
    )
    spoken = questions()
    stops: list[float] = []
    missed = 0
    async with engine_for(settings, agent, calls=calls, through=through) as lab:
        cpu, wall = time.process_time(), time.monotonic()
        until = wall + seconds

        async def caller_loop(number: int) -> None:
            nonlocal missed
            attempt = number
            while time.monotonic() < until:
                caller = await lab.call()
                stop = await _interrupt(
                    caller, spoken[attempt % len(spoken)], 1.0 + attempt % 7 * 0.37
                )
                await caller.hang_up()
                attempt += calls
                if stop is None:
                    missed += 1
                else:
                    stops.append(stop)

        await asyncio.gather(*(caller_loop(number) for number in range(calls)))
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    return {
        "bench": "bargein",
        "through": through,
        "calls": calls,
        "seconds": round(wall, 1),
        "turns": len(stops) + missed,
        "stop_ms": spread(stops),
        "missed": missed,
        "cpu_per_call": round(cpu / wall / calls, 3),
        "machine": machine(),
        "models": models(settings.models),
    }


async def _interrupt(caller: Caller, speech: Samples, after_s: float) -> float | None:
    """Milliseconds from the caller's first sound to the agent's last; None if it did not stop."""
    began = await caller.wait_for_sound(caller.answered_at, 10.0)
    if began is None:
        return None
    await asyncio.sleep(after_s)
    # In a pause between sentences there is nothing to interrupt: wait for the voice.
    if caller.heard.quiet_for(time.monotonic()) > 0.1:
        await caller.wait_for_sound(time.monotonic(), 3.0)
    first, last = await caller.play(speech)
    await asyncio.sleep(0.1)
    end = caller.heard.last_sound(first - 0.1, last + SETTLE_S, quiet_s=0.25)
    if end is None or end >= last:
        return None
    return max(0.0, (end - first) * 1000)
