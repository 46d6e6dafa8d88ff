"""A voice behind OpenAI's interface for speech: speaches, Kokoro-FastAPI, LocalAI, OpenAI.

The sound streams: what has arrived is handed on. `pcm` is s16le mono without a header, 24 kHz at OpenAI
(its API reference, "Create speech"); servers that send a WAV file all the same say their rate in it.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import aiohttp
import numpy as np

from engine.errors import ModelError
from engine.inference.model_server import ModelServer, within
from engine.media.frame import Pcm, Samples
from engine.tts.spoken import spoken
from engine.tts.trim import LeadingSilence

RATE = 24_000
_STALL_S = 10.0
"""Sound comes faster than it is played: a sentence that takes longer than this will not end."""
_WARM_S = 30.0
_COMPRESSED = frozenset({"mpeg", "mp3", "ogg", "opus", "aac", "flac", "webm", "mp4", "x-m4a"})
_HEADER_LIMIT = 64 << 10
_PCM, _EXTENSIBLE = 1, 0xFFFE


class OpenAiCompatible:
    """The cache's Engine over a ModelServer, which is closed with it."""

    name = "openai"

    def __init__(
        self,
        server: ModelServer,
        model: str,
        *,
        default_voice: str,
        rate: int = RATE,
        first_sound_s: float = 3.0,
    ) -> None:
        """`rate` of the server's `pcm`, in samples per second; `first_sound_s` bounds the wait for sound."""
        self._server = server
        self._model = model
        self._default = default_voice
        self._rate = rate
        self._first_sound_s = first_sound_s

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncGenerator[Pcm, None]:
        """See TextToSpeech. `voice` empty means the default one. Raises ModelError."""
        words = spoken(text, language)
        if not any(map(str.isalnum, words)):
            return
        async with aclosing(self._timed(words, voice, speed, self._first_sound_s)) as sound:
            async for pcm in sound:
                yield pcm

    async def warm(self) -> None:
        """One word, so that the server loads the model; it may take its time."""
        async with aclosing(self._timed("Hello.", "", 1.0, _WARM_S)) as sound:
            async for _ in sound:
                pass

    async def close(self) -> None:
        await self._server.close()

    async def _timed(
        self, words: str, voice: str, speed: float, first_s: float
    ) -> AsyncGenerator[Pcm, None]:
        sound = self._stream(words, voice, speed)
        timed = within(sound, first_s=first_s, total_s=max(first_s, _STALL_S))
        async with aclosing(sound), aclosing(timed):
            async for pcm in timed:
                yield pcm

    async def _stream(self, words: str, voice: str, speed: float) -> AsyncGenerator[Pcm, None]:
        body: dict[str, Any] = {
            "model": self._model,
            "input": words,
            "voice": voice or self._default,
            "response_format": "pcm",
        }
        if speed != 1.0:
            body["speed"] = speed
        async with self._server.post("/audio/speech", body=body) as response:
            _check_kind(response)
            decoder = SoundDecoder(self._rate)
            lead: LeadingSilence | None = None
            spoke = False
            async for data in response.content.iter_any():
                samples = decoder.push(data)
                if not len(samples):
                    continue
                lead = lead or LeadingSilence(decoder.rate)
                samples = lead.push(samples)
                if len(samples):
                    spoke = True
                    yield Pcm(samples, decoder.rate)
        if not spoke:
            raise ModelError("the speech server gave no sound")


class SoundDecoder:
    """Bytes in any pieces become samples; a WAV header in front of them is read and taken off.

    `rate` is right once the first samples came.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._held = b""
        self._started = False
        self._left: int | None = None
        """Bytes of the WAV file's sound still to come; None: all there is."""

    def push(self, data: bytes) -> Samples:
        """The samples complete so far. Raises ModelError for a WAV that is not 16-bit mono PCM."""
        self._held += data
        if not self._started and not self._start():
            return np.zeros(0, dtype=np.int16)
        whole = len(self._held) // 2 * 2
        if self._left is not None:
            whole = min(whole, self._left)
            self._left -= whole
        raw, self._held = self._held[:whole], self._held[whole:]
        return np.frombuffer(raw, dtype="<i2").astype(np.int16)

    def _start(self) -> bool:
        """Whether the sound begins at the front of what is held."""
        held = self._held
        if held[:4] != b"RIFF"[: len(held)]:
            self._started = True
            return True
        at = 12
        while len(held) >= at + 8:
            kind, size = struct.unpack_from("<4sI", held, at)
            if kind == b"data":
                # Who streams does not know the size and says 0 or the most there can be.
                self._left = size // 2 * 2 if 0 < size < 0x7FFF_0000 else None
                self._held = held[at + 8 :]
                self._started = True
                return True
            if kind == b"fmt " and len(held) >= at + 8 + 16:
                form, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", held, at + 8)
                if form not in (_PCM, _EXTENSIBLE) or (channels, bits) != (1, 16) or not rate:
                    raise ModelError("the speech server's WAV is not 16-bit mono PCM")
                self.rate = rate
            at += 8 + size + size % 2
        if len(held) > _HEADER_LIMIT:
            raise ModelError("the speech server's WAV has no sound")
        return False


def _check_kind(response: aiohttp.ClientResponse) -> None:
    """Compressed sound or text, played as samples, would be a noise in the caller's ear."""
    main, _, sub = response.content_type.partition("/")
    if main in ("text", "video") or sub == "json" or sub in _COMPRESSED:
        raise ModelError(f"the speech server sends {response.content_type} where pcm was asked for")
