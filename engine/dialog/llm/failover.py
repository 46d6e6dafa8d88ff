"""Two language models: the second answers where the first fails before it said anything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engine.dialog.llm.base import Delta, LanguageModel, Message, ToolSpec
from engine.errors import ModelError
from engine.inference.circuit import Circuit, CircuitStats

log = logging.getLogger(__name__)


class Failover:
    """LanguageModel. The first keeps deadlines of its own and raises ModelTimeout when it misses one."""

    def __init__(
        self,
        first: LanguageModel,
        second: LanguageModel,
        *,
        failures: int = 3,
        rest_s: float = 15.0,
    ) -> None:
        """`failures` and `rest_s`: see Circuit."""
        self.name = first.name
        self._first = first
        self._second = second
        self._circuit = Circuit("llm", first.warm, failures=failures, rest_s=rest_s)

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See LanguageModel.reply. What was given out cannot be taken back: a failure after that is raised."""
        if self._circuit.closed:
            said = False
            answer = self._first.reply(
                messages, tools, max_tokens=max_tokens, cache_key=cache_key, committed=committed
            )
            try:
                async with aclosing(answer) as deltas:  # type: ignore[type-var]  # a generator in fact
                    async for delta in deltas:
                        said = True
                        yield delta
                self._circuit.succeeded()
                return
            except GeneratorExit:
                # The caller spoke, or has heard enough: the model did its part.
                if said:
                    self._circuit.succeeded()
                raise
            except ModelError as error:
                self._circuit.failed(error)
                if said:
                    raise
                log.warning("the second language model answers", extra={"code": error.code})
        answer = self._second.reply(
            messages, tools, max_tokens=max_tokens, cache_key=cache_key, committed=committed
        )
        async with aclosing(answer) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield delta

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """See LanguageModel.warm. The second is warmed as well, but reads a conversation ahead only while
        it is the one that will answer. Raises ModelError when the second fails: then nothing is left."""
        if self._circuit.closed:
            try:
                await self._first.warm(messages, tools, cache_key=cache_key)
            except ModelError as error:
                self._circuit.failed(error, conclusive=True)
                log.warning(
                    "the first language model does not work",
                    extra={"code": error.code, "error": error.message},
                )
            else:
                if cache_key:
                    return
        await self._second.warm(messages, tools, cache_key=cache_key)

    async def forget(self, cache_key: str) -> None:
        await self._first.forget(cache_key)
        await self._second.forget(cache_key)

    async def close(self) -> None:
        await self._circuit.close()
        await self._first.close()
        await self._second.close()

    def stats(self) -> CircuitStats:
        return self._circuit.stats()
