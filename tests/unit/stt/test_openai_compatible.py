import asyncio
import math
from typing import Any

import numpy as np
import pytest

from engine.errors import ModelError, ModelTimeout
from engine.inference.model_server import ModelBusy, ModelRefused, ModelServer
from engine.media.frame import Pcm
from engine.stt.base import Transcript
from engine.stt.openai_compatible import OpenAiCompatible
from tests.peers.speech_server import Heard, SpeechServer, speech_server

SPEECH = Pcm(np.random.default_rng(1).integers(-3000, 3000, 8000).astype(np.int16), 8000)


def verbose(text: str, language: str = "en", *segments: tuple[float, float, float]) -> Heard:
    """`segments`: seconds, avg_logprob, no_speech_prob of each."""
    at, made = 0.0, []
    for index, (seconds, logprob, no_speech) in enumerate(segments):
        made.append(
            {
                "id": index,
                "start": at,
                "end": at + seconds,
                "text": text,
                "avg_logprob": logprob,
                "no_speech_prob": no_speech,
            }
        )
        at += seconds
    return Heard(
        {
            "task": "transcribe",
            "language": language,
            "duration": at,
            "text": text,
            "segments": made,
        }
    )


async def hear(
    server: SpeechServer,
    audio: Pcm = SPEECH,
    *,
    language: str | None = "en",
    languages: tuple[str, ...] = (),
    prompt: str = "",
    deadline_s: float = 5.0,
) -> Transcript:
    model = OpenAiCompatible(ModelServer(server.url), "whisper", deadline_s=deadline_s)
    try:
        return await model.transcribe(audio, language=language, languages=languages, prompt=prompt)
    finally:
        await model.close()


async def test_an_utterance_goes_out_as_wav_and_comes_back_with_its_confidence() -> None:
    answer = verbose(" Hello there. ", "en", (3.0, -0.2, 0.0), (1.0, -0.6, 0.4))
    async with speech_server(answer) as server:
        transcript = await hear(server, prompt="tyres")
    assert (transcript.text, transcript.language) == ("Hello there.", "en")
    assert transcript.no_speech == pytest.approx(0.1)
    assert transcript.confidence == pytest.approx(math.exp(-0.3) * 0.9)
    assert transcript.seconds == 1.0 and transcript.took_ms > 0
    (asked,) = server.asked
    assert asked.sound == (16_000, 1, 2, 16_000)
    assert asked.fields == {
        "model": "whisper",
        "language": "en",
        "prompt": "tyres",
        "response_format": "verbose_json",
        "temperature": "0",
    }


@pytest.mark.parametrize(
    ("answer", "languages", "expected"),
    [
        (verbose("Привет", "russian"), ("en", "ru"), "ru"),
        (verbose("Привет", "ru"), (), "ru"),
        (Heard({"text": "Hi"}), ("en", "ru"), "en"),
    ],
)
async def test_the_language_is_detected(
    answer: Heard, languages: tuple[str, ...], expected: str
) -> None:
    async with speech_server(answer) as server:
        transcript = await hear(server, language=None, languages=languages)
    assert transcript.language == expected and transcript.confidence == 1.0
    assert "language" not in server.asked[0].fields


async def test_the_only_language_is_not_detected() -> None:
    async with speech_server(verbose("Так", "uk")) as server:
        assert (await hear(server, language=None, languages=("uk",))).language == "uk"
    assert server.asked[0].fields["language"] == "uk"


async def test_a_language_nobody_speaks_is_heard_again_as_the_first() -> None:
    async with speech_server(verbose("Здрасти", "bulgarian"), verbose("Привет", "ru")) as server:
        transcript = await hear(server, language=None, languages=("ru", "uk"))
    assert (transcript.text, transcript.language) == ("Привет", "ru")
    assert [asked.fields.get("language") for asked in server.asked] == [None, "ru"]


@pytest.mark.parametrize(
    "answer",
    [
        verbose("Thank you.", "en", (1.0, -0.4, 0.5)),
        verbose("words in noise", "en", (1.0, -1.4, 0.9)),
        verbose("", "en"),
    ],
)
async def test_words_that_nobody_said_are_left_out(answer: Heard) -> None:
    async with speech_server(answer) as server:
        transcript = await hear(server)
    assert (transcript.text, transcript.confidence) == ("", 0.0)


@pytest.mark.parametrize("audio", [Pcm.silence(1.0, 8000), Pcm(SPEECH.samples[:300], 8000)])
async def test_silence_and_clicks_are_not_sent(audio: Pcm) -> None:
    async with speech_server() as server:
        transcript = await hear(server, audio)
    assert (transcript.text, transcript.no_speech, server.asked) == ("", 1.0, [])


@pytest.mark.parametrize(
    "refusal",
    [
        {"message": "unsupported value", "param": "response_format"},
        {"message": "Currently do not support verbose_json for whisper"},
    ],
)
async def test_a_server_without_verbose_json_is_asked_for_json_from_then_on(
    refusal: dict[str, str],
) -> None:
    script = [Heard(status=400, error=refusal), Heard({"text": "One"}), Heard({"text": "Two"})]
    async with speech_server(*script) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        for expected in ("One", "Two"):
            transcript = await model.transcribe(SPEECH, language="en")
            assert (transcript.text, transcript.confidence) == (expected, 1.0)
        await model.close()
    assert [asked.fields["response_format"] for asked in server.asked] == [
        "verbose_json",
        "json",
        "json",
    ]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, ModelRefused), (429, ModelBusy), (500, ModelBusy)]
)
async def test_refusals_say_whose_fault_they_are(status: int, kind: type[ModelError]) -> None:
    async with speech_server(Heard(status=status)) as server:
        with pytest.raises(kind, match=str(status)):
            await hear(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "json", ["text", [], {}, {"text": 1}, {"text": "a", "segments": [{"avg_logprob": "x"}]}]
)
async def test_an_answer_of_another_form_is_a_model_error(json: Any) -> None:
    async with speech_server(Heard(json)) as server:
        with pytest.raises(ModelError, match="another form"):
            await hear(server)


async def test_a_server_that_stalls_misses_the_deadline_and_is_left() -> None:
    async with speech_server(Heard(stalls=True)) as server:
        with pytest.raises(ModelTimeout):
            await hear(server, deadline_s=0.1)
        async with asyncio.timeout(5):
            await server.gone.wait()


async def test_warming_asks_for_real() -> None:
    async with speech_server(verbose("", "en")) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        await model.warm()
        await model.close()
    assert server.asked[0].sound[3] == 16_000
