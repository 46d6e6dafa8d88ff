"""What the callers of measurements have in common, whichever way their sound takes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from engine.lab.timeline import Timeline
from engine.media.frame import FRAME_S, Samples


class Caller(ABC):
    """One call. Times are monotonic seconds; sound is int16 at 8 kHz."""

    heard: Timeline
    said: Timeline
    answered_at: float

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    @abstractmethod
    async def play(self, samples: Samples) -> tuple[float, float]:
        """Speak; returns when the first loud frame began to sound and the last one ended."""

    @abstractmethod
    async def hang_up(self) -> None: ...

    async def wait_for_sound(self, since: float, timeout_s: float) -> float | None:
        """When the agent's next sound began; None if it stayed silent."""
        deadline = self._now() + timeout_s
        while self._now() < deadline and not self.ended.is_set():
            if (found := self.heard.first_sound(since)) is not None:
                return found
            await asyncio.sleep(FRAME_S)
        return self.heard.first_sound(since)

    async def wait_for_quiet(self, quiet_s: float, timeout_s: float) -> bool:
        deadline = self._now() + timeout_s
        while self._now() < deadline and not self.ended.is_set():
            if self.heard.quiet_for(self._now()) >= quiet_s:
                return True
            await asyncio.sleep(FRAME_S)
        return False

    def _sounded(self, since: float) -> tuple[float, float]:
        loud = self.said.loud(since)
        return (loud[0], loud[-1] + FRAME_S) if loud else (since, self._now())
