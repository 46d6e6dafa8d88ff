"""What every server does with its lines, whichever transport carries them: admit, serve, see out."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Generic, Literal, TypeVar

from engine.aio import cancel_and_wait
from engine.telephony.admission import Refused
from engine.telephony.leg import Leg

log = logging.getLogger(__name__)

L = TypeVar("L", bound=Leg)
T = TypeVar("T")

FAREWELL_S = 1.0
"""How long the peer may take to close after we said goodbye."""
GRACE_S = 2.0
"""How long a call's task may go on after its line was hung up, when the server closes."""
KEYS = frozenset("0123456789*#ABCD")

EndReason = Literal["", "caller", "engine", "protocol"]
"""Who ended the line: empty while it lives; "protocol" when the peer broke it."""


class Reception(Generic[L, T]):
    """Owns the legs of a server and the task that serves each."""

    def __init__(
        self, *, claim: Callable[[str], T], on_leg: Callable[[L, T], Awaitable[None]]
    ) -> None:
        self._claim = claim
        self._on_leg = on_leg
        self._tasks: set[asyncio.Task[None]] = set()
        self.legs: set[L] = set()
        self.refused: Counter[str] = Counter()

    def claim(self, call_id: str) -> T:
        """The ticket of this call. Raises Refused, and counts it."""
        try:
            return self._claim(call_id)
        except Refused as refusal:
            self.refuse(refusal.reason)
            raise
        except Exception as error:
            # Not the caller's fault, but without a ticket there is no call.
            log.exception("a call's ticket could not be claimed", extra={"call_id": call_id})
            self.refuse("error")
            raise Refused("unknown") from error

    def refuse(self, reason: str) -> None:
        self.refused[reason] += 1
        log.warning("a line was refused", extra={"reason": reason})

    def serve(self, leg: L, ticket: T) -> None:
        self.legs.add(leg)
        task = asyncio.get_running_loop().create_task(
            self._serve(leg, ticket), name=f"leg {leg.call_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, leg: L, ticket: T) -> None:
        try:
            await self._on_leg(leg, ticket)
        except Exception:
            # One call's failure is that call's; its caller goes back to the dialplan.
            log.exception("a call's task failed", extra={"call_id": leg.call_id})
        finally:
            await leg.hang_up()

    async def close(self) -> None:
        """Hang up, wait, cancel."""
        await asyncio.gather(*(leg.hang_up() for leg in tuple(self.legs)))
        others = self._tasks - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=GRACE_S)
        await cancel_and_wait(*others)
