"""A model server that speaks the true wire format of OpenAI's chat completions, from a script.

Source of the format: the OpenAI API reference, "Streaming events" of chat completions, and what
llama-server and vLLM send: `data: {chunk}` lines, a last chunk with `usage` and no choices, `data: [DONE]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Answer:
    """One answer: text and tool calls in pieces, or a refusal, or a connection that breaks or stalls."""

    text: Sequence[str] = ()
    calls: Sequence[dict[str, Any]] = ()
    """Pieces of `delta.tool_calls`, one per chunk."""
    status: int = 200
    breaks: bool = False
    stalls: bool = False
    error: str = ""
    usage: dict[str, Any] | None = None
    newline: str = "\n"


@dataclass(slots=True)
class OpenAiServer:
    """Answers from `script` in order; `requests` are the bodies and `keys` the headers it has seen."""

    script: list[Answer]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client left in the middle of an answer."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        answer = self.script.pop(0)
        if answer.status != 200:
            body = {"error": {"message": f"status {answer.status}", "type": "server_error"}}
            return web.json_response(body, status=answer.status)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._stream(response, answer)
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response

    async def _stream(self, response: web.StreamResponse, answer: Answer) -> None:
        async def send(data: str) -> None:
            end = answer.newline
            await response.write(f"data: {data}{end}{end}".encode())

        def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
            return json.dumps(
                {
                    "id": "chatcmpl-1",
                    "object": "chat.completion.chunk",
                    "created": 1,
                    "model": "reference",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
                },
                ensure_ascii=False,
            )

        if answer.breaks and not answer.text:
            return
        await response.write(f": keep-alive{answer.newline}{answer.newline}".encode())
        await send(chunk({"role": "assistant", "content": ""}))
        for text in answer.text:
            await send(chunk({"content": text}))
        for piece in answer.calls:
            await send(chunk({"tool_calls": [piece]}))
        if answer.error:
            await send(json.dumps({"error": {"message": answer.error, "code": 500}}))
            return
        if answer.breaks:
            return
        while answer.stalls:
            await asyncio.sleep(0.01)
            await response.write(f": waiting{answer.newline}".encode())
        await send(chunk({}, "tool_calls" if answer.calls else "stop"))
        if answer.usage is not None:
            await send(json.dumps({"id": "chatcmpl-1", "choices": [], "usage": answer.usage}))
        await send("[DONE]")


@asynccontextmanager
async def openai_server(*script: Answer) -> AsyncIterator[OpenAiServer]:
    """The server on a free port of the loopback; `url` is the base for a client."""
    server = OpenAiServer(list(script))
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        server.url = f"http://127.0.0.1:{port}/v1"
        yield server
    finally:
        await runner.cleanup()
