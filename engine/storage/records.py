"""Reading and writing calls. Statements live here, named; nothing on the audio path waits for the disk."""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
import secrets
import socket
import time
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from engine.errors import StorageError
from engine.events import utc_now
from engine.storage.rows import (
    CallRecord,
    CallRow,
    EventRow,
    ToolRow,
    TranscriptRow,
    TurnRow,
)
from engine.storage.spool import Record, Spool
from engine.storage.tables import call_events, calls, tool_invocations, transcripts, turns
from engine.storage.writer import Writer

DEFAULT_PROJECT = "default"
ENGINE_LOST = "engine_lost"

Row = TypeVar("Row", CallRow, EventRow, TranscriptRow, ToolRow, TurnRow)


class CallStore:
    """The calls of one project, as one engine (`node`) writes them.

    The writing methods queue and return at once; the rows are committed within about 100 ms. Only
    `call_started` waits, so that no call is answered without a record. While the database is down
    records wait in files under `spool`.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        spool: Path,
        *,
        project_id: str = DEFAULT_PROJECT,
        node: str = "",
    ) -> None:
        self._engine = engine
        self._writer = Writer(engine, Spool(spool))
        self._project_id = project_id
        self._node = node or socket.gethostname()
        self._next_id = _Ids()

    @property
    def database_is_up(self) -> bool:
        return self._writer.database_is_up

    @property
    def lost(self) -> int:
        """Records that neither the database nor the disk took. Anything but 0 is an alarm."""
        return self._writer.lost

    async def start(self) -> None:
        await self._writer.start()

    async def close(self) -> None:
        """Store everything queued; finishes even when cancelled meanwhile. The engine stays open."""
        await self._writer.close()

    async def flush(self) -> None:
        """Wait until all that was written so far is safe. Raises StorageError."""
        await self._writer.put_and_wait()

    # --- Writing -------------------------------------------------------------------------------

    async def call_started(self, call: CallRow) -> None:
        """Keep the call before it is answered. Returns when it is safe; raises StorageError."""
        values = dataclasses.asdict(call) | {"project_id": self._project_id, "node": self._node}
        await self._writer.put_and_wait(Record("insert", "calls", _columns(values)))

    def call_answered(
        self, call_id: str, answered_at: dt.datetime, *, language: str = "", recording: str = ""
    ) -> None:
        values: dict[str, Any] = {"id": call_id, "state": "live", "answered_at": answered_at}
        if language:
            values["language"] = language
        if recording:
            values["recording"] = recording
        self._writer.put(Record("update", "calls", _columns(values)))

    def recording_kept(self, call_id: str, recording: str) -> None:
        """The recording is in another file now."""
        self._writer.put(
            Record("update", "calls", _columns({"id": call_id, "recording": recording}))
        )

    def call_finished(
        self, call_id: str, outcome: str, reason: str, ended_at: dt.datetime, next_step: str
    ) -> None:
        values = {
            "id": call_id,
            "state": "ended",
            "outcome": outcome,
            "reason": reason,
            "ended_at": ended_at,
            "next_step": next_step,
        }
        self._writer.put(Record("update", "calls", _columns(values)))

    def event(
        self, call_id: str, offset_ms: int, type: str, data: dict[str, Any] | None = None
    ) -> None:
        self._insert("call_events", call_id, EventRow(utc_now(), offset_ms, type, data or {}))

    def transcript(self, call_id: str, row: TranscriptRow) -> None:
        self._insert("transcripts", call_id, row)

    def tool(self, call_id: str, row: ToolRow) -> None:
        self._insert("tool_invocations", call_id, row)

    def turn(self, call_id: str, row: TurnRow) -> None:
        self._insert("turns", call_id, row)

    def _insert(
        self, table: str, call_id: str, row: EventRow | TranscriptRow | ToolRow | TurnRow
    ) -> None:
        values = dataclasses.asdict(row) | {"id": self._next_id(), "call_id": call_id}
        self._writer.put(Record("insert", table, _columns(values)))

    async def reconcile(self, now: dt.datetime) -> int:
        """Close the calls that this node left open when it died. Run once, after `start`.

        Such a call ended, as far as anyone knows, when its last event was stored. Returns how many
        there were; raises StorageError.
        """
        last_sign = sa.func.coalesce(
            sa.select(sa.func.max(call_events.c.at))
            .where(call_events.c.call_id == calls.c.id)
            .scalar_subquery(),
            calls.c.answered_at,
            calls.c.started_at,
        )
        lost = (
            calls.update()
            .where(calls.c.project_id == self._project_id, calls.c.node == self._node)
            .where(calls.c.state != "ended", calls.c.started_at <= now)
            .values(state="ended", outcome=ENGINE_LOST, ended_at=last_sign)
            .values(reason="the engine stopped during the call")
            .returning(calls.c.id, calls.c.answered_at, calls.c.started_at, calls.c.ended_at)
        )
        try:
            async with self._engine.begin() as connection:
                rows = (await connection.execute(lost)).all()
                events = [
                    {
                        "id": self._next_id(),
                        "call_id": row.id,
                        "at": now,
                        "offset_ms": round(
                            (row.ended_at - (row.answered_at or row.started_at)).total_seconds()
                            * 1000
                        ),
                        "type": "call.engine_lost",
                        "data": {},
                    }
                    for row in rows
                ]
                if events:
                    await connection.execute(call_events.insert(), events)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise _unreadable(error) from error
        return len(rows)

    # --- Reading -------------------------------------------------------------------------------

    async def list_calls(self, limit: int = 50) -> list[CallRow]:
        """The latest calls, newest first. Raises StorageError."""
        statement = (
            calls.select()
            .where(calls.c.project_id == self._project_id)
            .order_by(calls.c.started_at.desc(), calls.c.id)
            .limit(limit)
        )
        try:
            async with self._engine.connect() as connection:
                return [_row(CallRow, row) for row in (await connection.execute(statement)).all()]
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise _unreadable(error) from error

    async def get_call(self, call_id: str) -> CallRecord | None:
        """One call with all that happened in it; None when there is no such call. Raises StorageError."""
        statement = calls.select().where(
            calls.c.project_id == self._project_id, calls.c.id == call_id
        )
        try:
            async with self._engine.connect() as connection:
                row = (await connection.execute(statement)).one_or_none()
                if row is None:
                    return None
                return CallRecord(
                    _row(CallRow, row),
                    await _parts(connection, call_events, EventRow, call_id),
                    await _parts(connection, transcripts, TranscriptRow, call_id, "start_ms"),
                    await _parts(connection, tool_invocations, ToolRow, call_id),
                    await _parts(connection, turns, TurnRow, call_id, "number"),
                )
        except (sa.exc.SQLAlchemyError, OSError) as error:
            raise _unreadable(error) from error


async def _parts(
    connection: AsyncConnection, table: sa.Table, kind: type[Row], call_id: str, *order: str
) -> tuple[Row, ...]:
    """The rows of one call; in the order they were written where no other is asked for."""
    statement = (
        table.select()
        .where(table.c.call_id == call_id)
        .order_by(*(table.c[name] for name in order), table.c.id)
    )
    return tuple(_row(kind, row) for row in (await connection.execute(statement)).all())


def _row(kind: type[Row], row: sa.Row[Any]) -> Row:
    return kind(**{field.name: getattr(row, field.name) for field in dataclasses.fields(kind)})


def _unreadable(error: Exception) -> StorageError:
    return StorageError(
        f"the database does not answer: {type(error).__name__}",
        how_to_fix=["run `offhook doctor`", "check `database` in offhook.toml"],
    )


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, dt.datetime) else _plain(value)
        for name, value in values.items()
    }


def _plain(value: Any) -> Any:
    """What both databases and JSON can hold: no NUL, no lone surrogate, no NaN, no foreign object."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return str(value).replace("\x00", "").encode("utf-8", "replace").decode()


class _Ids:
    """UUIDv7 (RFC 9562): sorts by time, also within one millisecond and when the clock steps back."""

    def __init__(self) -> None:
        self._last = 0

    def __call__(self) -> str:
        # 48 bits of milliseconds and 12 of counter, then version, variant and 62 random bits.
        self._last = max(self._last + 1, time.time_ns() // 1_000_000 << 12)
        stamp, count = self._last >> 12, self._last & 0xFFF
        number = stamp << 80 | 0x7 << 76 | count << 64 | 0b10 << 62 | secrets.randbits(62)
        digits = f"{number:032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
