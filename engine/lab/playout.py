"""One direction of a call's sound on the monotonic clock.

A packet's place is where an ear with a playout buffer hears it:

    RTP timestamp    0   160   320 | 480 ...            | 3200 ...
    arrival (ms)     0    22    39 | 150                | 1000
    placed at (ms)   0    20    40 | 150: came too late | 1000: a new talk spurt

Within a talk spurt the timestamps rule, so that network jitter leaves no clicks. The spurt starts anew
with a packet that comes more than 60 ms behind its place, or behind by less when so were the nine before
it (a sender that fell behind for good), or whose timestamp jumps to somewhere its arrival does not
confirm. What nobody sent is silence.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from engine.lab.g711 import RATE
from engine.lab.timeline import Timeline
from engine.media.frame import Samples

SOUND_RMS = 150.0
"""About -47 dBFS: above telephone line noise, below quiet speech."""

_LATE_S = 0.06
_LAG_S = 0.01
_STEADY = 10
_BLOCK = RATE // 100  # 10 ms: a click is no sound


def rms(samples: Samples) -> float:
    """Root mean square of int16 samples; 0 for none."""
    if not len(samples):
        return 0.0
    return float(np.sqrt(np.mean(np.square(samples.astype(np.float64)))))


class Playout:
    """Packets in, samples out. Times are `time.monotonic()` seconds."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, Samples]] = []
        """Every packet as it came: (arrival, samples)."""
        self.placed = Timeline()
        """The packets where they are heard."""
        self._anchor: tuple[float, int] | None = None  # (time, RTP timestamp) of the spurt's start
        self._behind: deque[float] = deque(maxlen=_STEADY)
        self._ssrc = 0
        self._next = 0  # the timestamp that follows what we have

    def add(self, arrived_at: float, ssrc: int, timestamp: int, samples: Samples) -> None:
        """Take one packet; `timestamp` is RTP's, 8000 per second, 32 bits."""
        self.packets.append((arrived_at, samples))
        at = self._place(arrived_at, ssrc, timestamp)
        if at is None:
            return
        self.placed.add(at, samples)
        end = (timestamp + len(samples)) & 0xFFFFFFFF
        if self._anchor == (at, timestamp) or _signed(end - self._next) > 0:
            self._next = end

    def _place(self, arrived_at: float, ssrc: int, timestamp: int) -> float | None:
        """When the packet is heard; None for a straggler whose moment has been played as a gap."""
        if self._anchor is None or ssrc != self._ssrc:
            self._ssrc = ssrc
            return self._start_spurt(arrived_at, timestamp)
        start, first = self._anchor
        expected = start + _signed(timestamp - first) / RATE
        behind_s = arrived_at - expected
        if behind_s > _LATE_S:
            older = _signed(timestamp - self._next) < 0
            return None if older else self._start_spurt(arrived_at, timestamp)
        if behind_s < -_LATE_S and timestamp != self._next:
            return self._start_spurt(arrived_at, timestamp)
        # Early and contiguous is a burst, which the buffer holds until its time comes.
        self._behind.append(behind_s)
        if len(self._behind) == _STEADY and (lag_s := min(self._behind)) > _LAG_S:
            return self._start_spurt(expected + lag_s, timestamp)
        return expected

    def _start_spurt(self, at: float, timestamp: int) -> float:
        self._anchor = (at, timestamp)
        self._behind.clear()
        return at

    def between(self, start: float, end: float) -> Samples:
        """All sound from `start` to `end`, gaps as zeros: round((end - start) * 8000) samples."""
        length = max(0, round((end - start) * RATE))
        sound = np.zeros(length, dtype=np.int16)
        for at, samples in self.placed:
            offset = round((at - start) * RATE)
            low, high = max(0, offset), min(length, offset + len(samples))
            if low < high:
                sound[low:high] = samples[low - offset : high - offset]
        return sound

    def first_sound(self, start: float, end: float) -> float | None:
        """When sound begins: the first strong sample of the first loud 10 ms. None without sound."""
        span = self._sounding(start, end)
        return None if span is None else start + span[0] / RATE

    def last_sound(self, start: float, end: float) -> float | None:
        """When sound ends: after the last strong sample of the last loud 10 ms. None without sound."""
        span = self._sounding(start, end)
        return None if span is None else start + (span[1] + 1) / RATE

    def _sounding(self, start: float, end: float) -> tuple[int, int] | None:
        """The first and the last strong sample within blocks that are loud as a whole."""
        sound = self.between(start, end).astype(np.float64)
        blocks = sound[: len(sound) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
        loud = np.mean(np.square(blocks), axis=1) > SOUND_RMS**2
        strong = np.flatnonzero((np.abs(blocks) > SOUND_RMS) & loud[:, np.newaxis])
        return (int(strong[0]), int(strong[-1])) if len(strong) else None


def _signed(difference: int) -> int:
    """A difference of 32-bit RTP timestamps, which wrap."""
    return (difference + 0x80000000) % 0x100000000 - 0x80000000
