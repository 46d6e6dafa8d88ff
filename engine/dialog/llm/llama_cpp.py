"""A language model in this process, on one thread, by llama.cpp.

Text streams out as it is decoded. The moment a tool call begins, decoding goes on under a grammar made
from the tools' schemas, so that even a small model's arguments parse and fit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.llama_engine import LlamaEngine, Sampling, grammar_for
from engine.dialog.llm.tool_format import TAG, ToolCallScanner, call_schema, parse_call
from engine.errors import ModelError, ModelTimeout
from engine.inference.pool import Priority, Workers

log = logging.getLogger(__name__)

LANE = "llm"
CALL_TOKENS = 256
"""A tool call may take this many tokens, however short spoken replies are."""


@dataclass(slots=True)
class _Request:
    messages: Sequence[Message]
    tools: Sequence[ToolSpec]
    max_tokens: int
    key: str
    asked: float
    """When the reply was asked for, `time.monotonic()`."""
    stop: threading.Event


class LlamaCpp:
    """`timeout_s` bounds the time one reply may keep its reader waiting, queueing included."""

    def __init__(
        self,
        path: Path,
        workers: Workers,
        *,
        context: int = 4096,
        threads: int = 2,
        gpu_layers: int = 0,
        timeout_s: float = 30.0,
        sampling: Sampling | None = None,
    ) -> None:
        self.name = path.stem
        self._workers = workers
        self._engine = LlamaEngine(
            path,
            context=context,
            threads=threads,
            gpu_layers=gpu_layers,
            crowded=lambda: workers.others_busy(LANE),
        )
        self._timeout_s = timeout_s
        self._sampling = sampling or Sampling()

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
    ) -> AsyncGenerator[Delta, None]:
        """See LanguageModel.reply."""
        request = _Request(
            tuple(messages),
            tuple(tools),
            max_tokens,
            cache_key,
            time.monotonic(),
            threading.Event(),
        )
        # Room for the whole reply: a slow reader must not keep the lane from other calls.
        stream = self._workers.stream(
            LANE, lambda: self._decode(request), limit=max_tokens + CALL_TOKENS
        )
        left = self._timeout_s
        try:
            while True:
                since = time.monotonic()
                try:
                    async with asyncio.timeout(left):
                        delta = await anext(stream)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise ModelTimeout(f"no answer within {self._timeout_s:g} s") from error
                # Only our own waiting counts: the reader may take its time between deltas.
                left -= time.monotonic() - since
                yield delta
        finally:
            request.stop.set()
            await _close(stream)

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """See LanguageModel.warm."""
        await self._workers.run(
            LANE,
            self._warm,
            tuple(messages),
            tuple(tools),
            cache_key,
            priority=Priority.SPECULATION if cache_key else Priority.BACKGROUND,
        )

    async def forget(self, cache_key: str) -> None:
        await self._workers.run(LANE, self._engine.forget, cache_key, priority=Priority.BACKGROUND)

    async def close(self) -> None:
        """Unload. The workers stay the owner's to close, after this."""
        await self._workers.run(LANE, self._engine.close)

    # --- On the lane's thread ------------------------------------------------------------------

    def _warm(
        self, messages: tuple[Message, ...], tools: tuple[ToolSpec, ...], cache_key: str
    ) -> None:
        engine = self._engine
        if cache_key:
            engine.prefill(
                engine.tokenize(engine.render(messages, tools, answer=False)), cache_key, _never
            )
            return
        if not messages:
            messages = (Message("system", "You answer the telephone."),)
        prefix = engine.tokenize(engine.render(messages, tools, answer=False))
        key = "prefix:" + hashlib.sha256(repr(prefix).encode()).hexdigest()[:16]
        engine.prefill(prefix, key, _never)
        next(engine.generate(prefix, self._sampling), None)
        if tools:
            grammar_for(call_schema_json(tools))
        engine.keep(key)

    def _decode(self, request: _Request) -> Iterator[Delta]:
        engine, stopped = self._engine, request.stop.is_set
        if stopped():
            return
        room = max(request.max_tokens, CALL_TOKENS) + 1
        tokens = engine.prompt(request.messages, request.tools, room)
        cached = engine.prefill(tokens, request.key, stopped)
        if stopped():
            return
        scanner = ToolCallScanner([tool.name for tool in request.tools])
        said: list[str] = []
        count, first_token_ms = 0, 0.0
        for piece in engine.generate(tokens, self._sampling):
            count += 1
            if count == 1:
                first_token_ms = (time.monotonic() - request.asked) * 1000
            if stopped():
                return
            text = scanner.feed(piece)
            if text:
                said.append(text)
                yield TextDelta(text)
            if scanner.opening is not None or count >= request.max_tokens:
                break
        if scanner.opening is None:
            if rest := scanner.end():
                yield TextDelta(rest)
        elif request.tools:
            call, more = self._decode_call(
                request, tokens, "".join(said), scanner.opening.name, stopped
            )
            count += more
            if call is None:
                return
            yield call
        yield Usage(len(tokens), count, cached, first_token_ms)

    def _decode_call(
        self,
        request: _Request,
        tokens: list[int],
        said: str,
        name: str,
        stopped: Callable[[], bool],
    ) -> tuple[ToolCall | None, int]:
        """The call after `said`, under a grammar; None when stopped. Raises ModelError."""
        engine = self._engine
        tools = [tool for tool in request.tools if not name or tool.name == name]
        before = f"{said.rstrip()}\n{TAG}\n" if said.strip() else f"{TAG}\n"
        start = tokens + engine.tokenize(before)
        engine.prefill(start, request.key, stopped)
        text, count = "", 0
        for piece in engine.generate(start, self._sampling, grammar_for(call_schema_json(tools))):
            count += 1
            text += piece
            if stopped():
                return None, count
            if count >= CALL_TOKENS:
                break
        parsed = parse_call(text)
        if parsed is None:
            raise ModelError("the model did not finish a tool call")
        return ToolCall(new_call_id(), *parsed), count


def _never() -> bool:
    return False


def call_schema_json(tools: Sequence[ToolSpec]) -> str:
    return json.dumps(call_schema(tools))


def new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:12]}"


async def _close(stream: AsyncIterator[Any]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        with contextlib.suppress(RuntimeError):  # already running: being closed by its own timeout
            await close()
