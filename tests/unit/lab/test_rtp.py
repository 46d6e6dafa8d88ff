import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.lab import rtp
from engine.lab.rtp import RtpPacket, TelephoneEvent

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
)


@given(packets)
def test_what_is_built_is_parsed(packet: RtpPacket) -> None:
    assert rtp.parse(packet.build()) == packet


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        packet = rtp.parse(data)
    except RemoteProtocolError:
        return
    assert len(packet.payload) <= len(data) - 12


def test_header_to_the_byte() -> None:
    packet = RtpPacket(0, 0x1234, 0x01020304, 0xAABBCCDD, b"\xff", marker=True)
    assert packet.build().hex() == "8080123401020304aabbccddff"


def test_sources_extension_and_padding_are_no_payload() -> None:
    head = bytes([0x80 | 0x20 | 0x10 | 2, 0]) + bytes(10)
    sources = bytes(8)
    extension = b"\xbe\xde\x00\x01" + bytes(4)
    data = head + sources + extension + b"sound" + b"\x00\x00\x03"
    assert rtp.parse(data).payload == b"sound"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\x40" + bytes(11),  # version 1
        b"\x8f" + bytes(11),  # fifteen sources, none there
        b"\x90" + bytes(11),  # an extension that is not there
        b"\xa0" + bytes(12),  # padding of zero
        b"\xa0" + bytes(11) + b"\xff",  # more padding than packet
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        rtp.parse(data)


@pytest.mark.parametrize("key", rtp.KEYS)
def test_keys(key: str) -> None:
    steps = list(rtp.key_press(key, 5))
    assert [step.duration for step in steps] == [160, 320, 480, 640, 800, 800, 800, 800]
    assert [step.end for step in steps] == [False] * 5 + [True] * 3
    assert [rtp.parse_event(step.build()) for step in steps] == steps


def test_event_to_the_byte() -> None:
    assert TelephoneEvent("#", 800, end=True).build().hex() == "0b8a0320"


@pytest.mark.parametrize("payload", [b"", b"\x01\x0a\x00", b"\x10\x0a\x00\xa0"])
def test_no_keys(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        rtp.parse_event(payload)
