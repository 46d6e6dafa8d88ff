"""The database goes away and comes back. It is a real SQLite file; "down" is a second file that is
no database, moved into its place, or another connection that holds the write lock."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from engine.errors import StorageError
from engine.storage import db, writer
from engine.storage.db import connect, open_database
from engine.storage.records import CallStore
from engine.storage.rows import CallRow, TranscriptRow

NOON = dt.datetime(2026, 2, 17, 12, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 20)
    monkeypatch.setattr(writer, "SPILL_AFTER_S", 0.1)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "calls.sqlite3"
    engine = await open_database(f"sqlite+aiosqlite:///{path}")
    await engine.dispose()
    return path


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = connect(f"sqlite+aiosqlite:///{path}")
    yield engine
    await engine.dispose()


class Lock:
    """Another process holds the write lock: every write fails with `database is locked`."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.close()


def a_call(call_id: str = "call-1") -> CallRow:
    return CallRow(call_id, "inbound", "+15550100", "100", NOON)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the writer has no event to wait for
            await asyncio.sleep(0.02)


async def test_records_wait_in_the_spool_and_come_back_in_order(
    engine: AsyncEngine, path: Path, tmp_path: Path
) -> None:
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    lock = Lock(path)
    await store.call_started(a_call())  # safe, though the database is not there
    spooled = (tmp_path / "spool" / "calls.jsonl").read_text()
    assert "call-1" in spooled and not store.database_is_up
    store.call_answered("call-1", NOON)
    for number in range(450):
        store.event("call-1", number, "tick")
    await store.flush()
    lock.release()
    await until(lambda: store.database_is_up)
    store.call_finished("call-1", "completed", "", NOON + dt.timedelta(seconds=5), "hangup")
    await store.close()

    record = await store.get_call("call-1")
    assert record and record.call.outcome == "completed" and record.call.answered_at == NOON
    assert [event.offset_ms for event in record.events] == list(range(450))
    assert not (tmp_path / "spool" / "calls.jsonl").exists()
    assert store.lost == 0


async def test_a_short_hiccup_never_reaches_the_spool(
    engine: AsyncEngine, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SPILL_AFTER_S", 60.0)
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    lock = Lock(path)
    starting = asyncio.create_task(store.call_started(a_call()))
    await asyncio.sleep(0.1)
    lock.release()
    await starting
    await store.close()
    assert not (tmp_path / "spool").exists()
    assert await store.get_call("call-1")


async def test_what_a_dead_engine_spooled_is_stored_by_the_next(
    engine: AsyncEngine, path: Path, tmp_path: Path
) -> None:
    lock = Lock(path)
    first = CallStore(engine, tmp_path / "spool", node="pbx")
    await first.start()
    await first.call_started(a_call())
    first.transcript("call-1", TranscriptRow("caller", "hello\nthere", 0, 500))
    await first.close()  # the database never came back
    lock.release()
    # A power cut tore the last line.
    with (tmp_path / "spool" / "calls.jsonl").open("a") as spool:
        spool.write('{"op":"insert","table":"turns","val')

    second = CallStore(engine, tmp_path / "spool", node="pbx")
    await second.start()
    assert await second.reconcile(NOON + dt.timedelta(hours=1)) == 1
    record = await second.get_call("call-1")
    await second.close()
    assert record and [row.text for row in record.transcripts] == ["hello\nthere"]
    assert record.call.outcome == "engine_lost"
    (torn,) = (tmp_path / "spool" / "rejected.jsonl").read_text().split("\n")[1:-1]
    assert json.loads(torn)["why"] == "torn"


async def test_a_replay_that_breaks_off_is_repeated_without_doubles(
    engine: AsyncEngine, path: Path, tmp_path: Path
) -> None:
    spool = tmp_path / "spool" / "calls.jsonl"
    lock = Lock(path)
    first = CallStore(engine, tmp_path / "spool")
    await first.start()
    await first.call_started(a_call())
    first.event("call-1", 1, "once")
    await first.close()
    lock.release()
    kept = spool.read_bytes()
    for _ in range(2):  # the second time everything is in the database already
        spool.write_bytes(kept)
        again = CallStore(engine, tmp_path / "spool")
        await again.start()
        await again.close()
    record = await first.get_call("call-1")
    assert record and len(record.events) == 1


async def test_when_the_disk_fails_too_records_wait_in_memory_and_survive(
    engine: AsyncEngine, path: Path, tmp_path: Path
) -> None:
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    lock = Lock(path)
    (tmp_path / "spool").write_text("a file where the folder should be")
    starting = asyncio.create_task(store.call_started(a_call()))
    await asyncio.sleep(0.4)
    assert not starting.done()
    (tmp_path / "spool").unlink()
    lock.release()
    await starting
    await store.close()
    assert await store.get_call("call-1") and store.lost == 0


async def test_a_spool_that_cannot_be_read_is_told_at_the_start(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="spool"):
        await CallStore(engine, tmp_path / "spool").start()


async def test_memory_is_bounded(
    engine: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 10)
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    await store.call_started(a_call())
    for number in range(13):
        store.event("call-1", number, "tick")
    await store.close()
    record = await store.get_call("call-1")
    assert record and len(record.events) == 10 and store.lost == 3
