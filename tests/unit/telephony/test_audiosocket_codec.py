from __future__ import annotations

import contextlib
import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import LocalProtocolError, RemoteProtocolError
from engine.telephony import audiosocket_codec as codec
from engine.telephony.audiosocket_codec import Audio, Decoder, Dtmf, Error, Event, Hangup, Identify

CALL = uuid.UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
HELLO = b"\x01\x00\x10" + CALL.bytes


def events(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    found = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (event := decoder.next_event()) is not None:
            found.append(event)
    return found


def test_a_call_to_the_byte() -> None:
    wire = HELLO + b"\x10\x00\x04\x01\x02\x03\x04" + b"\x03\x00\x015" + b"\x12\x00\x02\xff\x7f"
    assert events(wire) == [
        Identify("0f8fad5b-d9cb-469f-a165-70867728950e"),
        Audio(8000, b"\x01\x02\x03\x04"),
        Dtmf("5"),
        Audio(16000, b"\xff\x7f"),
    ]


@pytest.mark.parametrize(
    ("wire", "last"),
    [(b"\x00\x00\x00", Hangup()), (b"\xff\x00\x00", Error(0)), (b"\xff\x00\x01\x04", Error(4))],
)
def test_nothing_follows_the_end(wire: bytes, last: Event) -> None:
    assert events(HELLO + wire)[-1] == last
    with pytest.raises(RemoteProtocolError, match="state ENDED"):
        events(HELLO + wire + b"\x10\x00\x02\x00\x00")


@pytest.mark.parametrize(("kind", "rate"), codec.RATES.items())
def test_every_rate_both_ways(kind: int, rate: int) -> None:
    message = codec.encode_audio(b"\x01\x00", rate)
    assert message == bytes([kind, 0, 2, 1, 0])
    assert events(HELLO, message)[1] == Audio(rate, b"\x01\x00")


def test_the_longest_audio_is_taken() -> None:
    pcm = bytes(65534)
    assert events(HELLO, b"\x10\xff\xfe" + pcm)[1] == Audio(8000, pcm)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"\x10", "0x10 .Audio. cannot come in state START"),
        (b"\x03", "cannot come in state START"),
        (b"\x00", "cannot come in state START"),
        (b"GET / HTTP/1.1", "unknown kind 0x47"),
        (b"\x01\x00\x0f", "0x01 cannot have 15 bytes"),
        (b"\x01\x00\x24", "0x01 cannot have 36 bytes"),
        (HELLO + b"\x01", "cannot come in state TALKING"),
        (HELLO + b"\x02", "unknown kind 0x02"),
        (HELLO + b"\x19", "unknown kind 0x19"),
        (HELLO + b"\x10\x00\x00", "0x10 cannot have 0 bytes"),
        (HELLO + b"\x10\x01\x41", "321 bytes ends inside a sample"),
        (HELLO + b"\x10\xff\xff", "65535 bytes ends inside a sample"),
        (HELLO + b"\x03\x00\x02", "0x03 cannot have 2 bytes"),
        (HELLO + b"\x03\x00\x01\n", "0x0a is not a DTMF key"),
        (HELLO + b"\x00\x00\x01", "0x00 cannot have 1 bytes"),
        (HELLO + b"\xff\x00\x02", "0xff cannot have 2 bytes"),
    ],
)
def test_what_the_protocol_does_not_allow(wire: bytes, message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        events(wire)


def test_a_broken_decoder_stays_broken() -> None:
    decoder = Decoder()
    decoder.feed(b"\x55")
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            decoder.next_event()
        decoder.feed(HELLO)


def test_bad_messages_are_known_before_their_payload() -> None:
    decoder = Decoder()
    decoder.feed(b"\x01\x00\xff")
    with pytest.raises(RemoteProtocolError):
        decoder.next_event()


@pytest.mark.parametrize("pcm", [b"", b"\x00", bytes(321), bytes(65536)])
def test_what_we_never_send(pcm: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        codec.encode_audio(pcm, 8000)


def test_a_rate_without_a_kind() -> None:
    with pytest.raises(LocalProtocolError, match="22050"):
        codec.encode_audio(b"\x00\x00", 22050)


def test_the_polite_end() -> None:
    assert codec.encode_hangup() == b"\x00\x00\x00"


pcm = st.binary(min_size=1, max_size=700).map(lambda half: half * 2)
audio = st.builds(Audio, st.sampled_from(sorted(codec.RATES.values())), pcm)
dtmf = st.builds(Dtmf, st.sampled_from("0123456789*#ABCD"))


def wire_of(event: Event) -> bytes:
    match event:
        case Audio(rate, pcm):
            return codec.encode_audio(pcm, rate)
        case Dtmf(key):
            return struct.pack(">BHc", 3, 1, key.encode())
    raise AssertionError(event)


@given(st.lists(audio | dtmf, max_size=8), st.data())
def test_any_cut_of_the_bytes_gives_the_same_events(talk: list[Event], data: st.DataObject) -> None:
    wire = HELLO + b"".join(map(wire_of, talk))
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=20)))
    chunks = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert events(*chunks) == [Identify(str(CALL)), *talk]


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_garbage_raises_one_thing_only(chunks: list[bytes], identified: bool) -> None:
    found: list[Event] = []
    with contextlib.suppress(RemoteProtocolError):
        found = events(HELLO if identified else b"", *chunks)
    assert all(isinstance(event, Event) for event in found)
