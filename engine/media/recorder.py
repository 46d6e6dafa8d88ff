"""A call's recording: stereo WAV, caller left, agent right, written off the audio path.

Both sides are placed by their frames' timestamps on one time line that starts with the first frame:

    caller  |##|##|##|  |  |##|##|      arrival times wobble; a frame follows the one before it
    agent   |##|##|##|##|##|##|##|      unless it is more than 3 frames off: then a gap is silence,
             0  1  2  3  4  5  6        and what came too early (a faster clock, a burst) is dropped

Once a second the interleaved sound and then the header's sizes are written, so whatever kills the process
leaves a file that plays up to its last second. Disk trouble ends the recording, never the call.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import struct
import threading
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


class Recorder:
    """Records one call into `path`. Frames must have the recorder's rate.

    `error` is set once the disk has failed; `dropped` counts frames that were not recorded.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path = path
        self.rate = rate
        self.error: OSError | None = None
        self.dropped = 0
        self._queue: queue.Queue[tuple[int, Frame] | None] = queue.Queue(_QUEUED_FRAMES)
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def offer_caller(self, frame: Frame) -> None:
        """Take one inbound frame; never waits."""
        self._offer(0, frame)

    def offer_agent(self, frame: Frame) -> None:
        """Take one outbound frame, speech or silence; never waits."""
        self._offer(1, frame)

    async def close(self) -> None:
        """Write what is queued and close the file. Safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._join)

    def _offer(self, side: int, frame: Frame) -> None:
        if self._closed or self.error is not None:
            return
        try:
            self._queue.put_nowait((side, frame))
        except queue.Full:
            self.dropped += 1

    def _join(self) -> None:
        # The thread reads until it sees None, even after an error, so this cannot hang on a full queue.
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _write(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb", buffering=0) as file:
                self._copy(_WavFile(file, self.rate))
        except OSError as error:
            self.error = error
            log.error(
                "The recording stopped; the call goes on",
                extra={"path": str(self.path), "reason": str(error)},
            )
            while self._queue.get() is not None:
                pass

    def _copy(self, wav: _WavFile) -> None:
        line = _TimeLine(self.rate)
        while True:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                wav.append(line.take(everything=True))
                continue
            if item is None:
                wav.append(line.take(everything=True))
                return
            if not line.place(*item):
                self.dropped += 1
            if line.ready:
                wav.append(line.take())


class _TimeLine:
    """Two tracks of frames not written yet; index 0 is the first frame of the call."""

    def __init__(self, rate: int) -> None:
        self._frame_bytes = frame_bytes(rate)
        self._start: float | None = None
        self._written = 0
        self._tracks = (bytearray(), bytearray())
        self._next = [0, 0]

    @property
    def ready(self) -> bool:
        """A second of both sides waits, or two of one whose other side has gone silent."""
        return min(self._next) - self._written >= _SECOND or (
            max(self._next) - self._written >= 2 * _SECOND
        )

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
