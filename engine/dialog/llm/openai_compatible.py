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
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from engine.aio import backoff
from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.messages import one_system
from engine.dialog.llm.tool_format import ToolCallScanner, parse_call
from engine.errors import ModelError, ModelTimeout

log = logging.getLogger(__name__)

_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MAX_EVENT = 1 << 20


class ModelRefused(ModelError):
    """The server answered that the request itself is wrong (a key, a model's name, a field)."""

    code = "MODEL_REFUSED"
    retryable = False


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


class OpenAiCompatible:
    """`base_url` ends before `/chat/completions`. `timeout_s` bounds the wait for the answer's end."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        temperature: float = 0.2,
        timeout_s: float = 30.0,
        attempts: int = 3,
        first_wait_s: float = 0.3,
    ) -> None:
        self.name = model
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._temperature = temperature
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._first_wait_s = first_wait_s
        self._session: aiohttp.ClientSession | None = None

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
        body = self._body(messages, tools, max_tokens)
        left = self._timeout_s
        async with aclosing(self._attempt_all(body, tools)) as deltas:
            while True:
                since = time.monotonic()
                try:
                    async with asyncio.timeout(left):
                        delta = await anext(deltas)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise ModelTimeout(f"no answer within {self._timeout_s:g} s") from error
                left -= time.monotonic() - since
                yield delta

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """One token, so that the server loads the model and keeps the prefix.

        A conversation is not read ahead: a server may charge for it, and keeps prefixes as it likes.
        """
        if cache_key:
            return
        asked = [*messages, Message("user", "Hello.")]
        async with aclosing(self.reply(asked, tools, max_tokens=1)) as deltas:
            async for _ in deltas:
                pass

    async def forget(self, cache_key: str) -> None:
        """Nothing is kept here."""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _attempt_all(
        self, body: dict[str, Any], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[Delta, None]:
        waits = backoff(self._first_wait_s, 5.0)
        for attempt in range(1, self._attempts + 1):
            begun = False
            try:
                async with aclosing(self._attempt(body, tools)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except ModelError as error:
                # Words already given out cannot be taken back, so no second answer after them.
                if begun or not error.retryable or attempt == self._attempts:
                    raise
                log.info("asking the model server again", extra={"attempt": attempt})
            await asyncio.sleep(next(waits))

    async def _attempt(
        self, body: dict[str, Any], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[Delta, None]:
        answer = _Answer(time.monotonic())
        scanner = ToolCallScanner([tool.name for tool in tools])
        try:
            async with self._client().post(self._url, json=body, headers=self._headers) as response:
                if response.status != 200:
                    raise await _refusal(response)
                async for data in events(response.content.iter_any()):
                    if data == "[DONE]":
                        break
                    text = _take(answer, data)
                    if scanner.opening is not None:
                        answer.written += text
                    elif spoken := scanner.feed(text):
                        yield TextDelta(spoken)
                    if scanner.opening is not None and not answer.written:
                        answer.written = scanner.opening.tail
                else:
                    if not answer.completion_tokens and not answer.first_token_ms:
                        raise ModelError("the model server closed the connection before answering")
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise ModelError(f"the model server cannot be reached: {error}") from error
        if scanner.opening is None and (rest := scanner.end()):
            yield TextDelta(rest)
        for call in _calls(answer, {tool.name for tool in tools}):
            yield call
        yield Usage(
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.cached_tokens,
            answer.first_token_ms,
        )

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session

    def _body(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], max_tokens: int
    ) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [_message(message) for message in one_system(messages)],
            "max_tokens": max_tokens,
            "temperature": self._temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
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
        return body


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
        text = detail.get("message", "") if isinstance(detail, dict) else str(detail)
        raise ModelError(f"the model server failed: {text[:200]}")
    if usage := event.get("usage"):
        answer.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        answer.completion_tokens = int(usage.get("completion_tokens") or 0)
        details = usage.get("prompt_tokens_details") or {}
        answer.cached_tokens = int(details.get("cached_tokens") or 0)
    text = ""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        text += delta.get("content") or ""
        for index, piece in enumerate(delta.get("tool_calls") or ()):
            known = answer.calls.setdefault(
                piece.get("index", index), {"id": "", "name": "", "arguments": ""}
            )
            function = piece.get("function") or {}
            known["id"] = known["id"] or piece.get("id") or ""
            known["name"] += function.get("name") or ""
            known["arguments"] += function.get("arguments") or ""
    if (text or answer.calls) and not answer.first_token_ms:
        answer.first_token_ms = (time.monotonic() - answer.asked) * 1000
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


async def _refusal(response: aiohttp.ClientResponse) -> ModelError:
    text = (await response.text(errors="replace"))[:300]
    message = f"the model server answered {response.status}: {text}"
    if response.status in _RETRIED:
        return ModelError(message)
    return ModelRefused(
        message, how_to_fix=["check the address, the key and the model's name in the settings"]
    )


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
