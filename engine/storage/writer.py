"""The one background writer: records are queued without waiting and stored in small batches.

    queue -> database                         usual
    queue -> spool file                       the database has been failing for `SPILL_AFTER_S`
    spool file -> database, queue -> database  it is back; what is older goes first

So memory stays bounded, order is kept and nothing is lost. Every insert carries its own key, hence a
batch whose answer was lost can be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from engine.aio import backoff
from engine.errors import StorageError
from engine.storage.spool import Record, Spool
from engine.storage.tables import metadata

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""How long a first record waits for company."""
BATCH = 200
ATTEMPT_S = 2.0
SPILL_AFTER_S = 1.0
QUEUE_LIMIT = 20_000
"""Reached only when the disk hangs as well; then the newest records are lost, and counted."""


@dataclass(slots=True)
class _Item:
    record: Record | None
    """None: only a mark that someone waits for."""
    done: asyncio.Future[None] | None = None


class Writer:
    """Start it, put records, close it. `done` of a record means: in the database or in the synced spool."""

    def __init__(self, engine: AsyncEngine, spool: Spool) -> None:
        self._engine = engine
        self._spool = spool
        self._queue: deque[_Item] = deque()
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._spilled = False
        self._waits = backoff(0.1, 10.0)
        self._retry_at = 0.0
        self.lost = 0

    @property
    def database_is_up(self) -> bool:
        """False while records go to the spool instead."""
        return not self._spilled

    async def start(self) -> None:
        """First store what an earlier run left in the spool. Raises StorageError when it is unusable."""
        try:
            self._spilled = not await asyncio.to_thread(self._spool.empty)
        except OSError as error:
            raise StorageError(
                f"the spool cannot be read: {error}",
                how_to_fix=["make the folder `spool` inside `data` readable for the engine's user"],
            ) from error
        if self._spilled:
            await self._replay()
        self._task = asyncio.create_task(self._run(), name="storage writer")

    async def close(self) -> None:
        """Store or spool everything queued. Goes on to the end even when the caller is cancelled."""
        self._closing = True
        self._wake.set()
        self._urgent.set()
        if self._task is None:
            return
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.shield(self._task)
            except asyncio.CancelledError as error:
                if self._task.cancelled():
                    raise
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def put(self, record: Record) -> None:
        """Queue one record. Never waits and never raises."""
        self._put(_Item(record))

    async def put_and_wait(self, record: Record | None = None) -> None:
        """Queue one record (or none) and wait until it and all before it are safe. Raises StorageError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._put(_Item(record, done)):
            raise StorageError("the call's record cannot be kept")
        self._urgent.set()
        await done

    def _put(self, item: _Item) -> bool:
        if self._closing or len(self._queue) >= QUEUE_LIMIT:
            self.lost += 1
            log.error("a record is lost", extra={"closed": self._closing, "lost": self.lost})
            return False
        self._queue.append(item)
        self._wake.set()
        return True

    async def _run(self) -> None:
        while True:
            if not self._queue:
                if self._closing:
                    return
                self._wake.clear()
                await self._wait(self._wake, self._probe_in())
            elif not self._closing:
                await self._wait(self._urgent, GATHER_S)
            self._urgent.clear()
            items = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            records = [item.record for item in items if item.record is not None]
            try:
                error = await self._keep(records)
            except Exception as bug:
                # A fault of ours in one batch must not end the writing of all later ones.
                log.exception("the writer failed", extra={"records": len(records)})
                self.lost += len(records)
                error = StorageError(f"the writer failed: {type(bug).__name__}")
            for item in items:
                if item.done is None or item.done.done():
                    continue
                if error is None:
                    item.done.set_result(None)
                else:
                    item.done.set_exception(error)

    def _probe_in(self) -> float | None:
        """Seconds until the database is tried again; None while it is up."""
        return max(0.0, self._retry_at - time.monotonic()) if self._spilled else None

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass  # that is the other way to stop waiting

    async def _keep(self, records: Sequence[Record]) -> StorageError | None:
        """To the database, else to the spool, for as long as it takes.

        Only when closing is it final that both fail; that error is the result.
        """
        deadline = time.monotonic() + SPILL_AFTER_S
        for wait in backoff(0.05, 2.0):
            if await self._to_database(records) or not records:
                return None
            if self._spilled or self._closing or time.monotonic() >= deadline:
                try:
                    await self._to_spool(records)
                    return None
                except OSError as error:
                    log.error("the spool cannot be written", extra={"error": str(error)})
                    if self._closing:
                        self.lost += len(records)
                        return StorageError(f"neither database nor spool can be written: {error}")
            await asyncio.sleep(wait)
        raise AssertionError("backoff never ends")

    async def _to_database(self, records: Sequence[Record]) -> bool:
        if self._spilled and (time.monotonic() < self._retry_at or not await self._replay()):
            return False
        return not records or await self._commit(records)

    async def _to_spool(self, records: Sequence[Record]) -> None:
        if not self._spilled:
            log.error("the database is down; records go to the spool")
            self._spilled = True
            self._retry_later()
        await asyncio.to_thread(self._spool.append, records)

    def _retry_later(self) -> None:
        self._retry_at = time.monotonic() + next(self._waits)

    async def _replay(self) -> bool:
        """Store the spool, oldest first; after a failure all of it is sent again later."""
        count = 0
        try:
            with contextlib.closing(self._spool.batches(BATCH)) as batches:
                while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                    if not await self._commit(batch):
                        self._retry_later()
                        return False
                    count += len(batch)
            await asyncio.to_thread(self._spool.clear)
        except OSError as error:
            log.error("the spool cannot be read", extra={"error": str(error)})
            self._retry_later()
            return False
        self._spilled = False
        self._waits = backoff(0.1, 10.0)
        log.warning("records from the spool are in the database", extra={"records": count})
        return True

    async def _commit(self, records: Sequence[Record]) -> bool:
        """Store a batch in one transaction. False: the database is down, try again.

        A record that it will never take must not hold up the others: it is put aside.
        """
        try:
            async with asyncio.timeout(ATTEMPT_S), self._engine.begin() as connection:
                await _execute(connection, records)
            return True
        except (sa.exc.SQLAlchemyError, OSError, ValueError, TypeError, OverflowError) as error:
            if not _is_refusal(error):
                # The text of a database error can quote what was being stored.
                log.warning("the database failed", extra={"error": type(error).__name__})
                return False
            if len(records) > 1:
                return all([await self._commit([record]) for record in records])
            log.error(
                "the database refused a record; it was put aside",
                extra={"table": records[0].table, "error": type(error).__name__},
            )
            why = str(getattr(error, "orig", error))
        try:
            await asyncio.to_thread(self._spool.reject, records[0], why)
        except OSError as error:
            log.error("a refused record cannot be put aside", extra={"error": str(error)})
            return False
        return True


def _is_refusal(error: Exception) -> bool:
    """Whether the fault is the record's: SQLSTATE class 22 or 23, or a value the driver cannot send."""
    if not isinstance(error, sa.exc.DBAPIError):
        # A StatementError of SQLAlchemy's own is about a value; an OSError is about the road.
        return not isinstance(error, OSError)
    state = getattr(error.orig, "sqlstate", None) or ""
    # asyncpg refuses a value on our side with an error that is a ValueError as well.
    reason = getattr(error.orig, "__cause__", None)
    return (
        isinstance(error, sa.exc.IntegrityError | sa.exc.DataError)
        or state[:2] in ("22", "23")
        or isinstance(reason, ValueError | TypeError | OverflowError)
    )


async def _execute(connection: AsyncConnection, records: Sequence[Record]) -> None:
    for op, table, rows in _runs(records):
        if op == "insert":
            await connection.execute(_insert(connection.dialect.name, table), rows)
        else:
            await connection.execute(_update(table, rows[0]), [_renamed(row) for row in rows])


def _runs(records: Sequence[Record]) -> Iterator[tuple[str, sa.Table, list[dict[str, Any]]]]:
    """Neighbours of one shape travel as one statement."""
    for (op, table, _), run in itertools.groupby(
        records, key=lambda record: (record.op, record.table, tuple(sorted(record.values)))
    ):
        yield op, metadata.tables[table], [record.values for record in run]


def _insert(dialect: str, table: sa.Table) -> sa.Executable:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing(index_elements=[table.c.id])


def _update(table: sa.Table, shape: dict[str, Any]) -> sa.Executable:
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in shape if name != "id"}
    return table.update().where(table.c.id == sa.bindparam("new_id")).values(values)


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    # A column's own name is taken by SQLAlchemy for the SET clause.
    return {f"new_{name}": value for name, value in row.items()}
