from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from engine.config import Agent, VoiceSettings
from engine.errors import ConfigError
from engine.media.frame import Pcm
from engine.tts.cache import Phrase, PhraseCache
from engine.tts.voices import Voices


class Beeper:
    """An engine whose sound is as long as its text, in two chunks; it counts what it made."""

    name = "beeper"

    def __init__(self) -> None:
        self.made: list[tuple[str, str, str, float]] = []

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncIterator[Pcm]:
        self.made.append((text, voice, language, speed))
        for _ in range(2):
            yield Pcm(np.ones(len(text) * 10, dtype=np.int16), 8000)

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


async def samples(chunks: AsyncIterator[Pcm]) -> int:
    return sum([len(pcm.samples) async for pcm in chunks])


async def test_a_warmed_phrase_is_made_once() -> None:
    engine = Beeper()
    cache = PhraseCache(engine)
    await cache.warm([Phrase("Hello", "en"), Phrase("Hello", "en"), Phrase(" ", "en")])
    for _ in range(3):
        assert await samples(cache.speak("Hello", voice="", language="en")) == 100
    assert len(engine.made) == 1
    assert (cache.hits, cache.misses, cache.bytes) == (3, 0, 200)


async def test_voice_language_and_speed_are_told_apart() -> None:
    engine = Beeper()
    cache = PhraseCache(engine)
    await cache.warm([Phrase("Hello", "en")])
    await samples(cache.speak("Hello", voice="other", language="en"))
    await samples(cache.speak("Hello", voice="", language="uk"))
    await samples(cache.speak("Hello", voice="", language="en", speed=1.2))
    assert len(engine.made) == 4


async def test_what_a_caller_is_told_is_not_kept() -> None:
    cache = PhraseCache(engine := Beeper())
    for _ in range(2):
        await samples(cache.speak("Your code is nine", voice="", language="en"))
    assert len(engine.made) == 2
    assert cache.bytes == 0


async def test_the_phrase_not_heard_for_longest_goes_and_comes_back_when_said() -> None:
    engine = Beeper()
    cache = PhraseCache(engine, limit_bytes=100)
    await cache.warm([Phrase("a", "en"), Phrase("b", "en")])
    await samples(cache.speak("a", voice="", language="en"))
    await cache.warm([Phrase("c", "en")])
    assert cache.bytes == 80
    made = len(engine.made)
    await samples(cache.speak("a", voice="", language="en"))
    assert len(engine.made) == made
    await samples(cache.speak("b", voice="", language="en"))
    await samples(cache.speak("b", voice="", language="en"))
    assert len(engine.made) == made + 1


async def test_an_interrupted_phrase_is_not_kept() -> None:
    cache = PhraseCache(Beeper(), limit_bytes=1000)
    await cache.warm([Phrase("x" * 30, "en")])
    assert cache.bytes == 0
    async with aclosing(cache.speak("x" * 30, voice="", language="en")) as chunks:
        await anext(chunks)
    assert cache.bytes == 0


def agent(**voices: VoiceSettings) -> Agent:
    return Agent(
        id="a", name="A", languages=("en", "ru"), greeting="Hi", prompt="Be kind", voices=voices
    )


async def test_each_language_is_spoken_by_its_own_engine_and_voice() -> None:
    piper, espeak = Beeper(), Beeper()
    voices = Voices(
        agent(ru=VoiceSettings(engine="espeak", voice="ru+f3", speed=1.1)),
        {"piper": PhraseCache(piper), "espeak": espeak},
    )
    await voices.warm([("Hello", "en")])
    await samples(voices.speak("Hello", language="en"))
    await samples(voices.speak("Привет", language="ru"))
    assert piper.made == [("Hello", "", "en", 1.0)]
    assert espeak.made == [("Привет", "ru+f3", "ru", 1.1)]


def test_an_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="piper") as error:
        Voices(agent(), {"espeak": Beeper()})
    assert "voices.en" in error.value.how_to_fix[0]
