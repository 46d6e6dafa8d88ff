"""Who may connect: only a UUID that we minted seconds ago, once.

AudioSocket has no authentication and carries no caller id; the AGI step mints an unguessable UUID for the
call, and the ticket kept under it is what was learned there.

    mint -> waiting --claim within ttl--> spent: a second claim is "repeated"
               \\--ttl passes--> abandoned() --> spent: a claim now is "late"
    anything else is "unknown"
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from engine.errors import OffhookError

T = TypeVar("T")

Reason = Literal["unknown", "repeated", "late"]

REMEMBER_S = 300.0
"""How long a spent UUID is told from one we never minted."""
LIMIT = 10_000
"""At most this many UUIDs are waiting, and as many are remembered as spent; the oldest go first."""


class Refused(OffhookError):
    """This UUID may not connect. `reason` is one word: unknown, repeated or late."""

    code = "CALL_REFUSED"

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the call's UUID is {reason}")
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    ticket: T
    expires: float


@dataclass(frozen=True, slots=True)
class _Spent:
    reason: Reason
    forget: float


class Admission(Generic[T]):
    """Mints UUIDs and lets each in once, within `ttl_s` seconds.

    `clock` is monotonic, in seconds. Call `abandoned` now and then, to learn which calls never came.
    """

    def __init__(self, ttl_s: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        # Both are in order of time, so what is old is in front.
        self._waiting: OrderedDict[str, _Waiting[T]] = OrderedDict()
        self._spent: OrderedDict[str, _Spent] = OrderedDict()
        self.refused: Counter[str] = Counter()

    def mint(self, ticket: T) -> str:
        """A new UUID, dashed, lower case, good for one `claim`."""
        call_id = str(uuid.uuid4())
        self._waiting[call_id] = _Waiting(ticket, self._clock() + self._ttl_s)
        while len(self._waiting) > LIMIT:
            self._spend(next(iter(self._waiting)), "late")
        return call_id

    def claim(self, call_id: str) -> T:
        """The ticket minted under this UUID. Raises Refused."""
        call_id = call_id.lower()
        self._forget()
        waiting = self._waiting.get(call_id)
        if waiting is None:
            spent = self._spent.get(call_id)
            raise self._refusal(spent.reason if spent else "unknown")
        if self._clock() > waiting.expires:
            # It stays until `abandoned` has told of it.
            raise self._refusal("late")
        self._spend(call_id, "repeated")
        return waiting.ticket

    @property
    def pending(self) -> int:
        """How many are minted, unclaimed and still good: calls that are about to come."""
        now = self._clock()
        return sum(waiting.expires >= now for waiting in self._waiting.values())

    def abandoned(self) -> list[tuple[str, T]]:
        """The tickets that expired unclaimed, oldest first; each is told once."""
        self._forget()
        now = self._clock()
        gone = [
            (call_id, waiting.ticket)
            for call_id, waiting in self._waiting.items()
            if now > waiting.expires
        ]
        for call_id, _ in gone:
            self._spend(call_id, "late")
        return gone

    def _spend(self, call_id: str, reason: Reason) -> None:
        del self._waiting[call_id]
        self._spent[call_id] = _Spent(reason, self._clock() + REMEMBER_S)

    def _forget(self) -> None:
        now = self._clock()
        while self._spent:
            call_id, spent = next(iter(self._spent.items()))
            if now < spent.forget and len(self._spent) <= LIMIT:
                return
            del self._spent[call_id]

    def _refusal(self, reason: Reason) -> Refused:
        self.refused[reason] += 1
        return Refused(reason)
