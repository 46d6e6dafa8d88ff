"""Runs the migrations on the connection that `engine.storage.db` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from engine.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # The caller began the transaction (BEGIN IMMEDIATE on SQLite), so DDL is atomic on both.
    transactional_ddl=True,
)
context.run_migrations()
