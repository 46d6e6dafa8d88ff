"""Small asyncio pieces used all over the house."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ChannelClosed(Exception):
    """The other end closed; nothing more will come or be taken."""


class Channel(Generic[T]):
    """A bounded channel with one silhouette: send, close, iterate.

    Sound we make can wait, so `send` waits while the channel is full. Live sound cannot, so `offer`
    drops the oldest item and counts it in `dropped`.
    """

    def __init__(self, limit: int) -> None:
        self._items: asyncio.Queue[T] = asyncio.Queue()
        self._limit = limit
        self._closed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.dropped = 0

    def __len__(self) -> int:
        return self._items.qsize()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    async def send(self, item: T) -> None:
        """Put one item, waiting for room. Raises ChannelClosed."""
        while self._items.qsize() >= self._limit and not self.closed:
            self._room.clear()
            await self._room.wait()
        if self.closed:
            raise ChannelClosed
        self._items.put_nowait(item)

    def offer(self, item: T) -> None:
        """Put one item now; when full the oldest goes and is counted."""
        if self.closed:
            return
        if self._items.qsize() >= self._limit:
            self._items.get_nowait()
            self.dropped += 1
        self._items.put_nowait(item)

    def close(self) -> None:
        """No more items; readers get what is queued, then stop."""
        self._closed.set()
        self._room.set()

    def clear(self) -> None:
        """Throw away what is queued."""
        while not self._items.empty():
            self._items.get_nowait()
        self._room.set()

    def get_nowait(self) -> T | None:
        """The next item, or None when nothing is queued."""
        if self._items.empty():
            return None
        item = self._items.get_nowait()
        self._room.set()
        return item

    async def receive(self) -> T:
        """The next item. Raises ChannelClosed when closed and empty."""
        if not self._items.empty():
            item = self._items.get_nowait()
            self._room.set()
            return item
        if self.closed:
            raise ChannelClosed
        getter = asyncio.ensure_future(self._items.get())
        closer = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait({getter, closer}, return_when=asyncio.FIRST_COMPLETED)
            if getter.done():
                self._room.set()
                return getter.result()
            raise ChannelClosed
        finally:
            for waiter in (getter, closer):
                if not waiter.done():
                    waiter.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiter

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            try:
                item = await self.receive()
            except ChannelClosed:
                return
            yield item


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are gone; their errors are theirs to have logged."""
    live = [task for task in tasks if task is not None and task is not asyncio.current_task()]
    for task in live:
        task.cancel()
    if live:
        await asyncio.gather(*live, return_exceptions=True)


class Background:
    """Holds fire-and-forget tasks so that they are neither lost nor leaked."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        await cancel_and_wait(*self._tasks)


def backoff(first_s: float = 0.5, limit_s: float = 15.0) -> Iterator[float]:
    """Endless waits in seconds: doubling with full jitter, never above `limit_s`."""
    wait = first_s
    while True:
        yield random.uniform(wait / 2, wait)
        wait = min(wait * 2, limit_s)
