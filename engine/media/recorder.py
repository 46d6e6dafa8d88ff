"""A call's recording: stereo WAV, caller left, agent right, written off the audio path.

Both sides are placed by their frames' timestamps on one time line that starts with the first frame:

    caller  |##|##|##|  |  |##|##|      arrival times wobble; a frame follows the one before it
    agent   |##|##|##|##|##|##|##|      unless it is more than 3 frames off: then a gap is silence,
             0  1  2  3  4  5  6        and what came too early (a faster clock, a burst) is dropped

Once a second the interleaved sound and then the header's sizes are written, so whatever kills the process
leaves a file that plays up to its last seconds. Disk trouble ends the recording, never the call.

One thread writes all recordings, one after another, spread evenly over the second. A thread for each woke
with every frame and fought the loop for the interpreter: at 40 calls that took more time than all the rest.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import struct
import threading
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

import numpy as np

from engine.media.frame import FRAME_MS, FRAME_S, Frame, frame_bytes

log = logging.getLogger(__name__)

_QUEUED_FRAMES = 1000
"""10 s of both sides. A disk that stalls longer than that costs the frames which do not fit."""
_HEADER_BYTES = 44
_SECOND = 1000 // FRAME_MS
_SLIP_FRAMES = 3
_LARGEST = 0xFFFFFFFF
_EVERY_S = 1.0


class Recorder:
    """Records one call into `path`. Frames must have the recorder's rate.

    `error` is set once the disk has failed; `dropped` counts frames that were not recorded.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path = path
        self.rate = rate
        self.error: OSError | None = None
        self.dropped = 0
        self._waiting: deque[tuple[int, Frame]] = deque()
        self._line = _TimeLine(rate)
        self._wav: _WavFile | None = None
        self._closed = False
        self._done = threading.Event()
        _writer().add(self)

    def offer_caller(self, frame: Frame) -> None:
        """Take one inbound frame; never waits."""
        self._offer(0, frame)

    def offer_agent(self, frame: Frame) -> None:
        """Take one outbound frame, speech or silence; never waits."""
        self._offer(1, frame)

    async def close(self) -> None:
        """Write what is queued and close the file. Safe to call twice."""
        if not self._closed:
            self._closed = True
            _writer().finish(self)
        await asyncio.to_thread(self._done.wait)

    def _offer(self, side: int, frame: Frame) -> None:
        if self._closed or self.error is not None:
            return
        if len(self._waiting) < _QUEUED_FRAMES:
            self._waiting.append((side, frame))
        else:
            self.dropped += 1

    # --- on the writer's thread ---

    def write(self, *, last: bool) -> None:
        """Write what has come; after the `last` time the file is closed."""
        try:
            if self.error is None:
                self._write(last=last)
        except OSError as error:
            self.error = error
            log.error(
                "The recording stopped; the call goes on",
                extra={"path": str(self.path), "reason": str(error)},
            )
        if self.error is not None:
            self._waiting.clear()
        if last:
            if self._wav is not None:
                self._wav.close()
            self._done.set()

    def _write(self, *, last: bool) -> None:
        if self._wav is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._wav = _WavFile(self.path.open("wb", buffering=0), self.rate)
            self._wav.begin()
        silent = not self._waiting
        while self._waiting:
            if not self._line.place(*self._waiting.popleft()):
                self.dropped += 1
        self._wav.append(self._line.take(everything=last or silent))


class _Writer:
    """Visits every recorder once a second, and one that closes at once."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: deque[Recorder] = deque()
        self._closing: deque[Recorder] = deque()
        self._due = 0.0
        threading.Thread(target=self._run, name="recordings", daemon=True).start()

    def add(self, recorder: Recorder) -> None:
        with self._changed:
            self._open.append(recorder)
            self._changed.notify()

    def finish(self, recorder: Recorder) -> None:
        with self._changed:
            self._open.remove(recorder)
            self._closing.append(recorder)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            recorder, last = self._next()
            recorder.write(last=last)

    def _next(self) -> tuple[Recorder, bool]:
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                if self._open and now >= self._due:
                    # A write costs the same whenever it comes, but all of them at once would be a stall.
                    self._due = now + _EVERY_S / len(self._open)
                    self._open.rotate(-1)
                    return self._open[-1], False
                self._changed.wait(self._due - now if self._open else None)
            return self._closing.popleft(), True


@functools.cache
def _writer() -> _Writer:
    return _Writer()


class _TimeLine:
    """Two tracks of frames not written yet; index 0 is the first frame of the call."""

    def __init__(self, rate: int) -> None:
        self._frame_bytes = frame_bytes(rate)
        self._start: float | None = None
        self._written = 0
        self._tracks = (bytearray(), bytearray())
        self._next = [0, 0]

    def place(self, side: int, frame: Frame) -> bool:
        """Put a frame where it belongs; False when it belongs nowhere."""
        if len(frame.pcm) != self._frame_bytes:
            return False
        if self._start is None:
            self._start = frame.at
        due = round((frame.at - self._start) / FRAME_S)
        index = self._next[side]
        if due - index > _SLIP_FRAMES:
            index = due
        elif index - due > _SLIP_FRAMES:
            return False
        if index < self._written:
            return False
        track = self._tracks[side]
        track.extend(bytes((index - self._written) * self._frame_bytes - len(track)))
        track.extend(frame.pcm)
        self._next[side] = index + 1
        return True

    def take(self, *, everything: bool = False) -> bytes:
        """Interleaved stereo of what both sides have; of `everything`, or where one side lags more
        than a second, the missing part is silence.
        """
        end = max(self._next) if everything else max(min(self._next), max(self._next) - _SECOND)
        size = (end - self._written) * self._frame_bytes
        if size <= 0:
            return b""
        stereo = np.zeros((size // 2, 2), dtype="<i2")
        for side, track in enumerate(self._tracks):
            part = np.frombuffer(bytes(track[:size]), dtype="<i2")
            stereo[: len(part), side] = part
            del track[:size]
        self._written = end
        self._next = [max(index, end) for index in self._next]
        return stereo.tobytes()


class _WavFile:
    """PCM 16-bit stereo whose header is right after every append (RIFF WAVE, format tag 1)."""

    def __init__(self, file: BinaryIO, rate: int) -> None:
        self._file = file
        self._rate = rate
        self._data_bytes = 0

    def begin(self) -> None:
        self._all(self._header())

    def append(self, data: bytes) -> None:
        if not data:
            return
        self._all(data)
        self._data_bytes += len(data)
        # Sound first, sizes second: a kill in between leaves sound that is merely not counted yet.
        self._file.seek(0)
        self._all(self._header())
        self._file.seek(0, 2)

    def close(self) -> None:
        self._file.close()

    def _header(self) -> bytes:
        size = min(self._data_bytes, _LARGEST - _HEADER_BYTES)
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", size + _HEADER_BYTES - 8, b"WAVE"),
            *(b"fmt ", 16, 1, 2, self._rate, self._rate * 4, 4, 16),
            *(b"data", size),
        )

    def _all(self, data: bytes) -> None:
        # An unbuffered write may be short, on a disk that is getting full.
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
