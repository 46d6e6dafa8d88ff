"""A language model in this process, by llama.cpp, shared by all calls.

Text streams out as it is decoded. The moment a tool call begins, decoding goes on under a grammar made
from the tools' schemas, so that even a small model's arguments parse and fit.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from llama_cpp.llama_grammar import json_schema_to_gbnf

from engine.aio import Background, Channel, ChannelClosed
from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.llama_batch import BatchStats, Job, LlamaBatch, Read, Script, Write
from engine.dialog.llm.llama_model import LlamaModel
from engine.dialog.llm.llama_sequences import Sampler, Sampling
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
    send: Callable[[Delta], None]
    asked: float = field(default_factory=time.monotonic)


class LlamaCpp:
    """`context` and `cells` in tokens: of one conversation, and of all together. `timeout_s` bounds the
    time one reply may keep its reader waiting, queueing included."""

    def __init__(
        self,
        path: Path,
        workers: Workers,
        *,
        context: int = 4096,
        cells: int = 16_384,
        threads: int = 2,
        gpu_layers: int = 0,
        timeout_s: float = 30.0,
        sampling: Sampling | None = None,
    ) -> None:
        self.name = path.stem
        self._workers = workers
        self._batch = LlamaBatch(
            path,
            context=context,
            cells=cells,
            threads=threads,
            gpu_layers=gpu_layers,
            crowded=lambda: workers.others_busy(LANE),
        )
        self._timeout_s = timeout_s
        self._sampling = sampling or Sampling()
        self._runs = Background()

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See LanguageModel.reply."""
        loop = asyncio.get_running_loop()
        # Room for the whole reply: a slow reader must not keep the others from writing.
        deltas: Channel[Delta] = Channel(max_tokens + CALL_TOKENS)
        failure: list[Exception] = []

        def done(error: Exception | None) -> None:
            if error is not None:
                failure.append(error)
            _call(loop, deltas.close)

        request = _Request(
            tuple(messages),
            tuple(tools),
            max_tokens,
            lambda delta: _call(loop, deltas.offer, delta),
        )
        job = Job(
            cache_key,
            lambda model, job: self._speak(model, job, request),
            lambda: (
                Priority.TURN if committed is None or committed.is_set() else Priority.SPECULATION
            ),
            done,
        )
        self._submit(job)
        left = self._timeout_s
        try:
            while True:
                since = time.monotonic()
                try:
                    async with asyncio.timeout(left):
                        delta = await deltas.receive()
                except ChannelClosed:
                    break
                except TimeoutError as error:
                    raise ModelTimeout(f"no answer within {self._timeout_s:g} s") from error
                # Only our own waiting counts: the reader may take its time between deltas.
                left -= time.monotonic() - since
                yield delta
        finally:
            job.stop.set()
        if failure:
            raise failure[0]

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """See LanguageModel.warm."""
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if finished.done():
                return
            if error is None:
                finished.set_result(None)
            else:
                finished.set_exception(error)

        asked = tuple(messages) or (Message("system", "You answer the telephone."),)
        job = Job(
            cache_key,
            lambda model, job: self._read_ahead(model, job, asked, tuple(tools)),
            lambda: Priority.SPECULATION,
            lambda error: _call(loop, settle, error),
        )
        self._submit(job)
        try:
            await finished
        finally:
            job.stop.set()

    async def forget(self, cache_key: str) -> None:
        self._batch.forget(cache_key)

    async def close(self) -> None:
        """Unload. The workers stay the owner's to close, after this."""
        self._batch.shut()
        await self._workers.run(LANE, self._batch.close)
        await self._runs.close()

    def stats(self) -> BatchStats:
        return self._batch.stats()

    def _submit(self, job: Job) -> None:
        if self._batch.submit(job):
            self._runs.start(self._workers.run(LANE, self._batch.run), name="llm batch")

    # --- Scripts, on the lane's thread -----------------------------------------------------------

    def _read_ahead(
        self,
        model: LlamaModel,
        job: Job,
        messages: tuple[Message, ...],
        tools: tuple[ToolSpec, ...],
    ) -> Script:
        tokens = model.tokenize(model.render(messages, tools, answer=False))
        if job.key:
            if len(tokens) < self._batch.context:
                yield Read(tokens, None)
            return
        # The beginning many conversations share; reading and writing once warms both.
        job.key = "prefix:" + hashlib.sha256(repr(tokens).encode()).hexdigest()[:16]
        if tools:
            grammar_for(call_schema_json(tools))
        sampler = Sampler(model, self._sampling)
        try:
            yield Read(tokens, sampler)
            yield Write()
        finally:
            sampler.close()
        yield Read(tokens, None)

    def _speak(self, model: LlamaModel, job: Job, request: _Request) -> Script:
        room = max(request.max_tokens, CALL_TOKENS) + 1
        tokens = model.prompt(request.messages, request.tools, self._batch.context - room)
        scanner = ToolCallScanner([tool.name for tool in request.tools])
        said: list[str] = []
        count, cached, first_token_ms = 0, 0, 0.0
        wish: Read | Write = Read(tokens, sampler := Sampler(model, self._sampling))
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while count < request.max_tokens and scanner.opening is None:
                token = yield wish
                wish = Write()
                if not count:
                    cached = job.cached
                    first_token_ms = (time.monotonic() - request.asked) * 1000
                if model.ends(token):
                    break
                count += 1
                if text := scanner.feed(decoder.decode(model.piece(token))):
                    said.append(text)
                    request.send(TextDelta(text))
        finally:
            sampler.close()
        if scanner.opening is None:
            if rest := scanner.end():
                request.send(TextDelta(rest))
        elif request.tools:
            count += yield from self._call_tool(
                model, request, tokens, "".join(said), scanner.opening.name
            )
        request.send(Usage(len(tokens), count, cached, first_token_ms))

    def _call_tool(
        self, model: LlamaModel, request: _Request, prompt: list[int], said: str, name: str
    ) -> Generator[Read | Write, int, int]:
        """The call after `said`, under a grammar; returns its tokens. Raises ModelError."""
        tools = [tool for tool in request.tools if not name or tool.name == name]
        before = f"{said.rstrip()}\n{TAG}\n" if said.strip() else f"{TAG}\n"
        sampler = Sampler(model, self._sampling, grammar_for(call_schema_json(tools)))
        wish: Read | Write = Read(prompt + model.tokenize(before), sampler)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, count = "", 0
        try:
            while count < CALL_TOKENS:
                token = yield wish
                if model.ends(token):
                    break
                count += 1
                text += decoder.decode(model.piece(token))
                wish = Write()
        finally:
            sampler.close()
        parsed = parse_call(text)
        if parsed is None:
            raise ModelError("the model did not finish a tool call")
        request.send(ToolCall(new_call_id(), *parsed))
        return count


@lru_cache(maxsize=64)
def grammar_for(schema: str) -> str:
    """GBNF of a JSON schema. Raises ModelError for one that cannot be turned into a grammar."""
    try:
        return str(json_schema_to_gbnf(schema))
    # The converter is plain Python over somebody's schema: it raises whatever it trips over.
    except Exception as error:
        raise ModelError(f"no grammar for the tools' schema: {error}") from error


def call_schema_json(tools: Sequence[ToolSpec]) -> str:
    return json.dumps(call_schema(tools))


def new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:12]}"


def _call(loop: asyncio.AbstractEventLoop, fn: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        log.debug("the loop has ended before the model")
