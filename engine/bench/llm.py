"""`offhook bench llm`: tokens a second when one conversation is answered, and when several are at once."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

from engine.bench.report import machine, models, spread
from engine.config import Agent, Settings, load_agents
from engine.dialog import prompt
from engine.dialog.llm.base import Message, TextDelta
from engine.dialog.llm.llama_cpp import LlamaCpp
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore

TOGETHER = (1, 2, 4, 8)
TOKENS = 48
ROUNDS = 3
STORY = "Count aloud, in words, from one to one hundred."


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """Medians of three rounds; the agent's prompt is shared, as between real calls."""
    agent = load_agents(settings.agents)["reception"]
    speeds: dict[str, float] = {}
    waits: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        workers = Workers()
        stack.push_async_callback(workers.close)
        model = LlamaCpp(
            WeightStore(settings.models.folder).path(settings.models.llm_model),
            workers,
            threads=settings.models.llm_threads,
            context=settings.models.llm_context,
            cells=settings.models.llm_cells,
            timeout_s=120.0,
        )
        stack.push_async_callback(model.close)
        await model.warm(prompt.system_prefix(agent))
        for together in TOGETHER:
            rounds = [await _round(model, agent, together) for _ in range(ROUNDS)]
            speeds[str(together)] = round(sorted(speed for speed, _ in rounds)[ROUNDS // 2], 1)
            waits[str(together)] = spread([wait for _, first in rounds for wait in first])
    return {
        "bench": "llm",
        "tokens_per_s": speeds,
        "first_token_ms": waits,
        "machine": machine(),
        "models": models(settings.models),
    }


async def _round(model: LlamaCpp, agent: Agent, together: int) -> tuple[float, list[float]]:
    """Tokens a second while all of them write, and how long each waited for its first."""

    async def answer(number: int) -> list[float]:
        """When it was asked, and when each piece of the answer came."""
        moments = [time.monotonic()]
        messages = [
            *prompt.system_prefix(agent),
            Message("user", f"I am caller number {number}. {STORY}"),
        ]
        async for delta in model.reply(
            messages, max_tokens=TOKENS, cache_key=f"bench {together} {number}"
        ):
            if isinstance(delta, TextDelta):
                moments.append(time.monotonic())
        return moments

    answers = await asyncio.gather(*(answer(number) for number in range(together)))
    waits = [(moments[1] - moments[0]) * 1000 for moments in answers]
    begin, end = max(moments[1] for moments in answers), min(moments[-1] for moments in answers)
    written = sum(begin < moment <= end for moments in answers for moment in moments[1:])
    return written / max(0.001, end - begin), waits
