"""Callers are scripted: "speaks 0.2 to 1.4 s, says X". Frames of 20 ms drive the policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FRAME_S = 0.02


@dataclass(frozen=True)
class Speaks:
    """The caller makes sound from `start` to `end`, in seconds."""

    start: float
    end: float
    echo: float = 0.0


def frames(script: Sequence[Speaks], until: float) -> Iterator[tuple[float, bool, float]]:
    """(end of frame in seconds, speech, echo likeness) for every frame up to `until`."""
    for index in range(1, round(until / FRAME_S) + 1):
        at = round(index * FRAME_S, 4)
        middle = at - FRAME_S / 2
        now = [part for part in script if part.start <= middle < part.end]
        yield at, bool(now), now[0].echo if now else 0.0
