"""The desk: every live call, how many more fit, and the orderly end of them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.errors import AtCapacity

if TYPE_CHECKING:
    from engine.calls.session import CallSession

log = logging.getLogger(__name__)


class Desk:
    """Counts calls against the limit. `open` turns False when the engine drains."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.open = True
        self._sessions: dict[str, CallSession] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._sessions)

    def check_room(self, promised: int = 0) -> None:
        """Raise AtCapacity when one more call would be too many; `promised` have a UUID but no line yet."""
        if len(self._sessions) + promised >= self.limit:
            raise AtCapacity(f"all {self.limit} lines are in use")

    @contextmanager
    def seat(self, session: CallSession) -> Iterator[None]:
        self._sessions[session.call_id] = session
        self._empty.clear()
        try:
            yield
        finally:
            del self._sessions[session.call_id]
            if not self._sessions:
                self._empty.set()

    def sessions(self) -> list[CallSession]:
        return list(self._sessions.values())

    def live(self) -> list[dict[str, Any]]:
        """One row a call, for the panel and `/api/v1/calls/live`."""
        return [session.snapshot() for session in self._sessions.values()]

    async def drain(self, limit_s: float, goodbye_s: float = 10.0) -> None:
        """Take no more calls; let the live ones end, then say goodbye to who is left."""
        self.open = False
        log.info("draining", extra={"calls": len(self), "limit_s": limit_s})
        if await self._wait_empty(limit_s):
            return
        for session in list(self._sessions.values()):
            session.end_politely("drained")
        await self._wait_empty(goodbye_s)

    async def _wait_empty(self, timeout_s: float) -> bool:
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except TimeoutError:
            return False
        return True
