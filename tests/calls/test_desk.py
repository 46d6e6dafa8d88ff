"""The desk: how many calls fit, and how all of them end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.calls.desk import Desk
from engine.errors import AtCapacity


class Session:
    """A call that lasts until `ends_at`, or `farewell_s` longer than it is asked to end."""

    def __init__(self, call_id: str, ends_at: float, farewell_s: float = 1.0) -> None:
        self.call_id = call_id
        self.asked: list[tuple[float, str]] = []
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._farewell_s = farewell_s
        self._timer = self._loop.call_at(ends_at, self._over.set)

    def snapshot(self) -> dict[str, Any]:
        return {"id": self.call_id}

    def end_politely(self, result: str) -> None:
        self.asked.append((self._loop.time(), result))
        self._timer.cancel()
        self._loop.call_later(self._farewell_s, self._over.set)

    async def sit(self, desk: Desk) -> None:
        with desk.seat(self):  # type: ignore[arg-type]
            await self._over.wait()


async def seated(desk: Desk, *sessions: Session) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(session.sit(desk)) for session in sessions]
    await asyncio.sleep(0)
    return tasks


async def test_calls_and_promises_fill_the_desk() -> None:
    desk = Desk(limit=2)
    desk.check_room(promised=1)
    (task,) = await seated(desk, Session("a", ends_at=5.0))
    assert len(desk) == 1 and desk.live() == [{"id": "a"}]
    assert [session.call_id for session in desk.sessions()] == ["a"]
    desk.check_room()
    with pytest.raises(AtCapacity, match="2 lines"):
        desk.check_room(promised=1)
    await task
    assert len(desk) == 0 and desk.live() == []


async def test_a_call_that_breaks_leaves_its_seat() -> None:
    desk = Desk(limit=1)
    with pytest.raises(ValueError), desk.seat(Session("a", ends_at=1.0)):  # type: ignore[arg-type]
        raise ValueError
    assert len(desk) == 0
    desk.check_room()


async def test_an_empty_desk_is_drained_at_once() -> None:
    desk = Desk(limit=1)
    await desk.drain(limit_s=60)
    assert not desk.open and asyncio.get_running_loop().time() == 0.0


async def test_calls_may_end_by_themselves_before_goodbye_is_said() -> None:
    desk = Desk(limit=2)
    soon, late = Session("soon", ends_at=10.0), Session("late", ends_at=100.0)
    tasks = await seated(desk, soon, late)
    draining = asyncio.create_task(desk.drain(limit_s=60))
    await asyncio.sleep(1)
    assert not desk.open and len(desk) == 2
    await draining
    assert soon.asked == [] and late.asked == [(60.0, "drained")]
    assert asyncio.get_running_loop().time() == 61.0
    await asyncio.gather(*tasks)


async def test_a_goodbye_that_does_not_end_is_not_waited_for() -> None:
    desk = Desk(limit=1)
    tasks = await seated(desk, Session("a", ends_at=100.0, farewell_s=300.0))
    await desk.drain(limit_s=60, goodbye_s=10)
    assert asyncio.get_running_loop().time() == 70.0 and len(desk) == 1
    await asyncio.gather(*tasks)
