"""Calls and what happened in them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The types are written out, not imported: a later change of the tables must not change the past.
    time = sa.DateTime(timezone=True)
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

    op.create_table(
        "calls",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
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
        sa.Column("started_at", time, nullable=False),
        sa.Column("answered_at", time),
        sa.Column("ended_at", time),
        sa.Column("outcome", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("next_step", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
        sa.CheckConstraint("state in ('starting', 'live', 'ended')", name=op.f("ck_calls_state")),
        sa.CheckConstraint("direction in ('inbound', 'outbound')", name=op.f("ck_calls_direction")),
    )
    op.create_index("ix_calls_project_id_started_at", "calls", ["project_id", "started_at"])
    op.create_index("ix_calls_state_node", "calls", ["state", "node"])

    _create_part_of_call(
        "call_events",
        sa.Column("at", time, nullable=False),
        sa.Column("offset_ms", sa.Integer, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", json, nullable=False),
    )
    _create_part_of_call(
        "transcripts",
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("start_ms", sa.Integer, nullable=False),
        sa.Column("end_ms", sa.Integer, nullable=False),
        sa.Column("confidence", sa.Float),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("heard_ms", sa.Integer),
        sa.CheckConstraint("role in ('caller', 'agent')", name=op.f("ck_transcripts_role")),
        sa.CheckConstraint(
            "status in ('heard', 'cut', 'unheard')", name=op.f("ck_transcripts_status")
        ),
    )
    _create_part_of_call(
        "tool_invocations",
        sa.Column("offset_ms", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("arguments", json, nullable=False),
        sa.Column("result", json, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("trace_id", sa.Text, nullable=False),
    )
    _create_part_of_call(
        "turns",
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("offset_ms", sa.Integer, nullable=False),
        sa.Column("endpoint_ms", sa.Integer),
        sa.Column("stt_ms", sa.Integer),
        sa.Column("llm_first_token_ms", sa.Integer),
        sa.Column("llm_first_sentence_ms", sa.Integer),
        sa.Column("tts_first_frame_ms", sa.Integer),
        sa.Column("gap_ms", sa.Integer),
        sa.Column("speculated", sa.Boolean, nullable=False),
        sa.Column("barge_in", sa.Boolean, nullable=False),
        sa.Column("barge_in_stop_ms", sa.Integer),
    )


def _create_part_of_call(table: str, *columns: sa.schema.SchemaItem) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("call_id", sa.Text, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=f"fk_{table}_call_id", ondelete="CASCADE"
        ),
    )
    op.create_index(f"ix_{table}_call_id", table, ["call_id"])
