"""Threads on which models think, so that the event loop keeps its 20 ms clock.

One lane is one queue and one thread: a model that is not thread-safe lives on its lane alone. A lane may be
made wider, for a model that works for several callers at once. In a queue the confirmed turn of one caller goes before the guess about another. Work cancelled before it began is
dropped; work already running cannot be stopped, so its result is thrown away. A stream can be stopped
between two items.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Generic, TypeVar

from engine.aio import Channel
from engine.errors import ModelError

log = logging.getLogger(__name__)
T = TypeVar("T")


class Priority(IntEnum):
    """Smaller goes first."""

    TURN = 0
    """A caller waits for this now."""
    SPECULATION = 1
    """Perhaps somebody will want this."""
    BACKGROUND = 2
    """Warming up, filling caches."""


@dataclass(frozen=True, slots=True)
class LaneStats:
    """One lane as it is now. `wait_ms` is how long the latest piece of work had to queue."""

    queued: int
    busy: int
    """Threads at work."""
    finished: int
    dropped: int
    wait_ms: float
    wait_ms_mean: float


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    number: int
    work: Callable[[], Any] = field(compare=False)
    result: asyncio.Future[Any] = field(compare=False)
    loop: asyncio.AbstractEventLoop = field(compare=False)
    since: float = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Workers:
    """All lanes of the process. A lane's threads start with its first work."""

    def __init__(self, widths: Mapping[str, int] | None = None) -> None:
        """`widths`: how many threads a lane has, where that is not one."""
        self._widths = dict(widths or {})
        self._lanes: dict[str, _Lane] = {}
        self._closed = False

    async def run(
        self, lane: str, fn: Callable[..., T], *args: Any, priority: int = Priority.TURN
    ) -> T:
        """`fn(*args)` on the lane's thread. Raises what `fn` raises, and ModelError after `close`."""
        context = contextvars.copy_context()
        job = self._lane(lane).put(lambda: context.run(fn, *args), priority)
        try:
            result: T = await job.result
        finally:
            job.cancelled = True
        return result

    async def stream(
        self,
        lane: str,
        factory: Callable[[], Iterator[T]],
        *,
        priority: int = Priority.TURN,
        limit: int = 64,
    ) -> AsyncGenerator[T, None]:
        """The items of `factory()`, which runs on the lane's thread until its end.

        At most `limit` items lie unread, then the thread waits, and with it the lane. Close the
        iterator (`contextlib.aclosing`) to stop the work after the item it is at.
        """
        feed: _Feed[T] = _Feed(factory, limit)
        context = contextvars.copy_context()
        job = self._lane(lane).put(lambda: context.run(feed.work), priority)
        job.result.add_done_callback(lambda _: feed.items.close())
        try:
            async for item in feed.items:
                feed.taken()
                yield item
            await job.result
        finally:
            job.cancelled = True
            feed.stop()

    def others_busy(self, lane: str) -> bool:
        """Whether a lane beside this one is at work. From any thread; a hint, stale at once."""
        return any(other.busy > 0 for name, other in list(self._lanes.items()) if name != lane)

    def full(self, lane: str) -> bool:
        """Whether work put on this lane now would have to queue. A hint, stale at once."""
        found = self._lanes.get(lane)
        return found is not None and found.busy >= found.width

    def stats(self) -> dict[str, LaneStats]:
        return {name: lane.stats() for name, lane in self._lanes.items()}

    async def close(self) -> None:
        """Refuse new work, fail what is queued, wait for what is running."""
        self._closed = True
        for lane in self._lanes.values():
            lane.close()
        for lane in self._lanes.values():
            await asyncio.to_thread(lane.join)

    def _lane(self, name: str) -> _Lane:
        if self._closed:
            raise ModelError("the models are shutting down")
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(name, self._widths.get(name, 1))
        return lane


class _Lane:
    def __init__(self, name: str, width: int) -> None:
        self.width = width
        self._jobs: list[_Job] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self.busy = 0
        self._finished = self._dropped = 0
        self._wait_ms = self._wait_ms_sum = 0.0
        # A daemon: a native library that never returns must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"offhook-{name}-{number}", daemon=True)
            for number in range(width)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[], Any], priority: int) -> _Job:
        loop = asyncio.get_running_loop()
        with self._changed:
            job = _Job(
                priority,
                next(self._numbers),
                work,
                loop.create_future(),
                loop,
                time.monotonic(),
            )
            heapq.heappush(self._jobs, job)
            self._changed.notify()
        return job

    def stats(self) -> LaneStats:
        with self._changed:
            return LaneStats(
                queued=sum(not job.cancelled for job in self._jobs),
                busy=self.busy,
                finished=self._finished,
                dropped=self._dropped,
                wait_ms=self._wait_ms,
                wait_ms_mean=self._wait_ms_sum / max(1, self._finished + self.busy),
            )

    def close(self) -> None:
        with self._changed:
            self._closed = True
            jobs, self._jobs = self._jobs, []
            self._changed.notify_all()
        for job in jobs:
            _settle(job, None, ModelError("the models are shutting down"))

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            result: Any = None
            failure: BaseException | None = None
            try:
                result = job.work()
            # Whatever a model raises belongs to the one who awaits it; the lane must live on.
            except BaseException as error:  # noqa: BLE001
                failure = error
            with self._changed:
                self.busy -= 1
                self._finished += 1
            if job.cancelled and failure is not None:
                log.warning("work nobody waits for any more has failed", exc_info=failure)
            _settle(job, result, failure)

    def _next(self) -> _Job | None:
        with self._changed:
            while True:
                while self._jobs:
                    job = heapq.heappop(self._jobs)
                    if job.cancelled:
                        self._dropped += 1
                        continue
                    self.busy += 1
                    self._wait_ms = (time.monotonic() - job.since) * 1000
                    self._wait_ms_sum += self._wait_ms
                    return job
                if self._closed:
                    return None
                self._changed.wait()


class _Feed(Generic[T]):
    """Carries items from the lane's thread to the loop, a bounded number at a time."""

    def __init__(self, factory: Callable[[], Iterator[T]], limit: int) -> None:
        self.items: Channel[T] = Channel(limit)
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(limit)
        self._stopped = threading.Event()

    def taken(self) -> None:
        self._room.release()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()

    def work(self) -> None:
        if self._stopped.is_set():
            return
        iterator = self._factory()
        try:
            for item in iterator:
                self._room.acquire()
                if self._stopped.is_set():
                    return
                _call(self._loop, self.items.offer, item)
                # Asked here too, so that the next item is not begun for nobody.
                if self._stopped.is_set():
                    return
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


def _settle(job: _Job, result: Any, failure: BaseException | None) -> None:
    def settle() -> None:
        if job.cancelled or job.result.done():
            return
        if failure is None:
            job.result.set_result(result)
        elif isinstance(failure, StopIteration):  # a future refuses it
            job.result.set_exception(ModelError("a model ended its stream out of turn"))
        else:
            job.result.set_exception(failure)

    _call(job.loop, settle)


def _call(loop: asyncio.AbstractEventLoop, fn: Callable[..., Any], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        # The loop is closed: the process ends and nobody waits for this.
        log.debug("the loop has ended before a model")
