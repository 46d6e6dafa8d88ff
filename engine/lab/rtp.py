"""RTP packets (RFC 3550) and telephone events (RFC 4733), without sockets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from engine.errors import RemoteProtocolError

PCMU = 0
TELEPHONE_EVENT = 101
"""The dynamic payload type we offer; the peer's answer may name another."""
KEYS = "0123456789*#ABCD"

_HEADER = struct.Struct("!BBHII")
_EVENT = struct.Struct("!BBH")
_VOLUME = 10  # dBm0 below zero, what phones send


@dataclass(frozen=True, slots=True)
class RtpPacket:
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    def build(self) -> bytes:
        head = _HEADER.pack(
            0x80,
            self.marker << 7 | self.payload_type,
            self.sequence & 0xFFFF,
            self.timestamp & 0xFFFFFFFF,
            self.ssrc,
        )
        return head + self.payload


def parse(data: bytes) -> RtpPacket:
    """One datagram -> one packet. Raises RemoteProtocolError."""
    if len(data) < _HEADER.size:
        raise RemoteProtocolError("an RTP packet is shorter than its header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if first >> 6 != 2:
        raise RemoteProtocolError(f"RTP version {first >> 6}")
    start = _HEADER.size + 4 * (first & 0x0F)  # contributing sources
    end = len(data)
    if first & 0x10:  # header extension: profile, length in 32-bit words
        if len(data) < start + 4:
            raise RemoteProtocolError("an RTP header extension is cut off")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:  # the last byte counts the padding, itself included
        end -= data[-1]
        if data[-1] == 0:
            raise RemoteProtocolError("RTP padding of length zero")
    if start > end:
        raise RemoteProtocolError("an RTP packet is shorter than it says")
    return RtpPacket(
        payload_type=second & 0x7F,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=data[start:end],
        marker=bool(second & 0x80),
    )


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """`duration` is in RTP timestamp units, so far; `end` marks the last of the key."""

    key: str
    duration: int
    end: bool

    def build(self) -> bytes:
        return _EVENT.pack(KEYS.index(self.key), self.end << 7 | _VOLUME, self.duration)


def parse_event(payload: bytes) -> TelephoneEvent:
    """Raises RemoteProtocolError; also for events that are no keys (flash, tones)."""
    if len(payload) < _EVENT.size:
        raise RemoteProtocolError("a telephone event is shorter than four bytes")
    code, flags, duration = _EVENT.unpack_from(payload)
    if code >= len(KEYS):
        raise RemoteProtocolError(f"telephone event {code} is not a key")
    return TelephoneEvent(KEYS[code], duration, bool(flags & 0x80))


def key_press(key: str, frames: int) -> Iterator[TelephoneEvent]:
    """What is sent for one key held for `frames` × 20 ms: growing durations, then the end, three times."""
    for index in range(1, frames + 1):
        yield TelephoneEvent(key, index * 160, end=False)
    for _ in range(3):
        yield TelephoneEvent(key, frames * 160, end=True)
