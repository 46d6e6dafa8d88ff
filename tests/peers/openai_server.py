"""A model server that speaks the true wire format of OpenAI's chat completions, from a script.

Source of the format: the OpenAI API reference, "Streaming events" of chat completions, and what
llama-server and vLLM send: `data: {chunk}` lines, a last chunk with `usage` and no choices, `data: [DONE]`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Answer:
    """One answer: text and tool calls in pieces, or a refusal, or a connection that breaks or stalls.

    `breaks`: the stream ends without its end; `cut`: the connection is torn down in mid-chunk; `late`:
    nothing comes after the headers; `stalls`: nothing comes after the text.
    """

    text: Sequence[str] = ()
    calls: Sequence[dict[str, Any]] = ()
    """Pieces of `delta.tool_calls`, one per chunk."""
    raw: Sequence[str] = ()
    """Events as they are, before all others."""
    status: int = 200
    refusal: dict[str, Any] | None = None
    """The `error` of a status other than 200, else one with its number."""
    headers: Mapping[str, str] = field(default_factory=dict)
    breaks: bool = False
    cut: bool = False
    late: bool = False
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
    connections: set[int] = field(default_factory=set)
    """The client's ports: one for each connection it opened."""
    models: Sequence[str] = ("m",)
    url: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client left in the middle of an answer."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("Authorization", ""))
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername")[1])
        answer = self.script.pop(0)
        if answer.status != 200:
            error = {"message": f"status {answer.status}", "type": "server_error"}
            body = {"error": answer.refusal or error}
            return web.json_response(body, status=answer.status, headers=answer.headers)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await self._stream(response, answer)
            if answer.cut:
                # The chunk says 255 bytes and brings five.
                request.transport.write(b"ff\r\ndata:")
                request.transport.close()
        except (ConnectionError, asyncio.CancelledError):
            self.gone.set()
            raise
        return response

    async def list_models(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization", ""))
        data = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

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
        while answer.late:
            await asyncio.sleep(0.01)
            await response.write(f": waiting{answer.newline}".encode())
        await response.write(f": keep-alive{answer.newline}{answer.newline}".encode())
        for event in answer.raw:
            await send(event)
        await send(chunk({"role": "assistant", "content": ""}))
        for text in answer.text:
            await send(chunk({"content": text}))
        for piece in answer.calls:
            await send(chunk({"tool_calls": [piece]}))
        if answer.error:
            await send(json.dumps({"error": {"message": answer.error, "code": 500}}))
            return
        if answer.breaks or answer.cut:
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
    app.router.add_get("/v1/models", server.list_models)
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
