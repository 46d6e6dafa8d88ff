"""Whisper for real, on recorded telephone prompts with known texts."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError, WeightsError
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore, cache_folder
from engine.media.frame import Pcm
from engine.stt.faster_whisper import FasterWhisper
from engine.stt.hallucinations import is_hallucination
from engine.stt.onnx_asr import OnnxAsr

FOLDER = Path(__file__).parents[3] / "models" / "weights"
SPEAKERS = {"en": "en_US_f_Allison", "ru": "ru_RU_f_IvrvoiceRU"}


def prompt(language: str, name: str) -> Pcm:
    inside = Path("usr/share/asterisk/sounds") / SPEAKERS[language] / f"{name}.wav"
    for root in (Path("/"), cache_folder() / "asterisk-root"):
        if (root / inside).is_file():
            with wave.open(str(root / inside)) as file:
                data = file.readframes(file.getnframes())
                return Pcm(np.frombuffer(data, dtype="<i2"), file.getframerate())
    pytest.skip(
        f"Asterisk's {language} prompts are not installed (asterisk-core-sounds-{language}-wav)"
    )


def words(text: str) -> list[str]:
    return re.sub(r"[^\w ]", " ", text.lower()).split()


@pytest.fixture
async def workers():
    workers = Workers()
    yield workers
    await workers.close()


@pytest.fixture
def whisper(workers: Workers) -> FasterWhisper:
    try:
        return FasterWhisper(WeightStore(FOLDER).path("whisper-base-int8"), workers)
    except WeightsError as error:
        pytest.skip(f"{error}; {error.how_to_fix[0]}")


@pytest.mark.models
async def test_warming_loads_the_model_and_runs_it(whisper: FasterWhisper) -> None:
    assert whisper._model is None
    await whisper.warm()
    assert whisper._model is not None
    await whisper.close()
    assert whisper._model is None


@pytest.mark.models
async def test_a_prompt_is_understood_in_the_short_and_in_the_full_window(
    whisper: FasterWhisper, workers: Workers
) -> None:
    audio = prompt("en", "agent-pass")
    full = FasterWhisper(whisper._folder, workers, window_s=0)
    for model in (whisper, full):
        heard = await model.transcribe(audio, language="en")
        assert words(heard.text) == words("Please enter your password followed by the pound key")
        assert heard.confidence > 0.5
        assert heard.language == "en"
        assert heard.took_ms > 0
        assert heard.seconds == pytest.approx(audio.seconds)


@pytest.mark.models
@pytest.mark.parametrize(("language", "name"), [("en", "agent-pass"), ("ru", "agent-pass")])
async def test_the_language_is_found_among_the_agents_own(
    whisper: FasterWhisper, language: str, name: str
) -> None:
    audio = prompt(language, name)
    heard = await whisper.transcribe(audio, language=None, languages=("en", "ru"))
    assert heard.language == language
    alone = await whisper.transcribe(audio, language=None, languages=("uk",))
    assert alone.language == "uk"


@pytest.mark.models
async def test_russian_speech_is_written_in_russian(whisper: FasterWhisper) -> None:
    heard = await whisper.transcribe(prompt("ru", "agent-pass"), language="ru")
    assert "пароль" in heard.text.lower()


@pytest.mark.models
async def test_nobody_speaking_gives_no_text(whisper: FasterWhisper) -> None:
    noise = np.random.default_rng(3).normal(0, 30, 16_000).astype(np.int16)
    for audio in (Pcm.silence(2, 8000), Pcm(noise, 8000), Pcm.silence(0.01, 8000)):
        heard = await whisper.transcribe(audio, language=None, languages=("en", "ru"))
        assert (heard.text, heard.confidence) == ("", 0.0)


@pytest.mark.models
async def test_a_window_too_short_to_be_safe_is_rescued_by_the_full_one(
    whisper: FasterWhisper,
    workers: Workers,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.stt.faster_whisper._TAIL_FRAMES", 2)
    reckless = FasterWhisper(whisper._folder, workers, window_s=0.1)
    # Read without padding, these come out as "Please try again. Please try again. Please try…".
    spoken = {
        "vm-pls-try-again": "please try again",
        "conf-noempty": "no empty conferences currently exist",
    }
    with caplog.at_level("INFO", logger="engine.stt.faster_whisper"):
        for name, text in spoken.items():
            heard = await reckless.transcribe(prompt("en", name), language="en")
            assert " ".join(words(heard.text)) == text
    assert caplog.messages.count("short window looped; decoding with the full one") == len(spoken)


def test_closing_words_of_subtitles_are_known() -> None:
    assert is_hallucination("Thank you.")
    assert is_hallucination("Субтитры сделал DimaTorzok")
    assert is_hallucination(" Продолжение следует... ")
    assert is_hallucination("...")
    assert not is_hallucination("Thank you, I would like to book a table")


def test_the_optional_package_is_named_when_missing(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        OnnxAsr("gigaam-v3-ctc", workers)
    assert "offhook[onnx-asr]" in error.value.how_to_fix[0]
