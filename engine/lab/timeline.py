"""One direction of a call as it really sounded: samples placed by the moment they arrived."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.media.frame import FRAME_S, Samples

RATE = 8000
LOUD = 10 ** (-42 / 20) * 32768
"""RMS of a 20 ms frame above which somebody is heard: -42 dBFS."""


class Timeline:
    """Frames with their times, on the monotonic clock in seconds. `at` is when a frame begins to sound."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self._frames: list[Samples] = []

    def add(self, at: float, samples: Samples) -> None:
        """A frame that came late continues the one before it, as a jitter buffer would play it."""
        self._at.append(at)
        self._frames.append(samples)

    def __iter__(self) -> Iterator[tuple[float, Samples]]:
        return zip(self._at, self._frames, strict=True)

    @property
    def frames(self) -> int:
        return len(self._frames)

    def loud(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """When each loud frame between two moments began."""
        return [at for at, frame in self if since <= at <= until and rms(frame) > LOUD]

    def first_sound(self, since: float) -> float | None:
        """The first loud frame that is followed by another, so that a click does not count."""
        for index, (at, frame) in enumerate(zip(self._at, self._frames, strict=True)):
            if at < since or rms(frame) <= LOUD or index + 1 >= len(self._frames):
                continue
            if rms(self._frames[index + 1]) > LOUD:
                return at
        return None

    def last_sound(self, since: float, until: float, quiet_s: float = 0.3) -> float | None:
        """The end of the talk-spurt that sounds at `since`: the last loud moment before `quiet_s` of quiet."""
        last: float | None = None
        for at in self.loud(since, until):
            if last is not None and at - last > quiet_s:
                break
            last = at
        return None if last is None else last + FRAME_S

    def quiet_for(self, now: float) -> float:
        """Seconds since the last loud frame; since the first frame where there was none."""
        for at, frame in zip(reversed(self._at), reversed(self._frames), strict=True):
            if rms(frame) > LOUD:
                return now - at
        return now - self._at[0] if self._at else 0.0


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
