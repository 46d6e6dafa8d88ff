"""Greetings and fillers are the same in every call: made once, played at once."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import NamedTuple, Protocol

from engine.media.frame import Pcm

log = logging.getLogger(__name__)


class Engine(Protocol):
    """A TextToSpeech that also knows how fast to speak: Piper, Espeak, a server's, the cache around them."""

    name: str

    def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncIterator[Pcm]: ...

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class Phrase(NamedTuple):
    text: str
    language: str
    voice: str = ""
    speed: float = 1.0


class PhraseCache:
    """An Engine that remembers the phrases it was told of, and no others: what is said to one caller
    stays with that call.

    At most `limit_bytes` of sound are kept; the phrase not heard for longest goes first, and is made
    again, and kept again, when it is needed.
    """

    def __init__(self, engine: Engine, *, limit_bytes: int = 64 << 20) -> None:
        self.name = engine.name
        self._engine = engine
        self._limit = limit_bytes
        self._known: set[Phrase] = set()
        self._sounds: OrderedDict[Phrase, tuple[Pcm, ...]] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    def know(self, phrases: Iterable[Phrase]) -> None:
        """Keep these when they are made."""
        self._known.update(phrase for phrase in phrases if phrase.text.strip())

    def has(self, phrase: Phrase) -> bool:
        """Whether the phrase needs no engine."""
        return phrase in self._sounds

    async def load(self) -> None:
        """Load the engine alone. Raises what the engine raises."""
        await self._engine.warm()

    async def warm(self, phrases: Iterable[Phrase] = ()) -> None:
        """Load the engine and make the phrases. Raises what the engine raises."""
        wanted = [phrase for phrase in phrases if phrase.text.strip()]
        self.know(wanted)
        await self.load()
        for phrase in wanted:
            if phrase not in self._sounds:
                self._keep(phrase, [pcm async for pcm in self._make(phrase)])
        log.info("phrases ready", extra={"count": len(self._sounds), "bytes": self._bytes})

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncGenerator[Pcm, None]:
        """See TextToSpeech."""
        phrase = Phrase(text, language, voice, speed)
        if sounds := self._sounds.get(phrase):
            self._sounds.move_to_end(phrase)
            self.hits += 1
            for pcm in sounds:
                yield pcm
            return
        self.misses += 1
        made: list[Pcm] = []
        async with aclosing(self._make(phrase)) as chunks:
            async for pcm in chunks:
                made.append(pcm)
                yield pcm
        # Reached only when the phrase was made to its end: an interrupted one is not kept.
        if phrase in self._known:
            self._keep(phrase, made)

    async def close(self) -> None:
        self._sounds.clear()
        self._bytes = 0
        await self._engine.close()

    async def _make(self, phrase: Phrase) -> AsyncGenerator[Pcm, None]:
        chunks = self._engine.speak(
            phrase.text, voice=phrase.voice, language=phrase.language, speed=phrase.speed
        )
        try:
            async for pcm in chunks:
                yield pcm
        finally:
            if close := getattr(chunks, "aclose", None):
                await close()

    def _keep(self, phrase: Phrase, made: list[Pcm]) -> None:
        if old := self._sounds.pop(phrase, None):
            self._bytes -= _size(old)
        self._sounds[phrase] = tuple(made)
        self._bytes += _size(made)
        while self._bytes > self._limit:
            _, gone = self._sounds.popitem(last=False)
            self._bytes -= _size(gone)


def _size(sounds: Iterable[Pcm]) -> int:
    return sum(pcm.samples.nbytes for pcm in sounds)
