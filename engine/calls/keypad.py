"""Keys the caller presses: to whoever collects them, else as one line after a short pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.media.frame import Digit

LINE_S = 1.5
"""Keys further apart than this are two entries; # ends one at once."""


class Keypad:
    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._line = ""
        self._last_at = 0.0
        self._collector: asyncio.Queue[str] | None = None

    @property
    def busy(self) -> bool:
        """Somebody collects, or an entry is not finished."""
        return self._collector is not None or bool(self._line)

    def press(self, digit: Digit) -> None:
        if self._collector is not None:
            self._collector.put_nowait(digit.key)
            return
        self._last_at = digit.at
        if digit.key != "#":
            self._line += digit.key
        else:
            self._end_line()

    def tick(self, at: float) -> None:
        if self._line and at - self._last_at >= LINE_S:
            self._end_line()

    async def collect(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        """Wait for keys until there are enough, the terminator comes, or none for `timeout_s`."""
        keys, self._line = self._line[:max_digits], ""
        self._collector = asyncio.Queue()
        try:
            while len(keys) < max_digits:
                try:
                    key = await asyncio.wait_for(self._collector.get(), timeout_s)
                except TimeoutError:
                    return keys
                if key == terminator:
                    return keys
                keys += key
            return keys
        finally:
            self._collector = None

    def close(self) -> None:
        self._line = ""

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        if line:
            self._on_line(line)
