"""One vocabulary of events for the console, the panel, metrics and webhooks, and an in-process bus."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.aio import Channel


def utc_now() -> dt.datetime:
    """Stored times are UTC with milliseconds."""
    now = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Event:
    """`type` is `noun.verb` (`call.started`, `turn.finished`); `offset_ms` counts from the answer."""

    type: str
    call_id: str = ""
    offset_ms: int = 0
    data: dict[str, Any] = field(default_factory=dict)
    at: dt.datetime = field(default_factory=utc_now)


class EventBus:
    """Publishing never waits: a slow subscriber loses the oldest events and can see how many."""

    def __init__(self) -> None:
        self._channels: set[Channel[Event]] = set()
        self._handlers: list[Callable[[Event], None]] = []

    def publish(self, event: Event) -> None:
        for handler in self._handlers:
            handler(event)
        for channel in self._channels:
            channel.offer(event)

    def listen(self, handler: Callable[[Event], None]) -> None:
        """Call `handler` at once for each event; it must not block or raise."""
        self._handlers.append(handler)

    @contextmanager
    def subscribe(self, limit: int = 1000) -> Iterator[Channel[Event]]:
        channel: Channel[Event] = Channel(limit)
        self._channels.add(channel)
        try:
            yield channel
        finally:
            self._channels.discard(channel)
            channel.close()
