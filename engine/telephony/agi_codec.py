"""AGI on the wire, from the script's side: bytes in, events out, no sockets.

Asterisk first sends what it knows, one `agi_name: value` a line and an empty line at the end, then answers
our commands, one at a time:

    200 result=1 (value)                     done
    510 Invalid or unknown command           also 511: not on a dead channel
    520-Invalid command syntax. …            a first line, any number more, and at last
    520 End of proper usage.

    START  --Environment-->  READY  --Reply, Hangup-->  READY

A lone HANGUP line may come at any time once the environment is over.

Source of the facts: res/res_agi.c of Asterisk 22.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import LocalProtocolError, RemoteProtocolError

MAX_LINE = 8_192
MAX_ENVIRONMENT_LINES = 256
MAX_ENVIRONMENT = 65_536
MAX_REPLY_LINES = 500
MAX_COMMAND = 2_000
"""Asterisk reads commands into 2048 bytes; of a longer line the rest would be read as the next command."""

_KEY = re.compile(rb"agi_[a-z0-9_]{1,60}")
_REPLY = re.compile(r"(\d{3})([ -])(.*)", re.DOTALL)
_RESULT = re.compile(r"result=(-?\d*)(?: \((.*)\))?", re.DOTALL)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,79}")
# Controls (C0, DEL, C1) and the two separators of Unicode: none of them has business in a variable.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Environment:
    """What Asterisk knows about the call. Keys are in lower case and begin with `agi_`."""

    raw: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command. `result` is its number where it has one; `data` is what stood in
    parentheses; `text` is the whole of a refusal, its lines joined."""

    code: int
    result: int | None = None
    data: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 200


@dataclass(frozen=True, slots=True)
class Hangup:
    """The channel is gone; only commands for dead channels work now."""


Event = Environment | Reply | Hangup


class Decoder:
    """Eats bytes however they were cut, yields events.

    Text is decoded as UTF-8, what is not UTF-8 is replaced. Drain `next_event` after each `feed`. Once it has
    raised, it raises for ever.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._environment: dict[str, str] | None = {}
        self._environment_bytes = 0
        self._refusal: list[str] = []
        self._broken: str | None = None

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed. Raises RemoteProtocolError."""
        if self._broken is not None:
            raise RemoteProtocolError(self._broken)
        try:
            while (line := self._next_line()) is not None:
                event = (
                    self._reply_line(line)
                    if self._environment is None
                    else self._environment_line(line, self._environment)
                )
                if event is not None:
                    return event
        except RemoteProtocolError as error:
            self._broken = error.message
            self._buffer.clear()
            raise
        return None

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if end > MAX_LINE or (end < 0 and len(self._buffer) > MAX_LINE):
            raise RemoteProtocolError(f"a line of more than {MAX_LINE} bytes")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line.removesuffix(b"\r")

    def _environment_line(self, line: bytes, environment: dict[str, str]) -> Environment | None:
        if not line:
            if not environment:
                raise RemoteProtocolError("an empty environment")
            self._environment = None
            return Environment(environment)
        self._environment_bytes += len(line)
        if len(environment) >= MAX_ENVIRONMENT_LINES or self._environment_bytes > MAX_ENVIRONMENT:
            raise RemoteProtocolError("an environment that does not end")
        # A value may be empty, and Asterisk then still writes the space.
        key, colon, value = line.partition(b":")
        if not colon or not _KEY.fullmatch(key):
            raise RemoteProtocolError("a line of the environment is not `agi_name: value`")
        name = key.decode("ascii")
        if name in environment:
            # A value that smuggled in a line break would look like this.
            raise RemoteProtocolError(f"{name} came twice")
        environment[name] = value.removeprefix(b" ").decode("utf-8", "replace")
        return None

    def _reply_line(self, line: bytes) -> Reply | Hangup | None:
        text = line.decode("utf-8", "replace")
        if self._refusal:
            return self._usage_line(text)
        if not text:
            return None
        if text.strip() == "HANGUP":
            return Hangup()
        match = _REPLY.fullmatch(text)
        if match is None:
            raise RemoteProtocolError("a line is not an AGI reply")
        code, separator, rest = int(match[1]), match[2], match[3]
        if separator == "-":
            self._refusal.append(text)
            return None
        result = _RESULT.match(rest)
        if result is None:
            return Reply(code, text=rest)
        return Reply(code, _number(result[1]), result[2] or "", rest)

    def _usage_line(self, text: str) -> Reply | None:
        """A line of a 520 reply, which quotes the command's documentation and so may hold anything."""
        if len(self._refusal) >= MAX_REPLY_LINES:
            raise RemoteProtocolError("a reply that does not end")
        self._refusal.append(text)
        code = self._refusal[0][:3]
        if not text.startswith(f"{code} "):
            return None
        lines, self._refusal = self._refusal, []
        return Reply(int(code), text="\n".join(line.removeprefix(f"{code}-") for line in lines))


def _number(text: str) -> int | None:
    # Digits typed by a caller can be here too (`result=12345…`), and a lone minus.
    try:
        return int(text) if len(text) <= 32 else None
    except ValueError:
        return None


def quote(word: str) -> str:
    """One argument as Asterisk will read it back, whatever is in it.

    Quotes and backslashes are escaped; control characters, line breaks above all, become spaces.
    """
    clean = _CONTROLS.sub(" ", word)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def encode_command(name: str, *arguments: str) -> bytes:
    """One command line. `name` is ours (`SET VARIABLE`); the arguments may be anybody's.

    Raises LocalProtocolError when the name is not plain words or the line is longer than Asterisk reads.
    """
    if not re.fullmatch(r"[A-Z]+( [A-Z]+)*", name):
        raise LocalProtocolError(f"{name!r} is not an AGI command")
    line = " ".join([name, *map(quote, arguments)])
    # Lone surrogates, which stand for bytes that were no UTF-8, become question marks.
    command = line.encode("utf-8", "replace") + b"\n"
    if len(command) > MAX_COMMAND:
        raise LocalProtocolError(f"an AGI command of {len(command)} bytes; Asterisk would cut it")
    return command


def encode_set_variable(name: str, value: str) -> bytes:
    """SET VARIABLE. The name must be a plain one: with parentheses it would call a dialplan function.

    Raises LocalProtocolError.
    """
    if not _VARIABLE.fullmatch(name):
        raise LocalProtocolError(f"{name!r} is not a variable's name")
    return encode_command("SET VARIABLE", name, value)
