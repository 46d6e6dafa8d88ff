"""Two scripted recognisers on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from engine.errors import ModelError, ModelTimeout
from engine.media.frame import Pcm
from engine.stt.base import Transcript
from engine.stt.failover import Failover
from tests.virtual_time import VirtualTimeLoop

SOUND = Pcm.silence(1.0, 8000)


@dataclass
class Ear:
    text: str
    takes_s: float = 0.0
    fails: ModelError | None = None
    name: str = "scripted"
    asked: int = 0
    closed: bool = False

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
    ) -> Transcript:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if self.fails is not None:
            raise self.fails
        return Transcript(f"{self.text} {language} {languages} {prompt}", "en", 1.0)

    async def warm(self) -> None:
        if self.fails is not None:
            raise self.fails

    async def close(self) -> None:
        self.closed = True


async def hear(model: Failover) -> str:
    transcript = await model.transcribe(SOUND, language=None, languages=("en",), prompt="p")
    return transcript.text


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await script()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_the_second_hears_what_the_first_could_not_and_then_first_of_all() -> None:
    async def script() -> None:
        first, second = Ear("remote", 3.0, ModelTimeout("late")), Ear("local")
        model = Failover(first, second, failures=2, rest_s=10.0)
        clock = asyncio.get_running_loop().time
        for _ in range(3):
            assert await hear(model) == "local None ('en',) p"
        assert clock() == 6.0 and (first.asked, second.asked) == (2, 3)
        first.fails = None
        await asyncio.sleep(11)
        assert await hear(model) == "remote None ('en',) p"
        assert model.stats().answered == 1 and model.name == "scripted"
        await model.close()
        assert first.closed and second.closed

    run(script)


def test_a_first_that_does_not_warm_is_not_asked() -> None:
    async def script() -> None:
        first, second = Ear("remote", fails=ModelError("down")), Ear("local")
        model = Failover(first, second)
        await model.warm()
        assert (await hear(model)).startswith("local") and first.asked == 0
        await model.close()

    run(script)


def test_both_failing_is_a_failure() -> None:
    async def script() -> None:
        model = Failover(Ear("a", fails=ModelError("a")), Ear("b", fails=ModelError("b")))
        with pytest.raises(ModelError, match="b"):
            await hear(model)
        with pytest.raises(ModelError, match="b"):
            await model.warm()
        await model.close()

    run(script)
