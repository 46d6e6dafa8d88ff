"""The sound of one call: an RTP socket that sends on its own clock and keeps all it hears."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from engine.errors import LegClosed, RemoteProtocolError
from engine.lab import g711, rtp
from engine.lab.playout import SOUND_RMS, Playout, rms
from engine.lab.sdp import AudioDescription
from engine.media.frame import FRAME_S, Digit, Samples

log = logging.getLogger(__name__)

FRAME = 160
"""Samples of 20 ms."""
_STALL_S = 1.0


@dataclass(frozen=True, slots=True)
class Played:
    """When the first and the last packet of a sound left, on the monotonic clock."""

    first_at: float
    last_at: float


@dataclass(slots=True)
class _Item:
    """Something to send: one step each 20 ms. A step of None is silence."""

    steps: Iterator[bytes | rtp.TelephoneEvent | None]
    done: asyncio.Future[Played]
    first_at: float = 0.0
    last_at: float = 0.0
    event_timestamp: int | None = None


@dataclass(slots=True)
class _Sender:
    """The RTP header's running numbers."""

    ssrc: int = field(default_factory=lambda: random.getrandbits(32))
    sequence: int = field(default_factory=lambda: random.getrandbits(15))
    timestamp: int = field(default_factory=lambda: random.getrandbits(31))
    in_spurt: bool = False


class RtpStream(asyncio.DatagramProtocol):
    """Sends a packet every 20 ms from `start` to `close`: what is queued, else silence.

    With `muted` nothing is sent where nothing is queued, as by a muted phone.
    """

    def __init__(self, *, muted: bool) -> None:
        self.muted = muted
        self.heard = Playout()
        self.sent = Playout()
        self.digits: list[Digit] = []
        """Keys the peer pressed, each at the end of its press."""
        self.last_sound_end = 0.0
        self.ignored = 0
        """Packets that were no RTP of ours."""
        self._transport: asyncio.DatagramTransport | None = None
        self.remote: AudioDescription | None = None
        """Where we send, or would after `start`."""
        self._clock: asyncio.Task[None] | None = None
        self._sender = _Sender()
        self._outbox: deque[_Item] = deque()
        self._waiting: set[asyncio.Future[float]] = set()
        self._last_event: int | None = None
        self._closed = False

    @classmethod
    async def open(cls, host: str, port: int, *, muted: bool) -> RtpStream:
        """Bind; port 0 takes any. Raises OSError."""
        _, stream = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: cls(muted=muted), local_addr=(host, port)
        )
        return stream

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def start(self, remote: AudioDescription) -> None:
        """Begin to send to `remote`, or go on there when it has moved."""
        self.remote = remote
        if self._clock is None and not self._closed:
            self._clock = asyncio.get_running_loop().create_task(
                self._run_clock(), name="rtp-clock"
            )

    def close(self) -> None:
        """Stop sending and wake all who wait. Safe to call twice."""
        self._closed = True
        if self._clock is not None:
            self._clock.cancel()
        for item in self._outbox:
            if not item.done.done():
                item.done.set_exception(LegClosed("the call ended before the sound was sent"))
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(LegClosed("the call ended"))
        if self._transport is not None:
            self._transport.close()

    async def play(self, samples: Samples) -> Played:
        """Queue 8 kHz sound, padded to 20 ms, and wait until it is sent. Raises LegClosed."""
        padding = -len(samples) % FRAME
        encoded = g711.encode(np.pad(samples, (0, padding)))
        return await self._send(
            encoded[start : start + FRAME] for start in range(0, len(encoded), FRAME)
        )

    async def press(self, key: str, *, press_ms: int) -> Played:
        """Queue one RFC 4733 key and 100 ms of silence after it. Raises LegClosed."""
        press = rtp.key_press(key, max(1, press_ms // 20))
        return await self._send(step for part in (press, [None] * 5) for step in part)

    async def next_sound(self) -> float:
        """The arrival of the next loud packet. Raises LegClosed when the call ends first."""
        if self._closed:
            raise LegClosed("the call ended")
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)

    async def _send(self, steps: Iterator[bytes | rtp.TelephoneEvent | None]) -> Played:
        if self._closed or self._clock is None:
            raise LegClosed("the call is not up")
        item = _Item(steps, asyncio.get_running_loop().create_future())
        self._outbox.append(item)
        try:
            return await item.done
        finally:
            if item in self._outbox:  # whoever waited was cancelled: stop speaking
                self._outbox.remove(item)

    # --- Sending -------------------------------------------------------------------------------

    async def _run_clock(self) -> None:
        deadline = time.monotonic()
        while True:
            self._tick()
            deadline += FRAME_S
            if (now := time.monotonic()) - deadline > _STALL_S:
                log.warning("the phone's clock stood still", extra={"late_s": now - deadline})
                deadline = now
            await asyncio.sleep(max(0.0, deadline - now))

    def _tick(self) -> None:
        """Send what is due now: 20 ms of sound, one telephone event, or nothing."""
        step: bytes | rtp.TelephoneEvent | None = None
        item: _Item | None = None
        while self._outbox:
            item = self._outbox[0]
            try:
                step = next(item.steps)
                break
            except StopIteration:
                self._outbox.popleft()
                if not item.done.done():
                    item.done.set_result(Played(item.first_at, item.last_at))
                item = None
        if isinstance(step, rtp.TelephoneEvent):
            assert item is not None
            self._send_event(item, step)
        elif step is not None or not self.muted:
            self._send_sound(step if step is not None else bytes([g711.SILENCE]) * FRAME)
        else:
            self._sender.in_spurt = False
        if item is not None:
            now = time.monotonic()
            item.first_at = item.first_at or now
            if step is not None:
                item.last_at = now
        self._sender.timestamp = (self._sender.timestamp + FRAME) & 0xFFFFFFFF

    def _send_sound(self, payload: bytes) -> None:
        sender = self._sender
        samples = g711.decode(payload)
        self.sent.add(time.monotonic(), sender.ssrc, sender.timestamp, samples)
        self._write(rtp.PCMU, sender.timestamp, payload, marker=not sender.in_spurt)
        sender.in_spurt = True

    def _send_event(self, item: _Item, event: rtp.TelephoneEvent) -> None:
        assert self.remote is not None
        first = item.event_timestamp is None
        if item.event_timestamp is None:
            item.event_timestamp = self._sender.timestamp
        payload_type = self.remote.event_type
        if payload_type is not None:
            self._write(payload_type, item.event_timestamp, event.build(), marker=first)
        self._sender.in_spurt = False

    def _write(self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool) -> None:
        assert self._transport is not None
        assert self.remote is not None
        self._sender.sequence = (self._sender.sequence + 1) & 0xFFFF
        packet = rtp.RtpPacket(
            payload_type, self._sender.sequence, timestamp, self._sender.ssrc, payload, marker
        )
        self._transport.sendto(packet.build(), (self.remote.host, self.remote.port))

    # --- Receiving -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own UDP transport does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        arrived_at = time.monotonic()
        try:
            packet = rtp.parse(data)
            if packet.payload_type == rtp.PCMU:
                self._hear(packet, arrived_at)
            elif self.remote is not None and packet.payload_type == self.remote.event_type:
                self._hear_event(packet, arrived_at)
            else:
                self.ignored += 1
        except RemoteProtocolError:
            self.ignored += 1

    def error_received(self, exc: Exception) -> None:
        # ICMP "port unreachable": the peer closed its socket a moment before its BYE reached us.
        log.debug("the peer's RTP port is closed", extra={"error": str(exc)})

    def _hear(self, packet: rtp.RtpPacket, arrived_at: float) -> None:
        samples = g711.decode(packet.payload)
        self.heard.add(arrived_at, packet.ssrc, packet.timestamp, samples)
        if rms(samples) <= SOUND_RMS:
            return
        self.last_sound_end = arrived_at + len(samples) / g711.RATE
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(arrived_at)

    def _hear_event(self, packet: rtp.RtpPacket, arrived_at: float) -> None:
        event = rtp.parse_event(packet.payload)
        if event.end and packet.timestamp != self._last_event:  # the end comes three times
            self._last_event = packet.timestamp
            self.digits.append(Digit(event.key, arrived_at))
