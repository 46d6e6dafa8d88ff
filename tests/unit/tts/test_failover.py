"""Two scripted voices on virtual time: whose sound the caller hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.config import Agent
from engine.errors import ConfigError, ModelError, ModelTimeout
from engine.media.frame import Pcm
from engine.tts.cache import Phrase, PhraseCache
from engine.tts.failover import Failover
from engine.tts.voices import Voices
from tests.virtual_time import VirtualTimeLoop


@dataclass
class Voice:
    """Says two chunks of its number; fails before them, or between them (`breaks`)."""

    number: int
    fails: ModelError | None = None
    breaks: bool = False
    takes_s: float = 0.0
    name: str = "scripted"
    said: list[tuple[str, str, float]] = field(default_factory=list)

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncGenerator[Pcm, None]:
        self.said.append((text, voice, speed))
        await asyncio.sleep(self.takes_s)
        if self.fails is not None and not self.breaks:
            raise self.fails
        yield self._chunk()
        if self.fails is not None:
            raise self.fails
        yield self._chunk()

    async def warm(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.said.append(("", "", 0.0))

    async def close(self) -> None: ...

    def _chunk(self) -> Pcm:
        return Pcm(np.full(80, self.number, dtype=np.int16), 8000)


async def heard(model: Failover, text: str = "Good day.") -> set[int]:
    sound = model.speak(text, voice="af", language="en", speed=1.2)
    return {int(sample) for pcm in [pcm async for pcm in sound] for sample in pcm.samples}


def pair(remote: Voice, local: Voice) -> Failover:
    return Failover(PhraseCache(remote), lambda language: local, failures=2, rest_s=10.0)


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await script()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_the_local_voice_speaks_as_itself_until_the_server_is_well() -> None:
    async def script() -> None:
        remote, local = Voice(1, ModelTimeout("late"), takes_s=2.0), Voice(2)
        model = pair(remote, local)
        for _ in range(3):
            assert await heard(model) == {2}
        assert asyncio.get_running_loop().time() == 4.0
        assert remote.said == [("Good day.", "af", 1.2)] * 2
        assert local.said == [("Good day.", "", 1.2)] * 3
        remote.fails = None
        await asyncio.sleep(11)
        assert await heard(model) == {1} and model.stats().answered == 1
        await model.close()

    run(script)


def test_a_sentence_that_was_begun_is_not_begun_again() -> None:
    async def script() -> None:
        remote, local = Voice(1, ModelError("cut"), breaks=True), Voice(2)
        model = pair(remote, local)
        async with aclosing(model.speak("Good day.", voice="", language="en")) as sound:
            await anext(sound)
            with pytest.raises(ModelError, match="cut"):
                await anext(sound)
        assert local.said == []
        async with aclosing(model.speak("Good day.", voice="", language="en")) as sound:
            await anext(sound)
        assert (model.stats().answered, model.stats().failed) == (1, 1)
        await model.close()

    run(script)


def test_phrases_that_are_ready_need_no_server() -> None:
    async def script() -> None:
        remote, local = Voice(1), Voice(2)
        model = pair(remote, local)
        await model.warm([Phrase("Good day.", "en", "af", 1.2)])
        assert local.said == [("", "", 0.0)]
        remote.fails = ModelError("down")
        await model.warm()
        assert model.stats().state == "open"
        assert await heard(model) == {1} and await heard(model, "Other.") == {2}
        await model.close()

    run(script)


def test_phrases_of_a_server_that_was_down_are_kept_once_it_has_said_them() -> None:
    async def script() -> None:
        remote, local = Voice(1, ModelError("down")), Voice(2)
        model = pair(remote, local)
        await model.warm([Phrase("Good day.", "en", "af", 1.2)])
        assert await heard(model) == {2}, "a phrase in another voice is not what is to be kept"
        remote.fails = None
        await asyncio.sleep(11)
        assert await heard(model) == {1}
        remote.fails = ModelError("down")
        assert await heard(model) == {1}
        await model.close()

    run(script)


def test_an_agent_without_its_server_is_told_what_to_set() -> None:
    agent = Agent(
        name="R",
        languages=("en",),
        greeting="Hello.",
        prompt="Be brief.",
        voices={"en": {"engine": "openai"}},  # type: ignore[dict-item]
    )
    with pytest.raises(ConfigError, match="speaks en with openai") as told:
        Voices(agent, {"piper": Voice(1)})
    assert "[remote.tts]" in told.value.how_to_fix[0]


def test_an_agents_voices_warm_both() -> None:
    async def script() -> None:
        remote, local = Voice(1), Voice(2)
        model = pair(remote, local)
        agent = Agent(
            name="R",
            languages=("en",),
            greeting="Good day.",
            prompt="Be brief.",
            voices={"en": {"engine": "openai", "voice": "af", "speed": 1.2}},  # type: ignore[dict-item]
        )
        await Voices(agent, {"openai": model}).warm([("Good day.", "en")])
        assert remote.said[-1] == ("Good day.", "af", 1.2) and local.said
        await model.close()

    run(script)
