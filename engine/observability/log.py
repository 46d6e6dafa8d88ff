"""Logs: a line for a person or a JSON object for a collector, always without personal data.

Every line says which call it belongs to, when the code that wrote it runs inside `in_call`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from engine.observability.pii import mask, mask_field

current_call: ContextVar[str] = ContextVar("current_call", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# These tell every statement or every step at INFO; ours would drown.
_TALKATIVE = (
    "aiosqlite",
    "alembic",
    "asyncio",
    "sqlalchemy",
    "aiohttp.access",
    "httpx",
    "panoramisk",
)


@contextmanager
def in_call(call_id: str) -> Iterator[None]:
    """Mark all log lines written inside, also by tasks started there."""
    token = current_call.set(call_id)
    try:
        yield
    finally:
        current_call.reset(token)


def configure(level: str = "info", *, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr). May be called again: the last call counts."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if as_json else Console())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, _Masked):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


class _Masked(logging.Formatter):
    """Masks here and not in a filter, so that the record itself stays whole for other handlers."""

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields = {
            name: mask_field(name, value)
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        if "call_id" not in fields and (call_id := current_call.get()):
            fields["call_id"] = call_id
        return fields

    def message(self, record: logging.LogRecord) -> str:
        return mask(record.getMessage())

    def trace(self, record: logging.LogRecord) -> str:
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return mask("\n".join(parts))


class JsonLines(_Masked):
    """One object a line: at, level, logger, message, the fields, and error with the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
        }
        line |= {name: value for name, value in self.fields(record).items() if name not in line}
        if trace := self.trace(record):
            line["error"] = trace
        return json.dumps(line, ensure_ascii=False)


class Console(_Masked):
    """`12:00:01.250 WARNING engine.calls  sentence  key=value …`, the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = "".join(f" {name}={_short(value)}" for name, value in self.fields(record).items())
        line = (
            f"{at}.{int(record.msecs):03d} {record.levelname:<7} {record.name}: "
            f"{_one_line(self.message(record))}{' ' if fields else ''}{fields}"
        )
        trace = self.trace(record)
        return f"{line}\n{trace}" if trace else line


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _one_line(json.dumps(text, ensure_ascii=False) if " " in text or not text else text)


def _one_line(text: str) -> str:
    # A line break or an escape from outside must not forge a line or drive the terminal.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
