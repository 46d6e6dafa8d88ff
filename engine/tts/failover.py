"""Two ways to speak: the local voice says what the server's could not begin to."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing

from engine.errors import ModelError
from engine.inference.circuit import Circuit, CircuitStats
from engine.media.frame import Pcm
from engine.tts.cache import Engine, Phrase, PhraseCache

log = logging.getLogger(__name__)


class Failover:
    """Engine. The first keeps a deadline of its own and raises ModelTimeout when it misses it.

    What the first has in its cache it says whatever has become of its server.
    """

    def __init__(
        self,
        first: PhraseCache,
        second: Callable[[str], Engine],
        *,
        failures: int = 3,
        rest_s: float = 15.0,
    ) -> None:
        """`second` is the engine of a language; it speaks in its own default voice, since another engine's
        voices mean nothing to it, and stays its owner's to close. `failures` and `rest_s`: see Circuit."""
        self.name = first.name
        self._first = first
        self._second = second
        self._circuit = Circuit("tts", first.load, failures=failures, rest_s=rest_s)

    async def speak(
        self, text: str, *, voice: str, language: str, speed: float = 1.0
    ) -> AsyncGenerator[Pcm, None]:
        """See TextToSpeech. A sentence that was begun is not begun again: its failure is raised."""
        if self._first.has(Phrase(text, language, voice, speed)):
            async for pcm in self._first.speak(text, voice=voice, language=language, speed=speed):
                yield pcm
            return
        if self._circuit.closed:
            spoke = False
            sound = self._first.speak(text, voice=voice, language=language, speed=speed)
            try:
                async with aclosing(sound):
                    async for pcm in sound:
                        spoke = True
                        yield pcm
                self._circuit.succeeded()
                return
            except GeneratorExit:
                # The caller spoke: the voice did its part.
                if spoke:
                    self._circuit.succeeded()
                raise
            except ModelError as error:
                self._circuit.failed(error)
                if spoke:
                    raise
                log.warning("the second voice speaks", extra={"code": error.code})
        other: AsyncIterator[Pcm] = self._second(language).speak(
            text, voice="", language=language, speed=speed
        )
        async with aclosing(other):  # type: ignore[type-var]  # a generator in fact
            async for pcm in other:
                yield pcm

    async def warm(self, phrases: Iterable[Phrase] = ()) -> None:
        """Both, and the phrases by the first. Raises what the second raises: then nothing is left."""
        wanted = list(phrases)
        self._first.know(wanted)
        if self._circuit.closed:
            try:
                await self._first.warm(wanted)
            except ModelError as error:
                self._circuit.failed(error, conclusive=True)
                log.warning(
                    "the first voice does not work",
                    extra={"code": error.code, "error": error.message},
                )
        for language in sorted({phrase.language for phrase in wanted}):
            await self._second(language).warm()

    async def close(self) -> None:
        await self._circuit.close()
        await self._first.close()

    def stats(self) -> CircuitStats:
        return self._circuit.stats()
