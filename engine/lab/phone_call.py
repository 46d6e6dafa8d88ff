"""One call of a softphone: what is said, what is heard, and how it ends."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.errors import LegClosed
from engine.lab.rtp_stream import Played, RtpStream
from engine.media.frame import Digit, Samples

EndCause = Literal["", "local", "remote", "cancelled", "refused", "lost"]
"""Who ended it: we, the peer, the caller before we answered, we without answering, nobody (no ACK)."""


@dataclass(slots=True)
class Dialog:
    """RFC 3261 section 12. `local` and `remote` are From/To values with their tags."""

    call_id: str
    local: str
    remote: str
    target: str
    """The request URI of what we send: the peer's Contact."""
    peer: tuple[str, int]
    cseq: int = 1


class Signalling(Protocol):
    """What a call asks of its phone."""

    def accept(self, call: PhoneCall) -> None: ...
    def refuse(self, call: PhoneCall, status: int) -> None: ...
    async def bye(self, call: PhoneCall) -> None: ...


class PhoneCall:
    """Times are `time.monotonic()` seconds, sound is int16 at 8 kHz."""

    def __init__(self, signalling: Signalling, dialog: Dialog, stream: RtpStream) -> None:
        self.dialog = dialog
        self.stream = stream
        self.answered_at = 0.0
        """When the 200 came or went; 0 before."""
        self.ended = asyncio.Event()
        self.ended_at = 0.0
        self.end_cause: EndCause = ""
        self.reason = ""
        """The Reason header of the peer's BYE, for instance `Q.850;cause=16`."""
        self._signalling = signalling

    @property
    def remote(self) -> str:
        """The peer's From or To value: `"Name" <sip:number@host>;tag=…`."""
        return self.dialog.remote

    @property
    def digits(self) -> list[Digit]:
        """Keys the peer sent (RFC 4733)."""
        return self.stream.digits

    # --- An incoming call that rings -----------------------------------------------------------

    def answer(self) -> None:
        """Raises LegClosed when the caller has given up."""
        if self.ended.is_set():
            raise LegClosed("the caller has given up")
        if not self.answered_at:
            self._signalling.accept(self)

    def refuse(self, status: int = 486) -> None:
        """Decline with a final status: 486 busy, 480 unavailable, 603 decline."""
        if not self.answered_at and not self.ended.is_set():
            self._signalling.refuse(self, status)

    # --- Sound ---------------------------------------------------------------------------------

    async def play(self, samples: Samples) -> Played:
        """Say something; returns when the last packet has left. Cancelling stops it. Raises LegClosed."""
        return await self.stream.play(samples)

    async def send_dtmf(self, digits: str, *, press_ms: int = 100) -> None:
        """Press keys one after another (RFC 4733). Raises LegClosed."""
        for key in digits:
            await self.stream.press(key, press_ms=press_ms)

    def heard(self) -> Samples:
        """All that came, from the answer to now (or the end); what did not come is silence."""
        return self.heard_between(self.answered_at, self._until())

    def sent(self) -> Samples:
        """All that we sent, on the same timeline as `heard` and as long."""
        return self.stream.sent.between(self.answered_at, self._until())

    def heard_between(self, start: float, end: float) -> Samples:
        return self.stream.heard.between(start, end)

    def first_sound_after(self, start: float) -> float | None:
        """When the first sound after `start` was heard; None when none was."""
        return self.stream.heard.first_sound(start, self._until())

    def last_sound_between(self, start: float, end: float) -> float | None:
        """When the last sound in between ended; None when there was none."""
        return self.stream.heard.last_sound(start, end)

    async def wait_for_sound(self, timeout: float = 10.0) -> float:
        """The arrival of the next loud packet from now on. Raises TimeoutError, LegClosed."""
        async with asyncio.timeout(timeout):
            return await self.stream.next_sound()

    async def wait_for_silence(self, quiet_ms: int = 500, timeout: float = 30.0) -> float:
        """Wait until nothing loud came for `quiet_ms`, or the call ended.

        Returns when the silence began, which is at or before the moment of asking where the line was
        silent already. Raises TimeoutError.
        """
        async with asyncio.timeout(timeout):
            while True:
                began = max(self.stream.last_sound_end, self.answered_at)
                remaining = began + quiet_ms / 1000 - time.monotonic()
                if remaining <= 0 or self.ended.is_set():
                    return began
                await asyncio.sleep(remaining)

    # --- The end -------------------------------------------------------------------------------

    async def hang_up(self) -> None:
        """Say BYE and wait for its answer. Safe to call twice, and after the peer did."""
        if not self.answered_at:
            self.refuse()
        elif not self.ended.is_set():
            await self._signalling.bye(self)
        self.stream.close()

    def mark_answered(self) -> None:
        self.answered_at = time.monotonic()

    def mark_ended(self, cause: EndCause, reason: str = "") -> None:
        """Only the first one counts."""
        if not self.ended.is_set():
            self.end_cause, self.reason, self.ended_at = cause, reason, time.monotonic()
            self.ended.set()

    def _until(self) -> float:
        return self.ended_at or time.monotonic()
