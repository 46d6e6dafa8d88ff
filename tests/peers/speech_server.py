"""A speech server with OpenAI's interface, from a script: transcriptions in, sound out.

Source of the formats: the OpenAI API reference, "Create transcription" and "Create speech", and what
speaches and vLLM send: `verbose_json` with Whisper's segments, `pcm` as s16le mono in chunks of any size.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(slots=True)
class Heard:
    """One transcript: what `json` is for it; a refusal; or silence from the server (`stalls`)."""

    json: Any = None
    status: int = 200
    error: Mapping[str, Any] | None = None
    stalls: bool = False


@dataclass(slots=True)
class Spoken:
    """One sentence's bytes, a piece at a time; then the end, a torn connection (`cut`) or nothing."""

    pieces: Sequence[bytes] = ()
    kind: str = "audio/pcm"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    stalls: bool = False


@dataclass(slots=True)
class Asked:
    """A transcription as it was asked for; `sound` is (rate, channels, bytes per sample, samples)."""

    fields: dict[str, str]
    sound: tuple[int, int, int, int]


@dataclass(slots=True)
class SpeechServer:
    script: list[Heard | Spoken]
    asked: list[Asked] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of the requests for speech."""
    url: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The client left in the middle of an answer."""

    async def transcribe(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField) and file.content_type == "audio/wav"
        with file.file as uploaded, wave.open(io.BytesIO(uploaded.read())) as sound:
            shape = (
                sound.getframerate(),
                sound.getnchannels(),
                sound.getsampwidth(),
                sound.getnframes(),
            )
        fields = {key: value for key, value in form.items() if isinstance(value, str)}
        self.asked.append(Asked(fields, shape))
        heard = self.script.pop(0)
        assert isinstance(heard, Heard)
        if heard.stalls:
            await self._stall()
        if heard.status != 200:
            error = heard.error or {"message": f"status {heard.status}"}
            return web.json_response({"error": error}, status=heard.status)
        return web.json_response(heard.json)

    async def speak(self, request: web.Request) -> web.StreamResponse:
        self.told.append(await request.json())
        spoken = self.script.pop(0)
        assert isinstance(spoken, Spoken)
        if spoken.status != 200:
            return web.Response(status=spoken.status, headers=spoken.headers)
        response = web.StreamResponse(headers={"Content-Type": spoken.kind})
        await response.prepare(request)
        for piece in spoken.pieces:
            await response.write(piece)
            if len(spoken.pieces) > 1:
                # So that each piece is read apart.
                await asyncio.sleep(0.005)
        if spoken.stalls:
            await self._stall()
        if spoken.cut:
            assert request.transport is not None
            request.transport.write(b"ff\r\nabc")
            request.transport.close()
        return response

    async def _stall(self) -> None:
        """Until the client leaves."""
        try:
            await asyncio.Event().wait()
        finally:
            self.gone.set()


@asynccontextmanager
async def speech_server(*script: Heard | Spoken) -> AsyncIterator[SpeechServer]:
    """The server on a free port of the loopback; `url` is the base for a client."""
    server = SpeechServer(list(script))
    app = web.Application()
    app.router.add_post("/v1/audio/transcriptions", server.transcribe)
    app.router.add_post("/v1/audio/speech", server.speak)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield server
    finally:
        await runner.cleanup()
