"""The declared schema. Replaying the migrations must give exactly this; a test says so.

Offsets (`*_ms`) count from the moment the call was answered. Times are UTC with milliseconds.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class UtcDateTime(sa.types.TypeDecorator[dt.datetime]):
    """An aware UTC time cut to milliseconds. SQLite keeps no zone, so it is put back when read."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time needs a time zone")
        utc = value.astimezone(dt.UTC)
        utc = utc.replace(microsecond=utc.microsecond // 1000 * 1000)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        read: dt.datetime = value
        return read.replace(tzinfo=dt.UTC) if read.tzinfo is None else read.astimezone(dt.UTC)


Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def _id() -> sa.Column[str]:
    # Time-ordered (UUIDv7) and minted by the writer, so that a batch sent twice is stored once.
    return sa.Column("id", sa.Text, primary_key=True)


def _call_id() -> sa.Column[str]:
    return sa.Column(
        "call_id", sa.Text, sa.ForeignKey("calls.id", ondelete="CASCADE"), nullable=False
    )


calls = sa.Table(
    "calls",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    # The engine that carries the call: after a crash each machine closes its own.
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("direction", sa.Text, nullable=False),
    sa.Column("from_number", sa.Text, nullable=False),
    sa.Column("to_number", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("agent_version", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("recording", sa.Text, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("answered_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("next_step", sa.Text),
    sa.CheckConstraint("state in ('starting', 'live', 'ended')", name="state"),
    sa.CheckConstraint("direction in ('inbound', 'outbound')", name="direction"),
    sa.Index(None, "project_id", "started_at"),
    sa.Index(None, "state", "node"),
)

call_events = sa.Table(
    "call_events",
    metadata,
    _id(),
    _call_id(),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("offset_ms", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("data", Json, nullable=False),
    sa.Index(None, "call_id"),
)

transcripts = sa.Table(
    "transcripts",
    metadata,
    _id(),
    _call_id(),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("start_ms", sa.Integer, nullable=False),
    sa.Column("end_ms", sa.Integer, nullable=False),
    sa.Column("confidence", sa.Float),
    sa.Column("language", sa.Text, nullable=False),
    # What became of an agent's sentence on the line; a caller's is always `heard`.
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("heard_ms", sa.Integer),
    sa.CheckConstraint("role in ('caller', 'agent')", name="role"),
    sa.CheckConstraint("status in ('heard', 'cut', 'unheard')", name="status"),
    sa.Index(None, "call_id"),
)

tool_invocations = sa.Table(
    "tool_invocations",
    metadata,
    _id(),
    _call_id(),
    sa.Column("offset_ms", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("arguments", Json, nullable=False),
    sa.Column("result", Json, nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sa.Column("trace_id", sa.Text, nullable=False),
    sa.Index(None, "call_id"),
)

turns = sa.Table(
    "turns",
    metadata,
    _id(),
    _call_id(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("offset_ms", sa.Integer, nullable=False),
    # Where the gap between the caller's last speech and the agent's first sound went.
    sa.Column("endpoint_ms", sa.Integer),
    sa.Column("stt_ms", sa.Integer),
    sa.Column("llm_first_token_ms", sa.Integer),
    sa.Column("llm_first_sentence_ms", sa.Integer),
    sa.Column("tts_first_frame_ms", sa.Integer),
    sa.Column("gap_ms", sa.Integer),
    sa.Column("speculated", sa.Boolean, nullable=False),
    sa.Column("barge_in", sa.Boolean, nullable=False),
    # From the caller's first speech over the agent to silence on the line.
    sa.Column("barge_in_stop_ms", sa.Integer),
    sa.Index(None, "call_id"),
)
