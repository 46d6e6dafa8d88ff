import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.lab import sdp
from engine.lab.sdp import AudioDescription

ASTERISK = (
    "v=0\r\no=- 1 4 IN IP4 127.0.0.1\r\ns=Asterisk\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 12214 RTP/AVP 0 8 9 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    "a=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n"
    "a=ptime:20\r\na=maxptime:140\r\na=sendrecv\r\n"
)


def test_asterisk_offer() -> None:
    assert sdp.parse(ASTERISK) == AudioDescription("127.0.0.1", 12214, (0, 8, 9, 101), 101)


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
@pytest.mark.parametrize("event_type", [101, 96, None])
def test_what_is_built_is_parsed(direction: str, event_type: int | None) -> None:
    types = (0,) if event_type is None else (0, event_type)
    audio = AudioDescription("127.0.0.1", 4000, types, event_type, direction)
    assert sdp.parse(sdp.build(audio, session=1, version=2)) == audio


def test_hold_is_answered_with_recvonly() -> None:
    held = sdp.parse(ASTERISK.replace("sendrecv", "sendonly"))
    assert held.answer_direction == "recvonly"


def test_the_stream_has_its_own_address_and_others_do_not_count() -> None:
    text = (
        "v=0\nc=IN IP4 192.0.2.1\n"
        "m=video 5000 RTP/AVP 31\nc=IN IP4 192.0.2.2\na=sendonly\n"
        "m=audio 6000/2 RTP/AVP 0 97\nc=IN IP4 192.0.2.3/127\na=rtpmap:97 telephone-event/8000\n"
        "m=audio 7000 RTP/AVP 0\nc=IN IP4 192.0.2.4\na=inactive\n"
    )
    assert sdp.parse(text) == AudioDescription("192.0.2.3", 6000, (0, 97), 97, "sendrecv")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=0\nc=IN IP4 127.0.0.1\n",
        "v=0\nm=audio 4000 RTP/AVP 0\n",
        "c=IN IP4 127.0.0.1\nm=audio many RTP/AVP 0\n",
        "c=IN IP4 127.0.0.1\nm=audio 70000 RTP/AVP 0\n",
        "c=IN IP6 ::1\nm=audio 4000 RTP/AVP 0\n",
        "c=IN IP4 somewhere\nm=audio 4000 RTP/AVP 0\n",
        "c=IN IP4 127.0.0.1\nm=audio \n",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        sdp.parse(text)


@given(st.text(alphabet="vcma=: \n0123456789IN4P./audiortmp", max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        audio = sdp.parse(text)
    except RemoteProtocolError:
        return
    assert 0 <= audio.port < 65536
