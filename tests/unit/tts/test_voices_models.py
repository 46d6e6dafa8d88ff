"""Piper and espeak-ng for real."""

import asyncio
import re
import shutil
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, WeightsError
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore
from engine.media.frame import Pcm
from engine.stt.faster_whisper import FasterWhisper
from engine.tts.espeak import Espeak
from engine.tts.piper import Piper, pieces

FOLDER = Path(__file__).parents[3] / "models" / "weights"
VOICE = "en_US-joe-medium"
needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed"
)


def weights(model_id: str) -> Path:
    try:
        return WeightStore(FOLDER).path(model_id)
    except WeightsError as error:
        pytest.skip(f"{error}; {error.how_to_fix[0]}")


@pytest.fixture
async def workers():
    workers = Workers()
    yield workers
    await workers.close()


@pytest.fixture
def piper(workers: Workers) -> Piper:
    weights(VOICE)
    return Piper(WeightStore(FOLDER), workers, default_voice=VOICE)


def joined(chunks: list[Pcm]) -> Pcm:
    return Pcm(np.concatenate([pcm.samples for pcm in chunks]), chunks[0].rate)


def test_the_first_clause_of_a_long_sentence_is_made_apart() -> None:
    assert pieces("Sure, I can help you with that today.") == [
        "Sure,",
        "I can help you with that today.",
    ]
    assert pieces("Yes, of course.") == ["Yes, of course."]
    assert pieces("One. Two!") == ["One.", "Two!"]
    assert pieces("") == []


@pytest.mark.models
async def test_what_piper_says_whisper_understands(piper: Piper, workers: Workers) -> None:
    text = "Your table is booked for two people, see you on Friday at 7:30 pm."
    sound = joined([pcm async for pcm in piper.speak(text, voice="", language="en")])
    assert sound.rate == 22_050
    audible = np.flatnonzero(np.abs(sound.samples.astype(np.int32)) > 130)
    assert audible[0] / sound.rate <= 0.041
    heard = await FasterWhisper(weights("whisper-base-int8"), workers).transcribe(
        sound, language="en"
    )
    # Piper never says a sentence twice in the same way, so a word may be misheard.
    wanted = {
        "your",
        "table",
        "is",
        "booked",
        "for",
        "two",
        "people",
        "see",
        "you",
        "on",
        "friday",
        "at",
    }
    assert len(wanted & set(re.findall(r"\w+", heard.text.lower()))) >= len(wanted) - 2


@pytest.mark.models
async def test_speed_makes_the_sentence_shorter(piper: Piper) -> None:
    lengths = [
        sum(
            [
                pcm.seconds
                async for pcm in piper.speak(
                    "Thank you for calling us today.", voice="", language="en", speed=speed
                )
            ]
        )
        for speed in (0.8, 1.0, 1.4)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


@pytest.mark.models
async def test_an_interrupted_sentence_frees_the_lane(piper: Piper, workers: Workers) -> None:
    long = "Well, this is a long story that nobody wants to hear. " * 20
    async with aclosing(piper.speak(long, voice="", language="en")) as chunks:
        await anext(chunks)
    assert [pcm async for pcm in piper.speak("Sorry.", voice="", language="en")]
    assert workers.stats()["tts"].queued == 0


@pytest.mark.models
async def test_an_unknown_voice_is_a_weights_error(piper: Piper) -> None:
    with pytest.raises(WeightsError, match="no model"):
        await anext(piper.speak("Hello.", voice="nobody", language="en"))
    assert [pcm async for pcm in piper.speak("🙂 …", voice="", language="en")] == []


@needs_espeak
@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "Room 12 is free."), ("ru", "Вам 25 рублей."), ("uk", "Дякую, 2 гривні.")],
)
async def test_espeak_speaks_every_language(language: str, text: str) -> None:
    sound = joined([pcm async for pcm in Espeak().speak(text, voice="", language=language)])
    assert sound.rate == 22_050
    assert 0.5 < sound.seconds < 5
    assert np.abs(sound.samples.astype(np.int32)).max() > 5000


@needs_espeak
async def test_closing_espeak_ends_its_process() -> None:
    async with aclosing(Espeak().speak("слово " * 2000, voice="", language="ru")) as chunks:
        await anext(chunks)
    await asyncio.sleep(0)
    with pytest.raises(ConfigError, match="no espeak-ng voice"):
        await anext(Espeak().speak("a", voice="--path=/etc", language="en"))


async def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(ConfigError) as error:
        await Espeak("no-such-espeak").warm()
    assert error.value.how_to_fix[0] == "apt install espeak-ng"
