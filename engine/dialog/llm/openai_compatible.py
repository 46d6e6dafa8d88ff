"""A language model behind an OpenAI-compatible HTTP interface: llama-server, vLLM, Ollama, OpenAI.

Chat completions, streamed as server-sent events. Tool calls arrive in pieces by index; models whose
server does not parse their calls write them into the text, where they are found as well.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.messages import drop_oldest, one_system
from engine.dialog.llm.tool_format import ToolCallScanner, parse_call
from engine.errors import ModelError
from engine.inference.model_server import ModelBusy, ModelRefused, ModelServer, drain, within

log = logging.getLogger(__name__)

_MAX_EVENT = 1 << 20
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
_OPTIONAL = ("max_tokens", "temperature", "stream_options")
"""Fields that some servers or models refuse; answers come without them as well."""
CALL_TOKENS = 256
"""A tool call may take this many tokens, however short spoken replies are."""


@dataclass(slots=True)
class _Answer:
    """What has come of one streamed answer."""

    asked: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    first_token_ms: float = 0.0
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    written: str = ""
    """A call the model wrote into its text, from its beginning on."""
    finished: bool = False
    """The model came to its end: what follows is only usage."""


class OpenAiCompatible:
    """LanguageModel over a ModelServer, which is closed with it."""

    def __init__(
        self,
        server: ModelServer,
        model: str,
        *,
        extra: Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        first_token_s: float = 30.0,
        timeout_s: float = 30.0,
        patient: bool = False,
    ) -> None:
        """`first_token_s` bounds the wait for a reply's first token, `timeout_s` that for all of it.

        `extra` goes into each request as it is. `patient`: a server that is busy and names a time within
        the deadline is asked again after it; else that is an error, for a caller who has another model.
        """
        self.name = model
        self._server = server
        self._extra = dict(extra or {})
        self._temperature = temperature
        self._first_token_s = first_token_s
        self._timeout_s = timeout_s
        self._patient = patient
        self._refused: set[str] = set()

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """See LanguageModel.reply. The server keeps its own prefix cache; `cache_key` is not sent."""
        answers = self._ask(messages, tools, max_tokens)
        timed = within(answers, first_s=self._first_token_s, total_s=self._timeout_s)
        async with aclosing(answers), aclosing(timed):
            async for delta in timed:
                if delta is not None:
                    yield delta

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """One token, so that the server loads the model and keeps the prefix; it may take its time.

        A conversation is not read ahead: a server may charge for it, and keeps prefixes as it likes.
        """
        if cache_key:
            return
        answers = self._ask([*messages, Message("user", "Hello.")], tools, 1, whole=False)
        timed = within(answers, first_s=self._timeout_s, total_s=self._timeout_s)
        async with aclosing(answers), aclosing(timed):
            async for _ in timed:
                pass

    async def forget(self, cache_key: str) -> None:
        """Nothing is kept here."""

    async def close(self) -> None:
        await self._server.close()

    async def _ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        max_tokens: int,
        *,
        whole: bool = True,
    ) -> AsyncGenerator[Delta | None, None]:
        """The answer, asked for again in another way where the server says what it does not take."""
        while True:
            # A tool call may be longer than what is to be spoken, which is cut below.
            limit = max(max_tokens, CALL_TOKENS) if tools and whole else max_tokens
            body = self._body(messages, tools, limit)
            try:
                async with aclosing(self._answer(body, tools, max_tokens, whole)) as deltas:
                    async for delta in deltas:
                        yield delta
                return
            except ModelRefused as error:
                if error.param in _OPTIONAL and error.param not in self._refused:
                    self._refused.add(error.param)
                elif _is_too_long(error) and (shorter := drop_oldest(messages)) is not None:
                    messages = shorter
                else:
                    raise
                log.info("asking the model server in another way", extra={"param": error.param})
            except ModelBusy as error:
                if not self._patient or not 0 < error.retry_after_s < self._first_token_s:
                    raise
                log.info("the model server is busy", extra={"retry_after_s": error.retry_after_s})
                await asyncio.sleep(error.retry_after_s)

    async def _answer(
        self, body: dict[str, Any], tools: Sequence[ToolSpec], max_tokens: int, whole: bool
    ) -> AsyncGenerator[Delta | None, None]:
        """One answer. None says that the model has begun, though with nothing to give out yet.

        Not `whole`: the answer is not looked at. Raises ModelError, also when the stream breaks off.
        """
        answer = _Answer(time.monotonic())
        scanner = ToolCallScanner([tool.name for tool in tools])
        said = 0
        async with (
            self._server.post("/chat/completions", body=body) as response,
            aclosing(events(response.content.iter_any())) as stream,
        ):
            async for data in stream:
                if data == "[DONE]":
                    answer.finished = True
                    await drain(response)
                    break
                waiting = not answer.first_token_ms
                text = _take(answer, data)
                if waiting and answer.first_token_ms:
                    yield None
                if scanner.opening is not None:
                    answer.written += text
                elif spoken := scanner.feed(text):
                    said += 1
                    yield TextDelta(spoken)
                if scanner.opening is not None and not answer.written:
                    answer.written = scanner.opening.tail
                # Without tools the server counts for itself.
                if tools and whole and said >= max_tokens and scanner.opening is None:
                    answer.finished = True
                    break
        if not answer.finished:
            raise ModelError("the model server broke off its answer")
        if scanner.opening is None and (rest := scanner.end()):
            yield TextDelta(rest)
        if whole:
            for call in _calls(answer, {tool.name for tool in tools}):
                yield call
        yield Usage(
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.cached_tokens,
            answer.first_token_ms,
        )

    def _body(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], limit: int
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(message) for message in one_system(messages)],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": limit,
            "temperature": self._temperature,
        }
        for field_ in self._refused:
            del body[field_]
        if "max_tokens" in self._refused:
            body["max_completion_tokens"] = limit
        if tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": tool.parameters or {"type": "object", "properties": {}},
                    },
                }
                for tool in tools
            ]
        return body | self._extra


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The `data` of server-sent events, whatever the chunks (HTML standard §9.2.6).

    Lines end in LF, CRLF or CR; several data lines of one event are joined by LF; comments and other
    fields are skipped. Raises ModelError for a line beyond 1 MiB.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, data = "", []
    async for chunk in chunks:
        text += decoder.decode(chunk)
        if len(text) > _MAX_EVENT:
            raise ModelError("the model server sent an endless line")
        # A CR at the end may be half of a CRLF: keep it for the next chunk.
        held = "\r" if text.endswith("\r") else ""
        lines = (
            (text.removesuffix("\r") if held else text).replace("\r\n", "\n").replace("\r", "\n")
        )
        *complete, rest = lines.split("\n")
        text = rest + held
        for line in complete:
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                yield "\n".join(data)
                data = []
    # Some servers close without the last empty line.
    if text.strip().startswith("data:"):
        data.append(text.strip()[5:].strip())
    if data:
        yield "\n".join(data)


def _take(answer: _Answer, data: str) -> str:
    """Add one event to the answer; returns its text. Raises ModelError."""
    try:
        event = json.loads(data)
    except json.JSONDecodeError as error:
        raise ModelError("the model server sent an event that is not JSON") from error
    if not isinstance(event, dict):
        raise ModelError("the model server sent an event that is not an object")
    if event.get("error"):
        detail = event["error"]
        told = str(detail.get("message", "") if isinstance(detail, dict) else detail)
        raise ModelError(f"the model server failed: {told.partition(chr(10))[0][:200]}")
    try:
        text = _add(answer, event)
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError("the model server sent an event of another form") from error
    if (text or answer.calls) and not answer.first_token_ms:
        answer.first_token_ms = (time.monotonic() - answer.asked) * 1000
    return text


def _add(answer: _Answer, event: dict[str, Any]) -> str:
    if usage := event.get("usage"):
        answer.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        answer.completion_tokens = int(usage.get("completion_tokens") or 0)
        details = usage.get("prompt_tokens_details") or {}
        answer.cached_tokens = int(details.get("cached_tokens") or 0)
    text = ""
    for choice in event.get("choices") or ():
        answer.finished = answer.finished or bool(choice.get("finish_reason"))
        delta = choice.get("delta") or {}
        text += delta.get("content") or ""
        for place, piece in enumerate(delta.get("tool_calls") or ()):
            index = piece.get("index")
            known = answer.calls.setdefault(
                place if index is None else index, {"id": "", "name": "", "arguments": ""}
            )
            function = piece.get("function") or {}
            # Only the arguments come in pieces; some servers repeat the rest in each.
            known["id"] = known["id"] or piece.get("id") or ""
            known["name"] = known["name"] or function.get("name") or ""
            arguments = function.get("arguments") or ""
            if isinstance(arguments, dict):
                arguments = json.dumps(arguments, ensure_ascii=False)
            known["arguments"] += arguments
    return text


def _calls(answer: _Answer, known: set[str]) -> list[ToolCall]:
    """The calls of a finished answer. Raises ModelError for one that does not parse."""
    calls = []
    for _, piece in sorted(answer.calls.items()):
        try:
            arguments = json.loads(piece["arguments"] or "{}")
        except json.JSONDecodeError as error:
            raise ModelError("the model's tool arguments are not JSON") from error
        if not isinstance(arguments, dict):
            raise ModelError("the model's tool arguments are not an object")
        calls.append(ToolCall(piece["id"] or _call_id(), piece["name"], arguments))
    if answer.written and not calls:
        parsed = parse_call(answer.written)
        if parsed is None or parsed[0] not in known:
            raise ModelError("the model did not finish a tool call")
        calls.append(ToolCall(_call_id(), *parsed))
    return calls


def _is_too_long(error: ModelRefused) -> bool:
    # vLLM has no name for it, only a sentence.
    return error.kind in _TOO_LONG or "maximum context length" in error.message


def _message(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        value["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": json.dumps(call.arguments, ensure_ascii=False),
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:12]}"
