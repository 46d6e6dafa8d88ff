"""AudioSocket on the wire: bytes in, events out, no sockets.

A message is `kind:u8, length:u16 big-endian, payload`. Asterisk opens the connection and speaks first:

    START    --Identify-->  TALKING  --Audio, Dtmf-->  TALKING  --Hangup, Error-->  ENDED

The UUID comes first and once; nothing follows the end. Whatever else arrives is a RemoteProtocolError, and
the decoder stays broken: one cannot find the next header in a stream whose framing is lost.

Source of the facts: res_audiosocket.c of Asterisk 22, and measurements of it.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from engine.errors import LocalProtocolError, RemoteProtocolError

HEADER = struct.Struct(">BH")
MAX_PAYLOAD = 0xFFFF

HANGUP = 0x00
UUID = 0x01
DTMF = 0x03
ERROR = 0xFF
RATES: Mapping[int, int] = {
    0x10: 8_000,
    0x11: 12_000,
    0x12: 16_000,
    0x13: 24_000,
    0x14: 32_000,
    0x15: 44_100,
    0x16: 48_000,
    0x17: 96_000,
    0x18: 192_000,
}
_KINDS: Mapping[int, int] = {rate: kind for kind, rate in RATES.items()}


@dataclass(frozen=True, slots=True)
class Identify:
    """Which call this is: a UUID, dashed, lower case."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Audio:
    """s16le mono sound of any length: Asterisk passes on the caller's own packet size."""

    rate: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class Dtmf:
    """One key, sent when it is released. Asterisk also reports fax tones this way, as letters."""

    key: str


@dataclass(frozen=True, slots=True)
class Hangup:
    """The peer ends the stream. Asterisk itself never says so, it just closes."""


@dataclass(frozen=True, slots=True)
class Error:
    """The peer failed. `code` is its own number, 0 where it gave none."""

    code: int


Event = Identify | Audio | Dtmf | Hangup | Error


class State(Enum):
    START = auto()
    TALKING = auto()
    ENDED = auto()


# The specification: what may come, and what state it leads to.
TRANSITIONS: Mapping[State, Mapping[type[Event], State]] = {
    State.START: {Identify: State.TALKING},
    State.TALKING: {
        Audio: State.TALKING,
        Dtmf: State.TALKING,
        Hangup: State.ENDED,
        Error: State.ENDED,
    },
    State.ENDED: {},
}

_EVENTS: Mapping[int, type[Event]] = {
    HANGUP: Hangup,
    UUID: Identify,
    DTMF: Dtmf,
    ERROR: Error,
    **dict.fromkeys(RATES, Audio),
}

# The lengths a payload may have, both ends included. A decoder therefore holds at most 18 bytes of a
# stranger's before it knows the UUID, and one message afterwards.
_LENGTHS: Mapping[type[Event], tuple[int, int]] = {
    Identify: (16, 16),
    Audio: (2, MAX_PAYLOAD),
    Dtmf: (1, 1),
    Hangup: (0, 0),
    Error: (0, 1),
}


class Decoder:
    """Eats bytes however they were cut, yields events.

    Drain `next_event` after each `feed`: what is not drained is held in memory.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._state = State.START
        self._broken: str | None = None

    @property
    def state(self) -> State:
        return self._state

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed. Raises RemoteProtocolError."""
        if self._broken is not None:
            raise RemoteProtocolError(self._broken)
        if not self._buffer:
            return None
        try:
            return self._read_message()
        except RemoteProtocolError as error:
            self._broken = error.message
            self._buffer.clear()
            raise

    def _read_message(self) -> Event | None:
        # The kind is judged before its length has come, so that garbage is never waited for.
        kind = self._buffer[0]
        event_type = self._allowed(kind)
        if len(self._buffer) < HEADER.size:
            return None
        _, length = HEADER.unpack_from(self._buffer)
        shortest, longest = _LENGTHS[event_type]
        if not shortest <= length <= longest:
            raise RemoteProtocolError(f"kind 0x{kind:02x} cannot have {length} bytes of payload")
        if event_type is Audio and length % 2:
            raise RemoteProtocolError(f"audio of {length} bytes ends inside a sample")
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        event = _event(kind, payload)
        self._state = TRANSITIONS[self._state][event_type]
        return event

    def _allowed(self, kind: int) -> type[Event]:
        event_type = _EVENTS.get(kind)
        if event_type is None:
            raise RemoteProtocolError(f"unknown kind 0x{kind:02x}")
        if event_type not in TRANSITIONS[self._state]:
            raise RemoteProtocolError(
                f"kind 0x{kind:02x} ({event_type.__name__}) cannot come in state {self._state.name}"
            )
        return event_type


def _event(kind: int, payload: bytes) -> Event:
    match kind:
        case 0x01:
            return Identify(str(uuid.UUID(bytes=payload)))
        case 0x03:
            if not 0x21 <= payload[0] <= 0x7E:
                raise RemoteProtocolError(f"0x{payload[0]:02x} is not a DTMF key")
            return Dtmf(payload.decode("ascii"))
        case 0x00:
            return Hangup()
        case 0xFF:
            return Error(payload[0] if payload else 0)
        case _:
            return Audio(RATES[kind], payload)


def encode_audio(pcm: bytes, rate: int) -> bytes:
    """Header and payload in one piece, for one write: Asterisk drops the call when the payload comes more
    than some 5 ms after its header.

    `pcm` is s16le mono, 2 to 65534 bytes. Raises LocalProtocolError.
    """
    kind = _KINDS.get(rate)
    if kind is None:
        raise LocalProtocolError(f"AudioSocket has no kind for {rate} Hz")
    if not pcm or len(pcm) % 2:
        raise LocalProtocolError(f"{len(pcm)} bytes are not whole samples; Asterisk drops the call")
    if len(pcm) > MAX_PAYLOAD:
        raise LocalProtocolError(f"{len(pcm)} bytes do not fit one message of {MAX_PAYLOAD}")
    return HEADER.pack(kind, len(pcm)) + pcm


def encode_hangup() -> bytes:
    """The polite end: the dialplan goes on. An error message (0xff) or DTMF from us would drop the call, so
    there are no encoders for them."""
    return HEADER.pack(HANGUP, 0)
