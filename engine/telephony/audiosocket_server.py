"""The AudioSocket end of a call: accept, check the UUID, carry frames, part politely.

Asterisk plays what it gets at once and buffers nothing, so whoever calls `send` is the clock. How Asterisk
takes offence, and what is done about it here:

* a reset, an error or an unknown message drops the caller, so we part with 0x00, read on until Asterisk has
  closed, and only then close;
* a message whose payload lags its header drops the caller, so a frame is one write, and frames are dropped
  while the transport cannot pass them on;
* an end of file and a reset are both how Asterisk says that the caller hung up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar, cast

from engine.errors import LegClosed, LocalProtocolError, RemoteProtocolError
from engine.media.frame import Digit, Frame, frame_bytes
from engine.telephony import audiosocket_codec as codec
from engine.telephony.admission import Refused
from engine.telephony.inbound import Inbound
from engine.telephony.outbound import StallGate, prepare_socket
from engine.telephony.reception import FAREWELL_S, KEYS, EndReason, Reception

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Line(asyncio.Protocol):
    """One TCP connection: its bytes as events, and how it ends.

    A callback protocol rather than streams: it costs least per frame, and reads whoever is or is not
    listening.
    """

    def __init__(
        self,
        *,
        identify_timeout_s: float,
        on_identify: Callable[[_Line, str], None],
        on_refused: Callable[[str], None],
        on_made: Callable[[_Line], None],
        on_gone: Callable[[_Line], None],
    ) -> None:
        self._identify_timeout_s = identify_timeout_s
        self._on_identify = on_identify
        self._on_refused = on_refused
        self._on_made = on_made
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._decoder = codec.Decoder()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        self._gate = StallGate()
        self.leg: AudioSocketLeg | None = None
        self.end_reason: EndReason = ""
        self.gone = asyncio.Event()

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        prepare_socket(transport)
        self._timer = self._loop.call_later(self._identify_timeout_s, self._silent)
        self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if self.end_reason:
            return  # read and thrown away: closing with unread input would be a reset
        try:
            self._decoder.feed(data)
            while not self.end_reason and (event := self._decoder.next_event()) is not None:
                self._handle(event)
        except RemoteProtocolError as error:
            self._broken(error.message)

    def eof_received(self) -> None:
        self._end("caller")
        if self._transport.get_write_buffer_size():
            # Nobody will ever read it; waiting to flush would keep the socket for ever.
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("caller")
        self._stop_timer()
        self.gone.set()
        self._on_gone(self)

    # --- called by the leg and the server ---

    def write(self, pcm: bytes, rate: int) -> bool:
        """Write one frame; False when it was dropped because the peer does not read."""
        message = codec.encode_audio(pcm, rate)
        if not self._gate.is_open(self._transport.get_write_buffer_size(), self._loop.time()):
            return False
        self._transport.write(message)
        return True

    def part(self, reason: EndReason) -> None:
        """Say goodbye, then read on until the peer closes; it has a second. Safe to call twice."""
        if self.end_reason:
            return
        self._end(reason)
        self._transport.write(codec.encode_hangup())
        self._stop_timer()
        self._timer = self._loop.call_later(FAREWELL_S, self._transport.abort)

    # --- inside ---

    def _handle(self, event: codec.Event) -> None:
        match event:
            case codec.Identify(call_id):
                self._stop_timer()
                self._on_identify(self, call_id)
            case codec.Audio(rate, pcm):
                if self.leg:
                    self.leg.inbound.push(pcm, rate, self._loop.time())
            case codec.Dtmf(key):
                # Fax tones come as other letters; they are no keys.
                if self.leg and key in KEYS:
                    self.leg.inbound.digit(key, self._loop.time())
            case codec.Hangup():
                self.part("caller")
            case codec.Error(code):
                self._broken(f"the peer reported error {code}")

    def _silent(self) -> None:
        self._on_refused("silent")
        self._end("protocol")
        self._transport.abort()

    def _broken(self, why: str) -> None:
        log.warning(
            "a line broke the AudioSocket protocol",
            extra={"error": why, "call_id": self.leg.call_id if self.leg else ""},
        )
        if self.leg is None:
            self._on_refused("protocol")
        self.part("protocol")

    def _end(self, reason: EndReason) -> None:
        if not self.end_reason:
            self.end_reason = reason
            if self.leg:
                self.leg.inbound.close()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


class AudioSocketLeg:
    """One call over AudioSocket. `send` is heard at once, so the far side holds no lead.

    `dropped_in` counts frames lost because nobody received them in time, `dropped_out` those not written
    because Asterisk did not read. `end_reason` says who ended the line.
    """

    lead_frames = 0

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
        """A frame every 20 ms, keys among them, until the line ends, however it ends. For one reader.

        Sound that Asterisk sends at another rate is resampled to the leg's.
        """
        return self.inbound.receive()

    async def send(self, frame: Frame) -> None:
        """Write one frame of exactly 20 ms at the leg's rate. Raises LegClosed, LocalProtocolError.

        Asterisk does not re-frame: another size would reach the caller as odd packets and noise.
        """
        if self._line.end_reason:
            raise LegClosed("the line is closed")
        if frame.rate != self.rate or len(frame.pcm) != frame_bytes(self.rate):
            raise LocalProtocolError(
                f"a frame of {len(frame.pcm)} bytes at {frame.rate} Hz on a line of {self.rate} Hz"
            )
        if not self._line.write(frame.pcm, frame.rate):
            self.dropped_out += 1

    async def flush(self) -> None:
        """Nothing to do: Asterisk holds no sound of ours on this transport."""

    async def hang_up(self) -> None:
        """Part politely; returns when the connection is gone. Safe to call twice."""
        self._line.part("engine")
        await self._line.gone.wait()


class AudioSocketServer(Generic[T]):
    """Listens for Asterisk.

    `claim` turns a UUID into the call's ticket or raises Refused; `on_leg` serves the call in a task of the
    server's, and the leg is hung up when it returns or raises. `refused` counts by reason: those of `claim`,
    "silent" (no UUID in time) and "protocol" (garbage instead of one). `rate` is what the dialplan agreed on:
    8000 with the AudioSocket application, or the one in `c(…)` of a dialled channel.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        claim: Callable[[str], T],
        on_leg: Callable[[AudioSocketLeg, T], Awaitable[None]],
        identify_timeout_s: float = 2.0,
        rate: int = 8000,
    ) -> None:
        self._host = host
        self._port = port
        self._identify_timeout_s = identify_timeout_s
        self._rate = rate
        self._reception: Reception[AudioSocketLeg, T] = Reception(claim=claim, on_leg=on_leg)
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port listened on, also when 0 was asked for."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def legs(self) -> set[AudioSocketLeg]:
        """The live ones."""
        return self._reception.legs

    @property
    def refused(self) -> Counter[str]:
        return self._reception.refused

    async def start(self) -> None:
        """Listen. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._new_line, self._host, self._port, backlog=512)

    async def close(self) -> None:
        """Hang up every call and stop. Safe to call twice."""
        # 1. Stop accepting.
        if self._server is None:
            return
        self._server.close()
        # 2. Hang up the legs, wait for their tasks, cancel those that stay.
        await self._reception.close()
        # 3. See out the lines that have no leg: refused, not yet identified, or accepted just now.
        while self._lines:
            line = next(iter(self._lines))
            line.part("engine")
            await line.gone.wait()
        # 4. The listening socket itself.
        await self._server.wait_closed()
        self._server = None

    def _new_line(self) -> _Line:
        return _Line(
            identify_timeout_s=self._identify_timeout_s,
            on_identify=self._identified,
            on_refused=self._reception.refuse,
            on_made=self._lines.add,
            on_gone=self._gone,
        )

    def _identified(self, line: _Line, call_id: str) -> None:
        try:
            ticket = self._reception.claim(call_id)
        except Refused:
            line.part("engine")
            return
        line.leg = AudioSocketLeg(line, call_id, self._rate)
        self._reception.serve(line.leg, ticket)

    def _gone(self, line: _Line) -> None:
        self._lines.discard(line)
        if line.leg:
            self.legs.discard(line.leg)
