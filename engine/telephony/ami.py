"""AMI: events in, actions out, over a link that mends itself.

A link is made, logged in, pinged, and thrown away whole when anything is wrong with it; then comes the next one.
Nothing crosses from one link to the next: an action that lost its answer raises AmiUnavailable and is never sent
again, because only the caller knows whether a second try is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.aio import Background, backoff, cancel_and_wait
from engine.errors import AmiRefused, AmiUnavailable, LocalProtocolError
from engine.telephony.ami_wire import AmiWire, Fields

log = logging.getLogger(__name__)

Event = Mapping[str, str]
EventHandler = Callable[[Event], None]
LinkHandler = Callable[[bool], None]
Unsubscribe = Callable[[], None]

RETRY_LIMIT_S = 5.0
HANGUP_GRACE_S = 1.0
"""A failed Originate's Hangup event comes around its OriginateResponse, in either order."""


@dataclass(frozen=True, slots=True)
class OriginateResult:
    """How a call we placed ended its ringing.

    `cause` is the Q.850 cause of the Hangup event (17 busy, 19 no answer, 21 declined …), 0 when answered and
    when no channel was ever made, as for an endpoint that is unknown or not registered. `tech_cause` is the
    channel driver's own word (`SIP 486 …`), empty where Asterisk gives none.
    """

    channel_id: str
    answered: bool
    cause: int = 0
    tech_cause: str = ""


class AmiClient:
    """One AMI user on one Asterisk.

    `ping_s` is how long the link may be quiet before it is asked, `timeout_s` how long any answer may take: a
    frozen Asterisk is noticed within their sum.
    """

    def __init__(
        self,
        host: str,
        port: int,
        username: str,
        secret: str,
        *,
        ping_s: float = 5.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._address = (host, port)
        self._login: Fields = {"Username": username, "Secret": secret, "Events": "on"}
        self._ping_s = ping_s
        self._timeout_s = timeout_s
        self._wire: AmiWire | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._background = Background()
        self._event_handlers: dict[str, list[EventHandler]] = {}
        self._link_handlers: list[LinkHandler] = []
        self._last_error = "not started"

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to keep a link. Returns at once and never raises because Asterisk is down."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_linked(), name="ami")

    async def close(self) -> None:
        """Drop the link; actions under way raise AmiUnavailable. Safe to call twice."""
        keeper, self._keeper = self._keeper, None
        await cancel_and_wait(keeper)
        await self._background.close()

    async def __aenter__(self) -> AmiClient:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def wait_connected(self, timeout_s: float) -> None:
        """Wait until logged in. Raises AmiUnavailable, saying what went wrong last."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise self._no_link() from None

    def on_event(self, name: str, handler: EventHandler) -> Unsubscribe:
        """Call `handler` with the fields of each event `name`, or of all with `*`.

        It runs on the loop and must be quick. What it raises is logged and hurts neither the link nor others.
        Repeated headers are joined by a line feed.
        """
        handlers = self._event_handlers.setdefault(name.lower(), [])
        handlers.append(handler)
        return _remover(handlers, handler)

    def on_link(self, handler: LinkHandler) -> Unsubscribe:
        """Call `handler` with True when logged in and with False when that link is gone."""
        self._link_handlers.append(handler)
        return _remover(self._link_handlers, handler)

    # --- actions ---------------------------------------------------------------------------------

    async def action(
        self, name: str, fields: Fields | None = None, *, timeout_s: float | None = None
    ) -> Mapping[str, str]:
        """Send one action once and return the fields of its Response.

        Raises AmiUnavailable when there is no link, it dies, or no answer comes in time: the action may or may
        not have happened. Raises AmiRefused on `Response: Error`, LocalProtocolError for a line break in a field.
        """
        fields = dict(fields or {})
        if name.lower() == "originate":
            # Without it Asterisk answers only after the far end did, and serves no other action meanwhile.
            fields["Async"] = "true"
        return await self._request(self._require_wire(), name, fields, timeout_s)

    async def set_variable(self, channel: str, name: str, value: str) -> None:
        await self.action("Setvar", {"Channel": channel, "Variable": name, "Value": value})

    async def get_variable(self, channel: str, name: str) -> str:
        """The variable's value, empty when it is not set. Raises AmiRefused when there is no such channel."""
        answer = await self.action("Getvar", {"Channel": channel, "Variable": name})
        return answer.get("Value", "")

    async def redirect(self, channel: str, context: str, exten: str, priority: int = 1) -> None:
        """Take a channel out of whatever it does and go on in the dialplan there."""
        target = {"Context": context, "Exten": exten, "Priority": str(priority)}
        await self.action("Redirect", {"Channel": channel, **target})

    async def hang_up(self, channel: str, cause: int = 16) -> None:
        """Hang up by channel name or unique id. Raises AmiRefused when it is gone already."""
        await self.action("Hangup", {"Channel": channel, "Cause": str(cause)})

    async def command(self, cli: str) -> str:
        """The text the Asterisk console prints for `cli`, also when it says that the command failed.

        Raises AmiRefused when this user may not run it.
        """
        answer = await self._exchange(self._require_wire(), "Command", {"Command": cli}, None)
        if "Output" not in answer:
            _check("Command", answer)
        return answer.get("Output", "")

    async def originate(
        self,
        channel: str,
        *,
        context: str,
        exten: str,
        variables: Mapping[str, str],
        caller_id: str = "",
        timeout_s: float = 30,
    ) -> OriginateResult:
        """Place one call to `channel`; once answered it goes to `exten` in `context`. Waits for the outcome.

        Sent exactly once. Raises AmiRefused when Asterisk would not try, AmiUnavailable when the link was lost
        before the outcome was known: the call may be ringing. Cancelling hangs the call up.
        """
        wire = self._require_wire()
        channel_id = f"offhook-{uuid.uuid4()}"
        fields: dict[str, str | list[str]] = {
            "ActionID": channel_id,
            "ChannelId": channel_id,
            "Channel": channel,
            "Context": context,
            "Exten": exten,
            "Priority": "1",
            "Timeout": str(round(timeout_s * 1000)),
            "Async": "true",
            "Variable": [_assignment(name, value) for name, value in variables.items()],
        }
        if caller_id:
            fields["CallerID"] = caller_id
        try:
            with (
                self._first("OriginateResponse", "ActionID", channel_id) as outcome,
                self._first("Hangup", "Uniqueid", channel_id) as ended,
            ):
                await self._request(wire, "Originate", fields, None)
                await _first_of(wire.lost, outcome, timeout_s=timeout_s + self._timeout_s)
                if not outcome.done():
                    raise AmiUnavailable("the outcome of a call we placed was lost")
                if outcome.result().get("Response") == "Success":
                    return OriginateResult(channel_id, answered=True)
                # `Reason` is 0 for busy, declined, unknown and unavailable alike; the Hangup event knows.
                await _first_of(wire.lost, ended, timeout_s=HANGUP_GRACE_S)
                hangup = ended.result() if ended.done() else {}
        except asyncio.CancelledError:
            # Nobody waits for this call any more: do not let a person's phone ring for it.
            self._background.start(self._drop(channel_id), name="ami-drop")
            raise
        cause = hangup.get("Cause", "")
        return OriginateResult(
            channel_id,
            answered=False,
            cause=int(cause) if cause.isdecimal() else 0,
            tech_cause=hangup.get("TechCause", ""),
        )

    # --- the link --------------------------------------------------------------------------------

    async def _keep_linked(self) -> None:
        waits = backoff(limit_s=RETRY_LIMIT_S)
        while True:
            try:
                if await self._hold_a_link():
                    waits = backoff(limit_s=RETRY_LIMIT_S)
            except (
                Exception
            ):  # this task must outlive its own bugs: it is all that brings the link back
                log.exception("AMI link failed in a way nobody foresaw")
            await asyncio.sleep(next(waits))

    async def _hold_a_link(self) -> bool:
        """Make a link and stay until it is lost. False when none could be made."""
        try:
            wire = await self._log_in()
        except (OSError, AmiUnavailable, AmiRefused) as error:  # TimeoutError is an OSError
            reason = str(error) or "no answer in time"
            if reason != self._last_error:  # once, not at every attempt
                log.warning("AMI cannot be reached", extra={"error": reason})
            self._last_error = reason
            return False
        try:
            self._set_wire(wire)
            await self._watch(wire)
        finally:
            wire.close()
            self._set_wire(None)
        log.warning("AMI link lost", extra={"error": self._last_error})
        return True

    async def _log_in(self) -> AmiWire:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout_s):
            _, wire = await loop.create_connection(lambda: AmiWire(self._dispatch), *self._address)
        try:
            await self._request(wire, "Login", self._login, None)
        except BaseException:
            wire.close()
            raise
        return wire

    async def _watch(self, wire: AmiWire) -> None:
        """Return when the link is lost, or when Asterisk stops answering on a socket that still looks alive."""
        while True:
            await _first_of(wire.lost, timeout_s=self._ping_s)
            if wire.lost.done():
                self._last_error = "Asterisk closed the connection"
                return
            try:
                await self._request(wire, "Ping", {}, None)
            except (AmiUnavailable, AmiRefused) as error:  # an Asterisk that shuts down refuses
                self._last_error = str(error)
                return

    async def _request(
        self, wire: AmiWire, name: str, fields: Fields, timeout_s: float | None
    ) -> Mapping[str, str]:
        answer = await self._exchange(wire, name, fields, timeout_s)
        _check(name, answer)
        return answer

    async def _exchange(
        self, wire: AmiWire, name: str, fields: Fields, timeout_s: float | None
    ) -> Mapping[str, str]:
        try:
            # The time-out cancels the future, which takes the action out of the wire's books. (Not wait_for:
            # before Python 3.12 it swallows a cancellation that comes together with the answer.)
            async with asyncio.timeout(timeout_s or self._timeout_s):
                return await wire.request(name, fields)
        except TimeoutError:
            raise AmiUnavailable(f"AMI {name} was not answered in time") from None

    def _require_wire(self) -> AmiWire:
        if self._wire is None:
            raise self._no_link()
        return self._wire

    def _no_link(self) -> AmiUnavailable:
        host, port = self._address
        return AmiUnavailable(
            f"no AMI link to {host}:{port} ({self._last_error})",
            how_to_fix=[
                "check that Asterisk runs: asterisk -rx 'core show uptime'",
                "check host, port, username and secret under [ami] against manager.conf",
            ],
        )

    def _set_wire(self, wire: AmiWire | None) -> None:
        self._wire = wire
        if wire is None:
            self._up.clear()
        else:
            self._up.set()
        for handler in tuple(self._link_handlers):
            _call(handler, wire is not None)

    # --- events ----------------------------------------------------------------------------------

    def _dispatch(self, event: Event) -> None:
        for name in (event["Event"].lower(), "*"):
            for handler in tuple(self._event_handlers.get(name, ())):
                _call(handler, event)

    @contextlib.contextmanager
    def _first(self, name: str, key: str, value: str) -> Iterator[asyncio.Future[Event]]:
        """A future of the first event `name` whose `key` is `value`."""
        found: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

        def look(event: Event) -> None:
            if event.get(key) == value and not found.done():
                found.set_result(event)

        unsubscribe = self.on_event(name, look)
        try:
            yield found
        finally:
            unsubscribe()
            found.cancel()

    async def _drop(self, channel_id: str) -> None:
        try:
            await self.hang_up(channel_id)
        except (AmiRefused, AmiUnavailable) as error:
            log.info("a cancelled call could not be hung up", extra={"error": str(error)})


async def _first_of(*waited: asyncio.Future[Any], timeout_s: float) -> None:
    """Wait for any of the futures; cancels none of them and raises nothing on time-out."""
    await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _check(name: str, answer: Mapping[str, str]) -> None:
    if answer.get("Response") == "Error":
        raise AmiRefused(f"AMI {name} refused: {answer.get('Message', 'no reason given')}")


def _call(handler: Callable[..., None], argument: object) -> None:
    try:
        handler(argument)
    except Exception:  # a subscriber's bug must not cost everybody the link
        log.exception("AMI handler failed", extra={"handler": repr(handler)})


def _remover(handlers: list[Callable[..., None]], handler: Callable[..., None]) -> Unsubscribe:
    def remove() -> None:
        if handler in handlers:
            handlers.remove(handler)

    return remove


def _assignment(name: str, value: str) -> str:
    """`name=value` for a Variable header, which Asterisk splits at commas like an application's arguments."""
    if not name or "=" in name:
        raise LocalProtocolError(f"{name!r} is not the name of a channel variable")
    return "".join(f"\\{char}" if char in '\\",' else char for char in f"{name}={value}")
