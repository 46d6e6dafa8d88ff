import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from engine.errors import ModelError
from engine.inference.pool import Priority, Workers


class Gate:
    """Holds a lane until it is opened, and tells when the lane has got there."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.open.wait(10)
        return "gate"


@pytest.fixture
async def workers():
    workers = Workers()
    yield workers
    await workers.close()


async def occupy(workers: Workers, gate: Gate) -> asyncio.Task[str]:
    task = asyncio.create_task(workers.run("llm", gate))
    await asyncio.to_thread(gate.entered.wait, 10)
    return task


async def test_one_lane_is_one_named_thread(workers: Workers) -> None:
    names = {await workers.run("stt", lambda: threading.current_thread().name) for _ in range(5)}
    assert names == {"offhook-stt-0"}
    assert await workers.run("tts", lambda: threading.current_thread().name) == "offhook-tts-0"


async def test_a_wide_lane_works_for_several_at_once() -> None:
    workers = Workers({"stt": 2})
    both = threading.Barrier(2, timeout=10)
    await asyncio.gather(workers.run("stt", both.wait), workers.run("stt", both.wait))
    assert workers.stats()["stt"].finished == 2
    await workers.close()


async def test_arguments_results_and_errors_pass_through(workers: Workers) -> None:
    assert await workers.run("stt", divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run("stt", divmod, 7, 0)
    assert await workers.run("stt", divmod, 9, 2) == (4, 1)


async def test_a_confirmed_turn_goes_before_a_guess(workers: Workers) -> None:
    gate = Gate()
    first = await occupy(workers, gate)
    done: list[str] = []
    jobs = [
        asyncio.create_task(workers.run("llm", done.append, name, priority=priority))
        for name, priority in [
            ("background", Priority.BACKGROUND),
            ("guess 1", Priority.SPECULATION),
            ("guess 2", Priority.SPECULATION),
            ("turn", Priority.TURN),
        ]
    ]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, *jobs)
    assert done == ["turn", "guess 1", "guess 2", "background"]


async def test_cancelled_work_that_has_not_begun_is_never_done(workers: Workers) -> None:
    gate = Gate()
    first = await occupy(workers, gate)
    done: list[str] = []
    job = asyncio.create_task(workers.run("llm", done.append, "unwanted"))
    await asyncio.sleep(0)
    assert workers.stats()["llm"].queued == 1
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert workers.stats()["llm"].queued == 0
    gate.open.set()
    assert await first == "gate"
    await workers.run("llm", done.append, "wanted")
    assert done == ["wanted"]
    stats = workers.stats()["llm"]
    assert (stats.dropped, stats.finished) == (1, 2)


async def test_cancelling_running_work_returns_at_once_and_frees_the_lane_later(
    workers: Workers,
) -> None:
    gate = Gate()
    first = await occupy(workers, gate)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert workers.stats()["llm"].busy
    gate.open.set()
    assert await workers.run("llm", lambda: "next") == "next"


async def test_a_stream_hands_its_items_over_in_order(workers: Workers) -> None:
    assert [n async for n in workers.stream("tts", lambda: iter(range(500)))] == list(range(500))


async def test_an_error_in_a_stream_comes_after_the_items_before_it(workers: Workers) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ModelError("no more")

    stream = workers.stream("tts", broken)
    assert await anext(stream) == 1
    with pytest.raises(ModelError, match="no more"):
        await anext(stream)


async def test_closing_a_stream_stops_the_work_and_closes_the_generator(workers: Workers) -> None:
    closed = threading.Event()
    made: list[int] = []

    def endless() -> Iterator[int]:
        try:
            n = 0
            while True:
                made.append(n)
                yield n
                n += 1
        finally:
            closed.set()

    async with aclosing(workers.stream("tts", endless, limit=4)) as items:
        assert await anext(items) == 0
    assert await asyncio.to_thread(closed.wait, 10)
    assert await workers.run("tts", lambda: "free") == "free"
    assert len(made) <= 7


async def test_a_stream_runs_at_most_its_limit_ahead(workers: Workers) -> None:
    made: list[int] = []
    full = threading.Event()

    def count() -> Iterator[int]:
        for n in range(20):
            made.append(n)
            if n == 4:
                full.set()
            yield n

    stream = workers.stream("tts", count, limit=3)
    assert await anext(stream) == 0
    assert await asyncio.to_thread(full.wait, 10)
    assert len(made) == 5
    assert [n async for n in stream] == list(range(1, 20))


async def test_closing_fails_what_is_queued_and_waits_for_what_runs() -> None:
    workers = Workers()
    gate = Gate()
    running = await occupy(workers, gate)
    queued = asyncio.create_task(workers.run("llm", lambda: "late"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(workers.close())
    with pytest.raises(ModelError):
        await queued
    assert not closing.done()
    gate.open.set()
    await closing
    assert await running == "gate"
    with pytest.raises(ModelError):
        await workers.run("llm", lambda: "after")
