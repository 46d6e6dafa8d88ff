"""espeak-ng: a small formant synthesiser. It sounds like a machine, speaks every language at once and
needs no weights, so it is the voice of languages for which no Piper voice is installed."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import AsyncGenerator

import numpy as np

from engine.errors import ConfigError, ModelError
from engine.media.frame import Pcm
from engine.tts.spoken import spoken
from engine.tts.trim import LeadingSilence

log = logging.getLogger(__name__)

_HEADER = 44
_CHUNK = 8192
_WORDS_PER_MINUTE = 160
_VOICES = {"en": "en-us", "ru": "ru", "uk": "uk"}
_VOICE = re.compile(r"[A-Za-z][\w-]*(\+\w+)?")


class Espeak:
    """TextToSpeech over the `espeak-ng` program, one short-lived process for each sentence."""

    name = "espeak"

    def __init__(self, program: str = "espeak-ng") -> None:
        self._program = program

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncGenerator[Pcm, None]:
        """See TextToSpeech. `voice` is an espeak-ng voice such as `ru` or `en-gb+f3`; empty: the language's own."""
        words = spoken(text, language)
        if not any(map(str.isalnum, words)):
            return
        process = await self._start(voice or _VOICES.get(language, language), speed)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(words.encode())
            process.stdin.close()
            header = await process.stdout.readexactly(_HEADER)
            rate = int.from_bytes(header[24:28], "little")
            lead = LeadingSilence(rate)
            rest = b""
            while data := await process.stdout.read(_CHUNK):
                whole = len(rest + data) // 2 * 2
                raw, rest = (rest + data)[:whole], (rest + data)[whole:]
                samples = lead.push(np.frombuffer(raw, dtype="<i2"))
                if len(samples):
                    yield Pcm(samples, rate)
            if await process.wait() != 0:
                raise ModelError(f"{self._program} ended with status {process.returncode}")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ModelError(f"{self._program} gave no sound") from error
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def warm(self) -> None:
        """Raises ConfigError when the program is not installed."""
        self._find()

    async def close(self) -> None:
        """Nothing is held between two sentences."""

    async def _start(self, voice: str, speed: float) -> asyncio.subprocess.Process:
        if not _VOICE.fullmatch(voice):
            raise ConfigError(
                f"{voice!r} is no espeak-ng voice", how_to_fix=["`espeak-ng --voices` lists them"]
            )
        return await asyncio.create_subprocess_exec(
            self._find(),
            *("-v", voice, "-s", str(round(_WORDS_PER_MINUTE * speed))),
            *("--stdin", "--stdout", "-b", "1"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def _find(self) -> str:
        found = shutil.which(self._program)
        if found is None:
            raise ConfigError(
                f"{self._program} is not installed",
                how_to_fix=[
                    "apt install espeak-ng",
                    'or give the agent a Piper voice for this language: engine = "piper"',
                ],
            )
        return found
