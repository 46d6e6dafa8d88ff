"""Keys the caller presses: to whoever collects them, else as one line after a short pause."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.media.frame import Digit

LINE_S = 1.5
"""Keys further apart than this are two entries; # ends one at once."""


class Keypad:
    """`on_line` gets an entry that nobody collected, and when its last key was pressed."""

    def __init__(self, on_line: Callable[[str, float], None]) -> None:
        self._on_line = on_line
        self._line = ""
        self._last_at = 0.0
        self._ended = False
        self._collector: asyncio.Queue[str] | None = None

    @property
    def busy(self) -> bool:
        """Somebody collects, or an entry is not finished."""
        return self._collector is not None or bool(self._line)

    @property
    def collecting(self) -> bool:
        return self._collector is not None

    def press(self, digit: Digit) -> None:
        if self._collector is not None:
            self._collector.put_nowait(digit.key)
            return
        if digit.key != "#":
            self._line += digit.key
            self._last_at = digit.at
            self._ended = False
        else:
            self._ended = True

    def tick(self, at: float) -> None:
        """Tell of an entry that is over. Where it is not called, entries wait."""
        if self._line and (self._ended or at - self._last_at >= LINE_S):
            line, self._line = self._line, ""
            self._on_line(line, self._last_at)

    async def collect(
        self, max_digits: int, terminator: str, timeout_s: float, *, question_s: float = 0.0
    ) -> str:
        """Wait for keys until there are enough, the terminator comes, or none for `timeout_s`.

        The first may take `question_s` longer: so long the caller is still being asked.
        """
        keys, self._line = self._line[:max_digits], ""
        wait_s = timeout_s + question_s
        self._collector = asyncio.Queue()
        try:
            while len(keys) < max_digits:
                try:
                    key = await asyncio.wait_for(self._collector.get(), wait_s)
                except TimeoutError:
                    return keys
                if key == terminator:
                    return keys
                keys += key
                wait_s = timeout_s
            return keys
        finally:
            self._collector = None

    def close(self) -> None:
        self._line = ""
