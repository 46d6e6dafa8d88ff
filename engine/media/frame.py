"""What sound looks like inside the house: 20 ms frames on the line, Pcm everywhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FRAME_MS = 20
FRAME_S = FRAME_MS / 1000

Samples = npt.NDArray[np.int16]


def frame_bytes(rate: int) -> int:
    """Bytes of one 20 ms frame, s16le mono: 320 at 8 kHz, 640 at 16 kHz."""
    return rate * FRAME_MS // 1000 * 2


@dataclass(frozen=True, slots=True)
class Frame:
    """20 ms of s16le mono sound as the line carries it.

    `at` is the loop's monotonic clock, in seconds, at the end of the frame.
    """

    pcm: bytes
    rate: int
    at: float

    def samples(self) -> Samples:
        return np.frombuffer(self.pcm, dtype="<i2")


@dataclass(frozen=True, slots=True)
class Digit:
    """One DTMF key, at the moment it was released."""

    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Pcm:
    """A stretch of mono sound. `samples` is a one-dimensional int16 array."""

    samples: Samples
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    @staticmethod
    def silence(seconds: float, rate: int) -> Pcm:
        return Pcm(np.zeros(round(seconds * rate), dtype=np.int16), rate)


def silent_frame(rate: int, at: float) -> Frame:
    return Frame(bytes(frame_bytes(rate)), rate, at)
