"""SIP messages (RFC 3261) and digest answers (RFC 2617), without sockets."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from engine.errors import RemoteProtocolError

Headers = tuple[tuple[str, str], ...]

_COMPACT = {
    "c": "Content-Type",
    "f": "From",
    "i": "Call-ID",
    "k": "Supported",
    "l": "Content-Length",
    "m": "Contact",
    "s": "Subject",
    "t": "To",
    "v": "Via",
}
REASONS = {
    100: "Trying",
    180: "Ringing",
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    603: "Decline",
}
_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+")
_AUTH_PARAMETER = re.compile(r'([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^,\s]+))')


@dataclass(frozen=True, slots=True)
class Message:
    """What requests and responses share. Header names are compared without case."""

    headers: Headers
    body: bytes = b""

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]

    def require(self, name: str) -> str:
        """Raises RemoteProtocolError when the header is missing."""
        value = self.get(name)
        if value is None:
            raise RemoteProtocolError(f"the SIP message has no {name}")
        return value

    @property
    def cseq(self) -> tuple[int, str]:
        number, _, method = self.require("CSeq").partition(" ")
        if not number.isdecimal() or not method.strip():
            raise RemoteProtocolError("the CSeq cannot be read")
        return int(number), method.strip()

    def _build(self, start: str) -> bytes:
        lines = [start]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body


@dataclass(frozen=True, slots=True)
class Request(Message):
    method: str = ""
    uri: str = ""

    def build(self) -> bytes:
        return self._build(f"{self.method} {self.uri} SIP/2.0")


@dataclass(frozen=True, slots=True)
class Response(Message):
    status: int = 0
    reason: str = ""

    def build(self) -> bytes:
        return self._build(f"SIP/2.0 {self.status} {self.reason}")


def parse(data: bytes) -> Request | Response:
    """One datagram -> one message. Raises RemoteProtocolError.

    Compact header names are expanded, folded lines joined; Content-Length is checked and not kept.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        raise RemoteProtocolError("the SIP message has no end of headers")
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("the SIP headers are not UTF-8") from error
    headers, length = _headers(lines[1:])
    if length is not None and length > len(rest):
        raise RemoteProtocolError("the SIP body is shorter than its Content-Length")
    body = rest if length is None else rest[:length]
    if lines[0].startswith("SIP/2.0 "):
        _, status, *reason = lines[0].split(" ", 2)
        if not re.fullmatch(r"[1-6]\d\d", status, re.ASCII):
            raise RemoteProtocolError("the SIP status line cannot be read")
        return Response(headers, body, int(status), "".join(reason))
    parts = lines[0].split(" ")
    if len(parts) != 3 or parts[2] != "SIP/2.0" or not parts[1] or not _TOKEN.fullmatch(parts[0]):
        raise RemoteProtocolError("the SIP request line cannot be read")
    return Request(headers, body, parts[0], parts[1])


def _headers(lines: Iterable[str]) -> tuple[Headers, int | None]:
    unfolded: list[str] = []
    for line in lines:
        if line[:1] in (" ", "\t"):
            if not unfolded:
                raise RemoteProtocolError("the first SIP header is a continuation")
            unfolded[-1] = f"{unfolded[-1]} {line.strip()}"
        else:
            unfolded.append(line)
    headers: list[tuple[str, str]] = []
    length: int | None = None
    for line in unfolded:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not _TOKEN.fullmatch(name):
            raise RemoteProtocolError("a SIP header cannot be read")
        name = _COMPACT.get(name.lower(), name)
        if name.lower() != "content-length":
            headers.append((name, value))
        elif value.isascii() and value.isdecimal() and len(value) < 10:
            length = int(value)
        else:
            raise RemoteProtocolError("the SIP Content-Length cannot be read")
    return tuple(headers), length


def reply(
    request: Request,
    status: int,
    *,
    to_tag: str = "",
    headers: Headers = (),
    body: str = "",
) -> Response:
    """A response that mirrors Via, From, To, Call-ID and CSeq, as section 8.2.6.2 asks."""
    mirrored: list[tuple[str, str]] = [("Via", via) for via in request.get_all("Via")]
    for name in ("From", "To", "Call-ID", "CSeq"):
        value = request.require(name)
        if name == "To" and to_tag and not tag(value):
            value += f";tag={to_tag}"
        mirrored.append((name, value))
    return Response((*mirrored, *headers), body.encode(), status, REASONS.get(status, ""))


def address_uri(value: str) -> str:
    """The URI of a From, To or Contact value: `"A" <sip:a@b>;tag=1` -> `sip:a@b`."""
    if (match := re.search(r"<([^>]*)>", value)) is not None:
        return match[1]
    return value.partition(";")[0].strip()


def tag(value: str) -> str:
    """The tag of a From or To value, or an empty string."""
    match = re.search(r";\s*tag\s*=\s*([^;\s>]+)", value.rpartition(">")[2])
    return match[1] if match else ""


def host_port(uri: str) -> tuple[str, int]:
    """`sip:user@host:port;x=y` -> (host, port), 5060 by default. Raises RemoteProtocolError."""
    match = re.fullmatch(r"sip:(?:[^@]*@)?([^:;?\s]+)(?::(\d{1,5}))?(?:[;?].*)?", uri)
    if match is None:
        raise RemoteProtocolError("not a sip: URI with an IPv4 address or a name")
    return match[1], int(match[2] or 5060)


def branch() -> str:
    """A new Via branch; the prefix is the RFC's magic cookie."""
    return f"z9hG4bK{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 or 407 asks for."""

    realm: str
    nonce: str
    qop: str = ""
    opaque: str | None = None


def parse_challenge(value: str) -> Challenge:
    """A WWW-Authenticate or Proxy-Authenticate value. Raises RemoteProtocolError unless it is MD5."""
    scheme, _, rest = value.partition(" ")
    found = {
        match[1].lower(): match[2] if match[2] is not None else match[3]
        for match in _AUTH_PARAMETER.finditer(rest)
    }
    if scheme.lower() != "digest" or "realm" not in found or "nonce" not in found:
        raise RemoteProtocolError("the challenge is not a digest")
    if found.get("algorithm", "MD5").upper() != "MD5":
        raise RemoteProtocolError(f"digest algorithm {found['algorithm']} is not spoken here")
    offered = [item.strip() for item in found.get("qop", "").split(",") if item.strip()]
    if offered and "auth" not in offered:
        raise RemoteProtocolError("the challenge offers no qop we speak")
    return Challenge(found["realm"], found["nonce"], "auth" if offered else "", found.get("opaque"))


def authorization(
    challenge: Challenge,
    *,
    method: str,
    uri: str,
    username: str,
    password: str,
    cnonce: str = "",
    count: int = 1,
) -> str:
    """The Authorization value that answers a challenge (RFC 2617, section 3.2.2)."""
    cnonce = cnonce or secrets.token_hex(8)
    secret = _md5(f"{username}:{challenge.realm}:{password}")
    what = _md5(f"{method}:{uri}")
    middle = f"{challenge.nonce}:{count:08x}:{cnonce}:auth" if challenge.qop else challenge.nonce
    parts = [
        f'username="{username}"',
        f'realm="{challenge.realm}"',
        f'nonce="{challenge.nonce}"',
        f'uri="{uri}"',
        f'response="{_md5(f"{secret}:{middle}:{what}")}"',
        "algorithm=MD5",
    ]
    if challenge.qop:
        parts += [f'cnonce="{cnonce}"', f"nc={count:08x}", "qop=auth"]
    if challenge.opaque is not None:
        parts.append(f'opaque="{challenge.opaque}"')
    return "Digest " + ", ".join(parts)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
