"""The bench's caller, against the real servers with models that say nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.bench.harness import engine_for
from engine.bench.silent_models import silent_parts
from engine.config import Agent, Settings
from engine.lab.audiosocket_caller import AudioSocketCaller, agi_step
from engine.media.frame import Samples

AGENT = Agent(id="a", name="A", languages=("en",), greeting="Hello.", prompt="x")
HOST = "127.0.0.1"


def loud(frames: float) -> Samples:
    return np.full(round(frames * 160), 3000, np.int16)


@pytest.fixture
async def agi() -> AsyncIterator[tuple[str, int]]:
    async with engine_for(Settings(), AGENT, calls=1, parts=silent_parts) as lab:
        yield HOST, lab.engine.agi.port


async def test_a_call_is_routed_and_its_sound_goes_both_ways(agi: tuple[str, int]) -> None:
    caller = await AudioSocketCaller.call(agi, "700")
    assert caller.variables["OFFHOOK_STATUS"] == "OK"
    began, ended = await caller.play(loud(9.5))
    assert began < ended
    assert len(caller.said.loud()) == 10, "what is left over fills a frame"
    assert caller.heard.loud() == [] and caller.heard.first_sound(0.0) is None
    assert await caller.wait_for_quiet(0.0, timeout_s=5.0) and caller.heard.frames > 0
    assert await caller.wait_for_sound(0.0, timeout_s=0.05) is None
    await caller.hang_up()
    assert caller.ended.is_set()


async def test_a_call_that_is_over_waits_for_nothing(agi: tuple[str, int]) -> None:
    caller = await AudioSocketCaller.call(agi, "700")
    await caller.hang_up()
    began, ended = await caller.play(loud(3))
    assert began <= ended
    assert not await caller.wait_for_quiet(60.0, timeout_s=60.0)
    assert await caller.wait_for_sound(0.0, timeout_s=60.0) is None


async def test_a_refused_call_says_what_it_was_told() -> None:
    async with engine_for(Settings(), AGENT, calls=1, parts=silent_parts) as lab:
        lab.engine.desk.open = False
        agi = (HOST, lab.engine.agi.port)
        assert (await agi_step(*agi, called="700"))["OFFHOOK_STATUS"] == "CLOSED"
        with pytest.raises(ConnectionRefusedError, match="CLOSED"):
            await AudioSocketCaller.call(agi, "700")
