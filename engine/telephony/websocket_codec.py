"""What chan_websocket says beside the sound: text messages in, events out, no sockets.

Asterisk chooses one of two spellings per connection, `f(plain-text)` or `f(json)`, and expects commands in
the same one:

    MEDIA_START connection_id:… channel:WebSocket/… channel_id:… format:slin16 optimal_frame_size:640 ptime:20
    {"event": "MEDIA_START", "format": "slin16", …, "channel_variables": {…}}

MEDIA_START comes first and once; then sound (binary messages) and events in any order.

Source of the facts: channels/chan_websocket.c of Asterisk 22.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.errors import RemoteProtocolError

RATES: Mapping[str, int] = {
    "slin": 8_000,
    "slin12": 12_000,
    "slin16": 16_000,
    "slin24": 24_000,
    "slin32": 32_000,
    "slin44": 44_100,
    "slin48": 48_000,
    "slin96": 96_000,
    "slin192": 192_000,
}

MAX_TEXT = 65_536
"""Longest text message we read: MEDIA_START carries every variable of the channel in JSON."""


class Spelling(Enum):
    PLAIN = "plain-text"
    JSON = "json"


class Command(Enum):
    """What we say. All fit the 128 bytes that Asterisk reads of a text message."""

    FLUSH_MEDIA = "FLUSH_MEDIA"
    HANGUP = "HANGUP"


@dataclass(frozen=True, slots=True)
class MediaStart:
    """The call begins. `variables` are the channel's, without leading underscores; JSON only."""

    rate: int
    channel: str
    connection_id: str
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audio:
    """s16le mono sound at the rate of MEDIA_START."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class DtmfEnd:
    key: str


@dataclass(frozen=True, slots=True)
class MediaXoff:
    """Asterisk's queue is nearly full: send nothing until MediaXon."""


@dataclass(frozen=True, slots=True)
class MediaXon:
    pass


@dataclass(frozen=True, slots=True)
class Other:
    """An event that asks for nothing here: STATUS, QUEUE_DRAINED, ERROR, or one of a later Asterisk."""

    name: str


Event = MediaStart | Audio | DtmfEnd | MediaXoff | MediaXon | Other


class Decoder:
    """One message in, one event out. Raises RemoteProtocolError.

    `spelling` is how Asterisk writes, known after the first text message.
    """

    def __init__(self) -> None:
        self.spelling = Spelling.PLAIN
        self._started = False

    def text(self, message: str) -> Event:
        if len(message) > MAX_TEXT:
            raise RemoteProtocolError(f"a text message of {len(message)} characters")
        if message.lstrip().startswith("{"):
            self.spelling = Spelling.JSON
            name, values = _parse_json(message)
        else:
            self.spelling = Spelling.PLAIN
            name, values = _parse_plain(message)
        if (name == "MEDIA_START") == self._started:
            raise RemoteProtocolError(
                "MEDIA_START came twice" if self._started else "MEDIA_START must come first"
            )
        event = _event(name, values)
        self._started = True
        return event

    def binary(self, message: bytes) -> Audio:
        if not self._started:
            raise RemoteProtocolError("sound came before MEDIA_START")
        if not message or len(message) % 2:
            raise RemoteProtocolError(f"sound of {len(message)} bytes is not whole samples")
        return Audio(message)


def encode_command(command: Command, spelling: Spelling) -> str:
    if spelling is Spelling.JSON:
        return json.dumps({"command": command.value})
    return command.value


def _parse_plain(message: str) -> tuple[str, dict[str, Any]]:
    name, *words = message.split() or [""]
    pairs = (word.partition(":") for word in words)
    return name, {key: value for key, _, value in pairs}


def _parse_json(message: str) -> tuple[str, dict[str, Any]]:
    try:
        values = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("a text message is not JSON") from error
    if not isinstance(values, dict) or not isinstance(values.get("event"), str):
        raise RemoteProtocolError("a JSON message has no event")
    return values["event"], values


def _event(name: str, values: Mapping[str, Any]) -> Event:
    match name:
        case "MEDIA_START":
            return _media_start(values)
        case "DTMF_END":
            key = values.get("digit")
            if not isinstance(key, str) or len(key) != 1 or not "!" <= key <= "~":
                raise RemoteProtocolError("DTMF_END has no digit")
            return DtmfEnd(key)
        case "MEDIA_XOFF":
            return MediaXoff()
        case "MEDIA_XON":
            return MediaXon()
        case _:
            return Other(name)


def _media_start(values: Mapping[str, Any]) -> MediaStart:
    media_format = values.get("format")
    if not isinstance(media_format, str) or media_format not in RATES:
        raise RemoteProtocolError(
            f"the channel's format is {_string(media_format)[:20]!r}, not signed linear",
            how_to_fix=["put c(slin16) into the dial string: Dial(WebSocket/…/c(slin16)…)"],
        )
    variables = values.get("channel_variables")
    if not isinstance(variables, dict):
        variables = {}
    return MediaStart(
        rate=RATES[media_format],
        channel=_string(values.get("channel")),
        connection_id=_string(values.get("connection_id")),
        # An inherited variable still wears the underscores that made it so.
        variables={name.lstrip("_"): _string(value) for name, value in variables.items()},
    )


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
