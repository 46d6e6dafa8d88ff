"""Where records wait on disk while the database is down: a file of JSON lines, replayed in order.

A record is one write: an insert (stored once however often it is sent) or an update of one call.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.storage.tables import UtcDateTime, metadata

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """`values` are the columns by name; always with the primary key `id`."""

    op: Literal["insert", "update"]
    table: str
    values: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(
            {"op": self.op, "table": self.table, "values": self.values},
            ensure_ascii=False,
            separators=(",", ":"),
            default=dt.datetime.isoformat,
        )

    @staticmethod
    def from_json(line: str) -> Record:
        """Raises ValueError for a line that is no record."""
        read = json.loads(line)
        try:
            record = Record(read["op"], read["table"], read["values"])
            columns = metadata.tables[record.table].c
            for name, value in record.values.items():
                if value is not None and isinstance(columns[name].type, UtcDateTime):
                    record.values[name] = dt.datetime.fromisoformat(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a record") from error
        return record


class Spool:
    """Two files in one folder: `calls.jsonl` waits for the database, `rejected.jsonl` for a person.

    Every method blocks on the disk, so it belongs on a thread. One caller at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = folder / "calls.jsonl"
        self._rejected = folder / "rejected.jsonl"

    def empty(self) -> bool:
        try:
            return self._waiting.stat().st_size == 0
        except FileNotFoundError:
            return True

    def append(self, records: Sequence[Record]) -> None:
        """Write and sync. Raises OSError."""
        self._append(self._waiting, [record.to_json() for record in records])

    def reject(self, record: Record, why: str) -> None:
        """Keep a record that the database will never take, with the reason. Raises OSError."""
        self._append(self._rejected, [json.dumps({"why": why, "record": record.to_json()})])

    def batches(self, size: int) -> Generator[list[Record], None, None]:
        """The waiting records, oldest first. A line that was torn by a power cut is put aside."""
        batch: list[Record] = []
        if self.empty():
            return
        with self._waiting.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():
                    continue
                try:
                    batch.append(Record.from_json(line))
                except ValueError:
                    log.warning("a line of the spool is torn; it was put aside")
                    self._append(self._rejected, [json.dumps({"why": "torn", "record": line})])
                if len(batch) == size:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def clear(self) -> None:
        """Everything waiting was stored."""
        self._waiting.unlink(missing_ok=True)

    def _append(self, path: Path, lines: Sequence[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Callers' words are in here: nobody but the engine's user reads it.
        descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        with open(descriptor, "ab") as file:
            # The leading line break ends a line that an earlier crash tore.
            file.write(("\n" + "\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
