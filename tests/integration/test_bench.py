"""The benches through a real Asterisk: their callers are telephones."""

from __future__ import annotations

import asyncio

import pytest

from engine.bench import media
from engine.bench.harness import engine_for
from engine.bench.silent_models import silent_parts
from engine.bench.speech import trimmed
from engine.config import Settings
from engine.errors import ConfigError
from engine.lab import ports
from engine.lab.caller import Caller
from engine.lab.voice import prompt
from tests.integration.scripted import Script, agent, voice

pytestmark = pytest.mark.asterisk

THROUGH = ("audiosocket", "asterisk")
WORDS = trimmed(prompt("vm-goodbye").samples)
GREETING = "Good day, what can I do for you?"


@pytest.mark.parametrize("through", THROUGH)
async def test_a_caller_hears_and_is_heard(through: str) -> None:
    who = agent("clerk", greeting=GREETING)
    async with engine_for(
        Settings(), who, calls=1, through=through, parts=Script(answer="We open at nine.")
    ) as lab:
        caller: Caller = await lab.call()
        began = await caller.wait_for_sound(caller.answered_at, 5.0)
        assert began is not None
        assert [row["agent"] for row in lab.engine.desk.live()] == ["clerk"]
        assert await caller.wait_for_quiet(0.3, 5.0)
        ended = caller.heard.last_sound(began, asyncio.get_running_loop().time())
        # The telephone heard the greeting, and for as long as it takes to say it.
        assert ended is not None
        assert ended - began == pytest.approx(len(voice(GREETING)) / 8000, abs=0.3)
        first, last = await caller.play(WORDS)
        assert last - first == pytest.approx(len(WORDS) / 8000, abs=0.2)
        answer = await caller.wait_for_sound(last, 5.0)
        assert answer is not None and answer > last
        await caller.hang_up()
        assert caller.ended.is_set()
        assert await caller.wait_for_sound(asyncio.get_running_loop().time(), 5.0) is None


async def test_media_through_asterisk() -> None:
    result = await media.run(Settings(), calls=3, seconds=1.0, through="asterisk")
    assert result["through"] == "asterisk"
    assert result["frames_per_call_per_s"] > 25
    assert result["lateness_ms"]["p50"] is not None


async def test_what_cannot_be_measured_is_said_at_once() -> None:
    for through, calls in (("pigeons", 1), ("asterisk", ports.CALLS + 1)):
        with pytest.raises(ConfigError) as caught:
            async with engine_for(
                Settings(), agent("clerk"), calls=calls, through=through, parts=silent_parts
            ):
                pass
        assert caught.value.how_to_fix
