"""An event loop whose clock jumps: thirty seconds of talk take milliseconds.

Whenever nothing is ready and a timer is next, the clock moves to that timer at once. Work on threads is
waited for in real time only while no timer is set, so a scripted call should not depend on any.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[Any] = super().select(None if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on a clock that starts at 0 and moves only by timers."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def advance(self, seconds: float) -> None:
        """The process was busy for so long: the clock moves and nothing ran."""
        self._jumping.now += seconds


LOOP_FACTORIES: Mapping[str, Any] = {"virtual": VirtualTimeLoop}
