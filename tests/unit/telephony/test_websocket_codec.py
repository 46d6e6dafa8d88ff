from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.telephony import websocket_codec as codec
from engine.telephony.websocket_codec import (
    Audio,
    Command,
    Decoder,
    DtmfEnd,
    MediaStart,
    MediaXoff,
    MediaXon,
    Other,
    Spelling,
)

PLAIN = (
    "MEDIA_START connection_id:media_connection1 channel:WebSocket/offhook-0x7f "
    "channel_id:1700000000.1 format:slin16 optimal_frame_size:640 ptime:20"
)
JSON = json.dumps(
    {
        "event": "MEDIA_START",
        "connection_id": "media_connection1",
        "channel": "WebSocket/offhook-0x7f",
        "channel_id": "1700000000.1",
        "format": "slin",
        "optimal_frame_size": 320,
        "ptime": 20,
        "channel_variables": {"__OFFHOOK_UUID": "x-y", "N": "1"},
    }
)


def started(message: str = PLAIN) -> Decoder:
    decoder = Decoder()
    decoder.text(message)
    return decoder


def test_media_start_in_plain_text() -> None:
    decoder = Decoder()
    assert decoder.text(PLAIN) == MediaStart(
        16000, "WebSocket/offhook-0x7f", "media_connection1", {}
    )
    assert decoder.spelling is Spelling.PLAIN


def test_media_start_in_json() -> None:
    decoder = Decoder()
    start = decoder.text(JSON)
    assert isinstance(start, MediaStart) and start.rate == 8000
    assert start.variables == {"OFFHOOK_UUID": "x-y", "N": "1"}
    assert decoder.spelling is Spelling.JSON


@pytest.mark.parametrize(("name", "rate"), codec.RATES.items())
def test_every_rate(name: str, rate: int) -> None:
    start = Decoder().text(f"MEDIA_START format:{name}")
    assert isinstance(start, MediaStart) and start.rate == rate


@pytest.mark.parametrize(
    ("plain", "values", "event"),
    [
        ("DTMF_END digit:# channel_id:1", {"event": "DTMF_END", "digit": "#"}, DtmfEnd("#")),
        ("MEDIA_XOFF", {"event": "MEDIA_XOFF", "channel_id": "1"}, MediaXoff()),
        ("MEDIA_XON", {"event": "MEDIA_XON"}, MediaXon()),
        ("QUEUE_DRAINED", {"event": "QUEUE_DRAINED"}, Other("QUEUE_DRAINED")),
        ("STATUS queue_length:0", {"event": "STATUS", "queue_length": 0}, Other("STATUS")),
        ("ERROR error_text:no way out", {"event": "ERROR", "error_text": "x"}, Other("ERROR")),
    ],
)
def test_events(plain: str, values: dict[str, object], event: codec.Event) -> None:
    assert started().text(plain) == event
    assert started(JSON).text(json.dumps(values)) == event


def test_sound() -> None:
    assert started().binary(b"\x01\x02") == Audio(b"\x01\x02")


@pytest.mark.parametrize("message", [b"", b"\x00", bytes(641)])
def test_sound_is_whole_samples(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        started().binary(message)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "MEDIA_START",
        "MEDIA_START format:ulaw",
        "DTMF_END digit:1",
        "{",
        "[]",
        "{}",
        '{"event": 1}',
        '{"event": "MEDIA_START", "format": ["slin"]}',
        "[" * 50_000,
        "{" + '"a":{' * 50_000,
        "MEDIA_START " + "x" * codec.MAX_TEXT,
    ],
)
def test_what_cannot_come_first(message: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Decoder().text(message)


def test_sound_cannot_come_first() -> None:
    with pytest.raises(RemoteProtocolError, match="before MEDIA_START"):
        Decoder().binary(b"\x00\x00")


@pytest.mark.parametrize("message", [PLAIN, "DTMF_END", "DTMF_END digit:", "DTMF_END digit:12"])
def test_what_cannot_follow(message: str) -> None:
    with pytest.raises(RemoteProtocolError):
        started().text(message)


@pytest.mark.parametrize("command", Command)
def test_commands_in_both_spellings(command: Command) -> None:
    assert codec.encode_command(command, Spelling.PLAIN) == command.value
    spelled = codec.encode_command(command, Spelling.JSON)
    assert json.loads(spelled) == {"command": command.value}
    assert len(spelled) < 128


@given(st.lists(st.text(max_size=80) | st.binary(max_size=10), max_size=6), st.booleans())
def test_garbage_raises_one_thing_only(messages: list[str | bytes], begun: bool) -> None:
    decoder = started() if begun else Decoder()
    for message in messages:
        with contextlib.suppress(RemoteProtocolError):
            event = decoder.text(message) if isinstance(message, str) else decoder.binary(message)
            assert isinstance(event, codec.Event)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(["MEDIA_START", "DTMF_END", "MEDIA_XOFF", "STATUS"]),
    st.dictionaries(
        st.sampled_from(["format", "digit", "channel", "connection_id", "channel_variables"]),
        json_values,
    ),
    st.booleans(),
)
def test_json_of_any_shape(name: str, values: dict[str, object], begun: bool) -> None:
    decoder = started() if begun else Decoder()
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(decoder.text(json.dumps({"event": name, **values})), codec.Event)
