"""One AMI connection: panoramisk's framing and parsing, without its Manager.

panoramisk 1.4 has three layers. `Action` and `Message` turn fields into text and back, `AMIProtocol` cuts the
stream into messages, `Manager` reconnects, replays, pings and dispatches. Every fault that loses or doubles a
call lives in `Manager` or in the code that serves it, so we stop below it:

* A connection is an object that dies with its socket, and so do its unanswered actions. `Manager` keeps them and
  sends them again after a reconnect, which dials people twice.
* Only a `Response` answers an action; an `Event` always goes to the handlers. panoramisk takes the events that
  carry our ActionID as part of the answer, so that OriginateResponse never reaches a handler, and it fails on
  "successfully queued" answers (`KeyError: 'async'`) and on a repeated `Message:` header.
* Bytes are cut into messages before they become text. panoramisk decodes each TCP chunk alone and drops the letter
  that a chunk border cuts; it also loses the last header of a message when its value is empty. What is not UTF-8
  becomes U+FFFD here.
* panoramisk logs whole actions, with telephone numbers in them; here its logger is shut.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from panoramisk.actions import Action
from panoramisk.ami_protocol import AMIProtocol
from panoramisk.message import Message

from engine.errors import AmiUnavailable, LocalProtocolError

log = logging.getLogger(__name__)

_quiet = logging.getLogger(f"{__name__}.panoramisk")
_quiet.setLevel(logging.CRITICAL)

Fields = Mapping[str, str | Sequence[str]]

MAX_LINE = 1000
"""Bytes in `Key: value`. Asterisk's line buffer is 1025 bytes; it throws a longer line away without an answer."""
MAX_HEADERS = 120
"""Asterisk keeps 128 headers of an action and ignores the rest (AST_MAX_MANHEADERS)."""
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes without an end of message after which the peer is not speaking AMI."""


class AmiWire(AMIProtocol):  # type: ignore[misc]  # panoramisk ships no types
    """A connected AMI socket, logged in or not. `lost` is done when it is gone."""

    encoding = "utf8"

    def __init__(self, on_event: Callable[[Mapping[str, str]], None]) -> None:
        self._on_event = on_event
        self._buffer = b""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def request(self, name: str, fields: Fields) -> asyncio.Future[Mapping[str, str]]:
        """Write one action now. The future gets the Response's fields, or AmiUnavailable when the link dies.

        Raises LocalProtocolError for what AMI cannot carry, AmiUnavailable when the link is already gone.
        """
        check_fields(name, fields)
        if self.lost.done() or self.transport.is_closing():
            raise AmiUnavailable("the AMI link is gone")
        action = Action({"Action": name, **{key: _plain(value) for key, value in fields.items()}})
        self.send(action)
        answer: asyncio.Future[Mapping[str, str]] = action.future
        # A caller that stops waiting must not leave an entry behind.
        answer.add_done_callback(lambda _: self.responses.pop(action.id, None))
        return answer

    # --- what asyncio and AMIProtocol call ----------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.log = _quiet

    def data_received(self, data: bytes) -> None:
        *blocks, self._buffer = (self._buffer + data).split(b"\r\n\r\n")
        for block in blocks:
            message = Message.from_line(block.decode("utf-8", "replace").lstrip("\r\n"))
            if message is not None:  # neither a Response nor an Event
                self.handle_message(message)
        if len(self._buffer) > MAX_MESSAGE:
            log.error("AMI peer sent a message without an end; dropping the link")
            self.transport.abort()

    def handle_message(self, message: Message) -> None:
        fields = {
            key: "\n".join(value) if isinstance(value, list) else value
            for key, value in message.items()
            if key
            != "content"  # panoramisk's own, for an answer format that ended with Asterisk 13
        }
        if "event" in message:
            self._on_event(fields)
            return
        action = self.responses.pop(message.action_id, None)
        if action is not None and not action.future.done():
            action.future.set_result(fields)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        waiting = {action.future for action in self.responses.values()}
        self.responses.clear()
        if not self.lost.done():
            self.lost.set_result(None)
        for answer in waiting:
            if not answer.done():
                answer.set_exception(AmiUnavailable("the AMI link was lost before the answer"))

    def close(self) -> None:
        """Drop the connection now: whatever is unsent is unsent."""
        self.transport.abort()


def check_fields(name: str, fields: Fields) -> None:
    """Raise LocalProtocolError for what would break out of the action or be cut by Asterisk."""
    lines = [("Action", name)]
    for key, value in fields.items():
        lines += [(key, item) for item in ([value] if isinstance(value, str) else value)]
    if len(lines) > MAX_HEADERS:
        raise LocalProtocolError(f"AMI {name}: {len(lines)} headers, Asterisk reads {MAX_HEADERS}")
    for key, item in lines:
        if not key.replace("-", "").replace("_", "").isalnum() or not key.isascii():
            raise LocalProtocolError(f"AMI {name}: {key!r} is not a header name")
        if any(control in item for control in "\r\n\0"):
            raise LocalProtocolError(f"AMI {name}: a line break inside {key}")
        try:
            size = len(f"{key}: {item}".encode())
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"AMI {name}: {key} is not text") from error
        if size > MAX_LINE:
            raise LocalProtocolError(f"AMI {name}: {key} is {size} bytes, the limit is {MAX_LINE}")


def _plain(value: str | Sequence[str]) -> str | list[str]:
    return value if isinstance(value, str) else list(value)
