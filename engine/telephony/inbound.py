"""What comes in from a line: any size of packet, cut to 20 ms, with silence where nothing comes.

Arrival is the clock while sound comes, so that the difference between Asterisk's 20 ms and ours neither adds
delay nor tears a hole into speech. Only when the line has been quiet for a while do we make silence; then on
the absolute schedule, starting with what is already missing:

    arrives   a b c                     d e
    time      |-|-|-|-|-|-|-|-|-|-|-|-|-|-|
    yielded   a b c     sss s s s s s s d e
                        ^ 60 ms: what is missing at once, then one frame every 20 ms

A silent frame is told half a frame late, since sound that comes back may be as much out of step: so a gap is
rounded to the nearest frame, and a thousand gaps do not add up to a second. Sound that arrives again is
yielded at once and the schedule goes on from it; a gap is told once. Nothing the caller said is thrown away
to make room for silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import soxr

from engine.media.frame import FRAME_S, Digit, Frame, frame_bytes, silent_frame

PATIENCE_S = 0.04
"""A packet may be this late before silence takes its place: with 20 ms packets, 60 ms after the last."""
LONGEST_PACKET_S = 0.2
"""Longer packets do not make us more patient."""
LIMIT = 50
"""Items kept for a reader that is late: one second."""
_ROUNDING_S = FRAME_S / 2
_EPSILON_S = 1e-6


class Reframer:
    """s16le mono of any size and rate in, exact 20 ms of one rate out."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._size = frame_bytes(rate)
        self._rest = bytearray()
        self._source_rate = rate
        self._resampler: Any = None

    @property
    def rest_s(self) -> float:
        """Seconds of sound that wait for the rest of their frame."""
        return len(self._rest) / 2 / self.rate

    def push(self, pcm: bytes, rate: int) -> list[bytes]:
        if rate != self._source_rate:
            self._change_source(rate)
        if len(pcm) == self._size and not self._rest and self._resampler is None:
            return [pcm]  # nearly always
        self._rest += pcm if self._resampler is None else self._resample(pcm)
        whole = len(self._rest) // self._size * self._size
        frames = [bytes(self._rest[at : at + self._size]) for at in range(0, whole, self._size)]
        del self._rest[:whole]
        return frames

    def _change_source(self, rate: int) -> None:
        # A line that speaks at another rate than agreed is a wrong c(…) in the dialplan, not a reason to be
        # deaf. LQ costs microseconds a frame, and holds back some 50 ms.
        self._source_rate = rate
        self._resampler = (
            None
            if rate == self.rate
            else soxr.ResampleStream(rate, self.rate, 1, dtype="int16", quality=soxr.LQ)
        )

    def _resample(self, pcm: bytes) -> bytes:
        return bytes(self._resampler.resample_chunk(np.frombuffer(pcm, dtype="<i2")).tobytes())


class Inbound:
    """Frames and keys of one line, for one reader.

    `push`, `digit` and `close` never wait. A reader more than a second late loses the oldest frames, counted
    in `dropped`. All times are on the loop's clock, in seconds.
    """

    def __init__(self, rate: int, now: float, *, limit: int = LIMIT) -> None:
        self.rate = rate
        self.dropped = 0
        self._limit = limit
        self._reframer = Reframer(rate)
        self._items: deque[Frame | Digit] = deque()
        self._until = now  # the end of the last frame yielded
        self._arrived = now
        self._hold_s = PATIENCE_S + FRAME_S
        self._quiet = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def push(self, pcm: bytes, rate: int, now: float) -> None:
        """Sound arrived: s16le mono at `rate`, a whole number of samples."""
        if self._closed:
            return
        frames = self._reframer.push(pcm, rate)
        # The last sample came just now; what came before it is that much older.
        end = now - self._reframer.rest_s
        for back, chunk in zip(range(len(frames) - 1, -1, -1), frames, strict=True):
            self._put(Frame(chunk, self.rate, end - back * FRAME_S))
        self._arrived = now
        self._hold_s = PATIENCE_S + min(max(FRAME_S, len(pcm) / 2 / rate), LONGEST_PACKET_S)
        self._wake()

    def digit(self, key: str, now: float) -> None:
        if not self._closed:
            self._put(Digit(key, now))
            self._wake()

    def close(self) -> None:
        """The line is gone: the reader gets what is queued, then stops."""
        self._closed = True
        self._wake()

    def pop(self, now: float) -> Frame | Digit | None:
        """What is due at `now`, or None."""
        head = self._items[0] if self._items else None
        if isinstance(head, Digit):
            self._items.popleft()
            return head
        if head is None:
            if self._closed:
                return None
            late = now - self._arrived >= self._hold_s - _EPSILON_S
            missing_s = now - _ROUNDING_S - self._until
        else:
            # A reader that comes late finds sound behind a gap that it has not been told of yet.
            late = head.at - self._until > self._hold_s
            missing_s = head.at - FRAME_S + _ROUNDING_S - self._until
        self._quiet = self._quiet or late
        if self._quiet and missing_s >= FRAME_S - _EPSILON_S:
            return self._silence(missing_s)
        if head is None:
            return None
        self._items.popleft()
        self._quiet = False
        # Sound never seems older than what was yielded before it.
        if head.at < self._until:
            return Frame(head.pcm, head.rate, self._until)
        self._until = head.at
        return head

    @property
    def deadline(self) -> float:
        """When silence is due if nothing arrives until then."""
        if self._quiet:
            return self._until + FRAME_S + _ROUNDING_S
        return self._arrived + self._hold_s

    async def receive(self) -> AsyncIterator[Frame | Digit]:
        """A frame every 20 ms and keys among them, until the line ends. For one reader."""
        loop = asyncio.get_running_loop()
        while True:
            item = self.pop(loop.time())
            if item is not None:
                yield item
            elif self._closed:
                return
            else:
                await self._wait(loop)

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._waiter = loop.create_future()
        self._set_timer(loop)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        # Every frame moves the deadline on. A timer that is set already comes too early, and then looks
        # again: one in 60 ms instead of one a frame.
        if self._timer is not None:
            if self._timer.when() <= self.deadline:
                return
            self._timer.cancel()
        self._timer = loop.call_at(self.deadline, self._due, loop)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if loop.time() >= self.deadline - _EPSILON_S:
            self._wake()
        elif self._waiter is not None:
            self._set_timer(loop)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _silence(self, missing_s: float) -> Frame:
        behind = int(missing_s / FRAME_S) - self._limit
        if behind > 0:
            self.dropped += behind
            self._until += behind * FRAME_S
        self._until += FRAME_S
        return silent_frame(self.rate, self._until)

    def _put(self, item: Frame | Digit) -> None:
        if len(self._items) >= self._limit:
            self._drop_oldest()
        self._items.append(item)

    def _drop_oldest(self) -> None:
        # A key is worth more than sound; a flood of keys still has its end.
        index = next((i for i, item in enumerate(self._items) if isinstance(item, Frame)), 0)
        oldest = self._items[index]
        del self._items[index]
        self.dropped += 1
        if isinstance(oldest, Frame):
            # Dropped to catch up, so it must not come back as silence.
            self._until = max(self._until, oldest.at)
