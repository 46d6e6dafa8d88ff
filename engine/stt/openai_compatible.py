"""A recogniser behind OpenAI's interface for transcriptions: speaches, vLLM, LocalAI, OpenAI.

The utterance goes out as a 16 kHz WAV file. Confidence is what faster_whisper.py makes it, from the
segments' mean log-probabilities and no-speech probabilities, weighted by their lengths; a server that
gives none is believed.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import time
import wave
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from engine.errors import ModelError, ModelTimeout
from engine.inference.model_server import ModelRefused, ModelServer
from engine.media.frame import Pcm
from engine.media.resample import resample
from engine.stt.base import Transcript
from engine.stt.hallucinations import is_hallucination

log = logging.getLogger(__name__)

RATE = 16_000
_WARM_S = 30.0
_SHORTEST_S = 0.1
_SILENCE = 6
"""The loudest sample of what holds no speech: about −75 dB below full scale."""
_NO_SPEECH = 0.6
_UNSURE_LOGPROB = -1.0
_MAYBE_NO_SPEECH = 0.3
_NAMES = {"english": "en", "russian": "ru", "ukrainian": "uk"}
"""OpenAI tells the language by its name, others by its code."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a server answered; `language` is "" and `logprob` None where it does not say."""

    text: str
    language: str
    logprob: float | None
    no_speech: float


class OpenAiCompatible:
    """SpeechToText over a ModelServer, which is closed with it."""

    name = "openai"

    def __init__(self, server: ModelServer, model: str, *, deadline_s: float = 5.0) -> None:
        """`deadline_s` bounds one transcription, from the question to the whole answer."""
        self._server = server
        self._model = model
        self._deadline_s = deadline_s
        self._verbose = True

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
    ) -> Transcript:
        """See SpeechToText. A language that is none of `languages` is not believed: the utterance is
        heard again as the first of them."""
        return await self._within(self._deadline_s, audio, language, languages, prompt)

    async def warm(self) -> None:
        """A second of faint noise, so that the server loads the model; it may take its time."""
        noise = np.random.default_rng(0).integers(-50, 50, RATE).astype(np.int16)
        await self._within(_WARM_S, Pcm(noise, RATE), "en", (), "")

    async def close(self) -> None:
        await self._server.close()

    async def _within(
        self,
        deadline_s: float,
        audio: Pcm,
        language: str | None,
        languages: tuple[str, ...],
        prompt: str,
    ) -> Transcript:
        started = time.perf_counter()
        if language is None and len(languages) == 1:
            language = languages[0]
        first = language or (languages[0] if languages else "en")
        if (
            audio.seconds < _SHORTEST_S
            or int(np.abs(audio.samples.astype(np.int32)).max()) < _SILENCE
        ):
            return Transcript("", first, 0.0, 1.0, audio.seconds)
        try:
            async with asyncio.timeout(deadline_s):
                # Resampling half a minute takes milliseconds, which are the 20 ms clock's.
                sound = await asyncio.to_thread(wav, audio)
                heard = await self._hear(sound, language, prompt)
                if language is None and languages and (heard.language or first) not in languages:
                    log.debug("a language that nobody speaks", extra={"language": heard.language})
                    heard = await self._hear(sound, first, prompt)
        except TimeoutError as error:
            raise ModelTimeout(f"no transcript within {deadline_s:g} s") from error
        text, confidence = judged(heard.text, heard.logprob, heard.no_speech)
        return Transcript(
            text,
            language or heard.language or first,
            confidence,
            heard.no_speech,
            audio.seconds,
            (time.perf_counter() - started) * 1000,
        )

    async def _hear(self, sound: bytes, language: str | None, prompt: str) -> _Heard:
        """Ask once; where a server or a model has no verbose_json, ask for json from then on."""
        try:
            return await self._post(sound, language, prompt)
        except ModelRefused as error:
            about = f"{error.param} {error.message}"
            if not self._verbose or not ("response_format" in about or "verbose_json" in about):
                raise
            self._verbose = False
            log.info("the speech server tells no confidence", extra={"model": self._model})
            return await self._post(sound, language, prompt)

    async def _post(self, sound: bytes, language: str | None, prompt: str) -> _Heard:
        fields = {
            "model": self._model,
            "response_format": "verbose_json" if self._verbose else "json",
            "temperature": "0",
        }
        if language:
            fields["language"] = language
        if prompt:
            fields["prompt"] = prompt

        def form() -> aiohttp.FormData:
            made = aiohttp.FormData(fields)
            made.add_field("file", sound, filename="speech.wav", content_type="audio/wav")
            return made

        async with self._server.post("/audio/transcriptions", form=form) as response:
            raw = await response.read()
        try:
            return _heard(json.loads(raw))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError("the speech server sent a transcript of another form") from error


def wav(audio: Pcm) -> bytes:
    """A WAV file of 16 kHz, 16 bits, mono."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(resample(audio, RATE).samples.astype("<i2").tobytes())
    return file.getvalue()


def judged(text: str, logprob: float | None, no_speech: float) -> tuple[str, float]:
    """The text and how sure of it one may be; both empty where Whisper heard words in noise."""
    silent = no_speech > _NO_SPEECH and (logprob is not None and logprob < _UNSURE_LOGPROB)
    if not text or silent or (no_speech > _MAYBE_NO_SPEECH and is_hallucination(text)):
        return "", 0.0
    return text, math.exp(min(0.0, logprob or 0.0)) * (1.0 - no_speech)


def _heard(answer: Any) -> _Heard:
    """Raises TypeError, KeyError, ValueError or AttributeError for another form."""
    told = str(answer.get("language") or "").casefold()
    segments = [
        (
            max(0.01, float(segment.get("end") or 0) - float(segment.get("start") or 0)),
            float(segment["avg_logprob"]),
            float(segment.get("no_speech_prob") or 0.0),
        )
        for segment in answer.get("segments") or ()
        if segment.get("avg_logprob") is not None
    ]
    whole = sum(length for length, _, _ in segments)
    logprob = sum(length * value for length, value, _ in segments) / whole if segments else None
    no_speech = sum(length * value for length, _, value in segments) / whole if segments else 0.0
    text = answer["text"]
    if not isinstance(text, str):
        raise TypeError("the text is no text")
    return _Heard(text.strip(), _NAMES.get(told, told), logprob, min(1.0, max(0.0, no_speech)))
