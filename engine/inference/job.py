"""Blocking work on a thread, for somebody on the event loop who may lose patience."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from engine.errors import WeightsError
from engine.inference.sources import FetchStopped

log = logging.getLogger(__name__)
T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""What is worked on, bytes done, bytes in all (0: not known). Called on the event loop."""


class Job:
    """One piece of work on a thread: it reports to the loop and asks whether to go on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def check(self) -> None:
        if self._stop.is_set():
            raise FetchStopped

    def report(self, name: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._loop.call_soon_threadsafe(self._progress, name, done, total)


async def off_loop(work: Callable[[Job], T], progress: Progress | None) -> T:
    """Run `work` on a thread; once cancelled, tell it to stop and wait for it. Raises WeightsError."""
    job = Job(progress)
    thread = asyncio.ensure_future(asyncio.to_thread(work, job))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        # The thread must be gone before the caller is: it writes into folders the caller may remove.
        job.stop()
        await asyncio.wait({thread})
        error = None if thread.cancelled() else thread.exception()
        if error is not None and not isinstance(error, FetchStopped):
            log.warning("stopped work on weights had failed", exc_info=error)
        raise
    except OSError as error:
        raise WeightsError(
            f"weights could not be read or written: {error}",
            how_to_fix=["check the free space and the rights of the folder named above"],
        ) from error
