"""Two recognisers: the second hears what the first could not."""

from __future__ import annotations

import logging

from engine.errors import ModelError
from engine.inference.circuit import Circuit, CircuitStats
from engine.media.frame import Pcm
from engine.stt.base import SpeechToText, Transcript

log = logging.getLogger(__name__)


class Failover:
    """SpeechToText. The first keeps a deadline of its own and raises ModelTimeout when it misses it."""

    def __init__(
        self,
        first: SpeechToText,
        second: SpeechToText,
        *,
        failures: int = 3,
        rest_s: float = 15.0,
    ) -> None:
        """`failures` and `rest_s`: see Circuit."""
        self.name = first.name
        self._first = first
        self._second = second
        self._circuit = Circuit("stt", first.warm, failures=failures, rest_s=rest_s)

    async def transcribe(
        self,
        audio: Pcm,
        *,
        language: str | None,
        languages: tuple[str, ...] = (),
        prompt: str = "",
    ) -> Transcript:
        """See SpeechToText."""
        if self._circuit.closed:
            try:
                transcript = await self._first.transcribe(
                    audio, language=language, languages=languages, prompt=prompt
                )
            except ModelError as error:
                self._circuit.failed(error)
                log.warning("the second recogniser hears", extra={"code": error.code})
            else:
                self._circuit.succeeded()
                return transcript
        return await self._second.transcribe(
            audio, language=language, languages=languages, prompt=prompt
        )

    async def warm(self) -> None:
        """Both. Raises ModelError when the second fails: then nothing is left."""
        try:
            await self._first.warm()
        except ModelError as error:
            self._circuit.failed(error, conclusive=True)
            log.warning(
                "the first recogniser does not work",
                extra={"code": error.code, "error": error.message},
            )
        await self._second.warm()

    async def close(self) -> None:
        await self._circuit.close()
        await self._first.close()
        await self._second.close()

    def stats(self) -> CircuitStats:
        return self._circuit.stats()
