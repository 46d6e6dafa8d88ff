"""The little of SDP (RFC 4566, RFC 3264) that one µ-law call needs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from engine.errors import RemoteProtocolError
from engine.lab.rtp import PCMU, TELEPHONE_EVENT

_MIRROR = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}


@dataclass(frozen=True, slots=True)
class AudioDescription:
    """Where one side wants its sound, and how. `event_type` is None without telephone-event."""

    host: str
    port: int
    payload_types: tuple[int, ...] = (PCMU, TELEPHONE_EVENT)
    event_type: int | None = TELEPHONE_EVENT
    direction: str = "sendrecv"

    @property
    def answer_direction(self) -> str:
        """What the other side answers: hold (sendonly) is answered with recvonly."""
        return _MIRROR[self.direction]


def build(audio: AudioDescription, *, session: int, version: int) -> str:
    """An offer or answer of PCMU and telephone-event. `session` and `version` fill the o= line."""
    lines = [
        "v=0",
        f"o=- {session} {version} IN IP4 {audio.host}",
        "s=-",
        f"c=IN IP4 {audio.host}",
        "t=0 0",
    ]
    formats = [str(PCMU)]
    attributes = [f"a=rtpmap:{PCMU} PCMU/8000"]
    if audio.event_type is not None:
        formats.append(str(audio.event_type))
        attributes.append(f"a=rtpmap:{audio.event_type} telephone-event/8000")
        attributes.append(f"a=fmtp:{audio.event_type} 0-15")
    lines.append(f"m=audio {audio.port} RTP/AVP {' '.join(formats)}")
    lines += [*attributes, "a=ptime:20", f"a={audio.direction}"]
    return "\r\n".join(lines) + "\r\n"


def parse(text: str) -> AudioDescription:
    """The first audio stream of a description. Raises RemoteProtocolError when it has none."""
    host = ""
    direction = "sendrecv"
    port: int | None = None
    payload_types: tuple[int, ...] = ()
    event_type: int | None = None
    section = "session"
    try:
        for line in text.splitlines():
            kind, _, value = line.strip().partition("=")
            if kind == "m":
                section = "audio" if value.startswith("audio ") and port is None else "other"
                if section == "audio":
                    _, number, _, *formats = value.split()
                    port = int(number.partition("/")[0])
                    payload_types = tuple(int(item) for item in formats)
            elif section == "other":
                continue
            elif kind == "c":
                host = _address(value)
            elif kind == "a" and value in _MIRROR:
                direction = value
            elif kind == "a" and value.startswith("rtpmap:") and section == "audio":
                number, encoding = value.removeprefix("rtpmap:").split(maxsplit=1)
                if encoding.strip().lower().startswith("telephone-event/8000"):
                    event_type = int(number)
    except (ValueError, IndexError) as error:
        raise RemoteProtocolError(f"a line of the SDP cannot be read: {error}") from error
    if port is None or not host:
        raise RemoteProtocolError("the SDP names no audio stream or no address")
    if not 0 <= port < 65536:
        raise RemoteProtocolError(f"the SDP names port {port}")
    return AudioDescription(host, port, payload_types, event_type, direction)


def _address(value: str) -> str:
    _, family, address = value.split()
    host = address.partition("/")[0]
    if family != "IP4":
        raise ValueError(f"{family} is not spoken here")
    return str(ipaddress.IPv4Address(host))
