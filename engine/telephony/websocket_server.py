"""The chan_websocket end of a call: Asterisk dials `/media`, queues what we send and plays it on its own clock.

    Dial(WebSocket/offhook/c(slin16)f(json)v(sid=${OFFHOOK_UUID}),,g)

The call's UUID comes in the address as `sid`, or in the channel variable OFFHOOK_UUID where the events are
JSON. The rate is the one of MEDIA_START.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from aiohttp import WebSocketError, WSMsgType, web

from engine.errors import LegClosed, LocalProtocolError, RemoteProtocolError
from engine.media.frame import Digit, Frame, frame_bytes
from engine.telephony import websocket_codec as codec
from engine.telephony.admission import Refused
from engine.telephony.inbound import Inbound
from engine.telephony.outbound import StallGate, prepare_socket
from engine.telephony.reception import FAREWELL_S, KEYS, EndReason, Reception

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_MESSAGE = 65_536
VARIABLE = "OFFHOOK_UUID"


class _Line:
    """One websocket: its messages as events, and how it ends."""

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self._ws = ws
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._decoder = codec.Decoder()
        self._gate = StallGate()
        self._timer: asyncio.TimerHandle | None = None
        self.xoff = False
        self.leg: WebSocketLeg | None = None
        self.end_reason: EndReason = ""
        self.gone = asyncio.Event()

    async def next_event(self) -> codec.Event | None:
        """The next event, or None when the peer is gone. Raises RemoteProtocolError."""
        message = await self._ws.receive()
        match message.type:
            case WSMsgType.TEXT:
                return self._decoder.text(message.data)
            case WSMsgType.BINARY:
                return self._decoder.binary(message.data)
            case WSMsgType.ERROR if isinstance(message.data, WebSocketError):
                raise RemoteProtocolError(str(message.data))
            case _:
                return None

    async def listen(self) -> None:
        """Read until the peer is gone or breaks the protocol."""
        while (event := await self.next_event()) is not None:
            if self.leg is None or self.end_reason:
                continue
            match event:
                case codec.Audio(pcm):
                    self.leg.inbound.push(pcm, self.leg.rate, self._loop.time())
                case codec.DtmfEnd(key):
                    if key in KEYS:
                        self.leg.inbound.digit(key, self._loop.time())
                case codec.MediaXoff():
                    self.xoff = True
                case codec.MediaXon():
                    self.xoff = False

    async def write(self, pcm: bytes) -> bool:
        """Write one frame; False when it was dropped because the peer cannot take it."""
        buffered = self._transport.get_write_buffer_size()
        if self.xoff or not self._gate.is_open(buffered, self._loop.time()):
            return False
        await self._ws.send_bytes(pcm)
        return True

    async def command(self, command: codec.Command) -> None:
        await self._ws.send_str(codec.encode_command(command, self._decoder.spelling))

    async def part(self, reason: EndReason) -> None:
        """Say goodbye; the peer has a second to close while we read on. Safe to call twice."""
        if self.end_reason:
            return
        self.end(reason)
        self._timer = self._loop.call_later(FAREWELL_S, self._transport.abort)
        try:
            await self.command(codec.Command.HANGUP)
        except ConnectionError:
            pass  # it went first

    async def see_out(self) -> None:
        """Throw away what still comes, until the peer is gone."""
        while True:
            try:
                if await self.next_event() is None:
                    return
            except RemoteProtocolError:
                continue

    def end(self, reason: EndReason) -> None:
        if not self.end_reason:
            self.end_reason = reason
            if self.leg:
                self.leg.inbound.close()

    async def close(self) -> None:
        """The last words of the websocket itself."""
        self.end("caller")
        if self._timer is None:
            self._timer = self._loop.call_later(FAREWELL_S, self._transport.abort)
        try:
            await self._ws.close()
        finally:
            self._timer.cancel()
            self.gone.set()


class WebSocketLeg:
    """One call over chan_websocket. Asterisk plays from a queue of its own; a short lead keeps it fed.

    `dropped_in` counts frames lost because nobody received them in time, `dropped_out` those not written
    because Asterisk said MEDIA_XOFF or did not read. `end_reason` says who ended the line.
    """

    lead_frames = 3

    def __init__(self, line: _Line, call_id: str, rate: int) -> None:
        self.call_id = call_id
        self.rate = rate
        self.dropped_out = 0
        self._line = line
        self.inbound = Inbound(rate, asyncio.get_running_loop().time())

    @property
    def dropped_in(self) -> int:
        return self.inbound.dropped

    @property
    def end_reason(self) -> EndReason:
        return self._line.end_reason

    def receive(self) -> AsyncIterator[Frame | Digit]:
        """A frame every 20 ms, keys among them, until the line ends, however it ends. For one reader."""
        return self.inbound.receive()

    async def send(self, frame: Frame) -> None:
        """Queue one frame of exactly 20 ms at the leg's rate. Raises LegClosed, LocalProtocolError."""
        if self._line.end_reason:
            raise LegClosed("the line is closed")
        if frame.rate != self.rate or len(frame.pcm) != frame_bytes(self.rate):
            raise LocalProtocolError(
                f"a frame of {len(frame.pcm)} bytes at {frame.rate} Hz on a line of {self.rate} Hz"
            )
        try:
            written = await self._line.write(frame.pcm)
        except ConnectionError as error:
            raise LegClosed("the line is closed") from error
        if not written:
            self.dropped_out += 1

    async def flush(self) -> None:
        """Asterisk throws away what it has queued. Raises LegClosed."""
        if self._line.end_reason:
            raise LegClosed("the line is closed")
        try:
            await self._line.command(codec.Command.FLUSH_MEDIA)
        except ConnectionError as error:
            raise LegClosed("the line is closed") from error

    async def hang_up(self) -> None:
        """HANGUP: the dialplan goes on. Returns when the connection is gone. Safe to call twice."""
        await self._line.part("engine")
        await self._line.gone.wait()


class WebSocketServer(Generic[T]):
    """Listens for Asterisk at `/media`; the same silhouette as AudioSocketServer.

    `refused` counts by reason: those of `claim`, "silent" (no MEDIA_START in time) and "protocol".
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        claim: Callable[[str], T],
        on_leg: Callable[[WebSocketLeg, T], Awaitable[None]],
        identify_timeout_s: float = 2.0,
    ) -> None:
        self._host = host
        self._port = port
        self._identify_timeout_s = identify_timeout_s
        self._reception: Reception[WebSocketLeg, T] = Reception(claim=claim, on_leg=on_leg)
        self._lines: set[_Line] = set()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    @property
    def port(self) -> int:
        """The port listened on, also when 0 was asked for."""
        if self._runner is None or not self._runner.addresses:
            return self._port
        return int(self._runner.addresses[0][1])

    @property
    def legs(self) -> set[WebSocketLeg]:
        """The live ones."""
        return self._reception.legs

    @property
    def refused(self) -> Counter[str]:
        return self._reception.refused

    async def start(self) -> None:
        """Listen. Raises OSError."""
        app = web.Application()
        app.router.add_get("/media", self._media)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=FAREWELL_S)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._host, self._port)
        await self._site.start()

    async def close(self) -> None:
        """Hang up every call and stop. Safe to call twice."""
        # 1. Stop accepting.
        if self._runner is None or self._site is None:
            return
        await self._site.stop()
        # 2. Hang up the legs, wait for their tasks, cancel those that stay.
        await self._reception.close()
        # 3. See out the lines that have no leg.
        while self._lines:
            line = next(iter(self._lines))
            await line.part("engine")
            await line.gone.wait()
        # 4. The HTTP server itself.
        await self._runner.cleanup()
        self._runner = self._site = None

    async def _media(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(
            protocols=("media",), compress=False, max_msg_size=MAX_MESSAGE, timeout=FAREWELL_S
        )
        await ws.prepare(request)
        if request.transport is None:  # gone during the handshake
            return ws
        prepare_socket(request.transport)
        line = _Line(ws, request.transport)
        self._lines.add(line)
        try:
            await self._converse(line, request.query.get("sid", ""))
        finally:
            try:
                await line.close()
            finally:
                self._lines.discard(line)
                if line.leg:
                    self.legs.discard(line.leg)
        return ws

    async def _converse(self, line: _Line, sid: str) -> None:
        try:
            if await self._admit(line, sid):
                await line.listen()
        except RemoteProtocolError as error:
            log.warning(
                "a line broke the chan_websocket protocol",
                extra={"error": error.message, "call_id": line.leg.call_id if line.leg else ""},
            )
            if line.leg is None:
                self._reception.refuse("protocol")
            await line.part("protocol")
        if line.end_reason:
            await line.see_out()

    async def _admit(self, line: _Line, sid: str) -> bool:
        """Whether the line is a call of ours; then it has its leg. Raises RemoteProtocolError."""
        try:
            async with asyncio.timeout(self._identify_timeout_s):
                start = await line.next_event()
        except TimeoutError:
            self._reception.refuse("silent")
            return False
        if not isinstance(start, codec.MediaStart):
            return False  # it left without a word
        call_id = (sid or start.variables.get(VARIABLE, "")).strip().lower()
        try:
            ticket = self._reception.claim(call_id)
        except Refused:
            await line.part("engine")
            return False
        line.leg = WebSocketLeg(line, call_id, start.rate)
        self._reception.serve(line.leg, ticket)
        return True
