"""Two scripted models on virtual time: who answers, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec
from engine.dialog.llm.failover import Failover
from engine.errors import ModelError, ModelTimeout
from tests.virtual_time import VirtualTimeLoop

HELLO = [Message("user", "Hi")]


@dataclass
class Model:
    """Does its steps: says words, asks for a tool, waits seconds, fails."""

    steps: Sequence[str | float | ToolCall | ModelError] = ()
    ill: ModelError | None = None
    """What warming raises."""
    name: str = "scripted"
    did: list[str] = field(default_factory=list)

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncGenerator[Delta, None]:
        self.did.append(f"reply {max_tokens} {cache_key} {len(tools)} {committed is not None}")
        try:
            for step in self.steps:
                if isinstance(step, ModelError):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield TextDelta(step) if isinstance(step, str) else step
        except GeneratorExit:
            self.did.append("stopped")
            raise

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        self.did.append(f"warm {cache_key}")
        if self.ill is not None:
            raise self.ill

    async def forget(self, cache_key: str) -> None:
        self.did.append(f"forget {cache_key}")

    async def close(self) -> None:
        self.did.append("close")


async def text(model: Failover) -> str:
    return "".join(
        [delta.text async for delta in model.reply(HELLO) if isinstance(delta, TextDelta)]
    )


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await script()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


LATE = (2.0, ModelTimeout("nothing within 2 s"))


@pytest.mark.parametrize("steps", [LATE, (ModelError("unreachable"),)])
def test_the_second_answers_for_a_first_that_said_nothing(
    steps: Sequence[str | float | ModelError],
) -> None:
    async def script() -> None:
        first, second = Model(steps), Model(["Yes."])
        model = Failover(first, second)
        committed = asyncio.Event()
        tools = [ToolSpec("look_up", "Look.")]
        deltas = [
            delta
            async for delta in model.reply(
                HELLO, tools, max_tokens=7, cache_key="call", committed=committed
            )
        ]
        assert deltas == [TextDelta("Yes.")]
        assert first.did == second.did == ["reply 7 call 1 True"]
        assert (model.stats().failed, model.stats().state) == (1, "closed")
        await model.close()

    run(script)


@pytest.mark.parametrize("given", ["Half a", ToolCall("c", "look_up", {})])
def test_what_was_given_out_is_not_said_again(given: str | ToolCall) -> None:
    async def script() -> None:
        first, second = Model([given, ModelError("broke off")]), Model(["Yes."])
        model = Failover(first, second)
        async with aclosing(model.reply(HELLO)) as deltas:
            await anext(deltas)
            with pytest.raises(ModelError, match="broke off"):
                await anext(deltas)
        assert second.did == [] and model.stats().failed == 1
        await model.close()

    run(script)


def test_a_first_that_keeps_failing_is_skipped_until_it_is_well() -> None:
    async def script() -> None:
        first, second = Model(LATE, ill=ModelError("down")), Model(["Local."])
        model = Failover(first, second, failures=2, rest_s=10.0)
        clock = asyncio.get_running_loop().time
        waited = []
        for _ in range(4):
            since = clock()
            assert await text(model) == "Local."
            waited.append(clock() - since)
        assert waited == [2.0, 2.0, 0.0, 0.0]
        first.steps, first.ill = ["Remote."], None
        await asyncio.sleep(11)
        assert await text(model) == "Remote."
        stats = model.stats()
        assert (stats.state, stats.answered, stats.failed, stats.skipped) == ("closed", 1, 2, 2)
        await model.close()

    run(script)


def test_an_interrupted_reply_is_stopped_and_counts_as_answered() -> None:
    async def script() -> None:
        first, second = Model(["One", "Two"]), Model()
        model = Failover(first, second)
        async with aclosing(model.reply(HELLO)) as deltas:
            assert await anext(deltas) == TextDelta("One")
        assert first.did[-1] == "stopped" and model.stats().answered == 1
        await model.close()

    run(script)


def test_both_failing_is_a_failure() -> None:
    async def script() -> None:
        model = Failover(Model([ModelError("first")]), Model([ModelError("second")]))
        with pytest.raises(ModelError, match="second"):
            await text(model)
        await model.close()

    run(script)


def test_both_are_warmed_and_only_the_one_that_answers_reads_ahead() -> None:
    async def script() -> None:
        first, second = Model(), Model()
        model = Failover(first, second)
        await model.warm()
        await model.warm(HELLO, cache_key="call")
        assert first.did == ["warm ", "warm call"] and second.did == ["warm "]
        first.ill = ModelError("down")
        await model.warm(HELLO)
        assert model.stats().state == "open", "whoever does not even warm is not asked"
        await model.warm(HELLO, cache_key="call")
        assert second.did == ["warm ", "warm ", "warm call"]
        await model.forget("call")
        await model.close()
        assert first.did[-2:] == second.did[-2:] == ["forget call", "close"]

    run(script)


def test_without_a_second_that_works_the_start_fails() -> None:
    async def script() -> None:
        model = Failover(Model(), Model(ill=ModelError("no weights")))
        with pytest.raises(ModelError, match="no weights"):
            await model.warm()
        await model.close()

    run(script)
