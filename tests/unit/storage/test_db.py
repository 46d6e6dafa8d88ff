from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from engine.errors import ConfigError, StorageError
from engine.storage import db
from engine.storage.tables import metadata


def url_of(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / 'deep' / 'offhook.sqlite3'}"


async def test_replaying_the_migrations_gives_the_declared_schema(tmp_path: Path) -> None:
    engine = await db.open_database(url_of(tmp_path))

    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    def checks(connection: sa.Connection) -> set[str | None]:
        # Alembic does not compare CHECK constraints, so they are compared by name here.
        inspector = sa.inspect(connection)
        return {
            check["name"]
            for table in metadata.tables
            for check in inspector.get_check_constraints(table)
        }

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        stored = await connection.run_sync(checks)
    await engine.dispose()
    declared = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    assert stored == declared
    assert len(declared) == 4


async def test_sqlite_is_set_up_for_one_writer_and_many_readers(tmp_path: Path) -> None:
    engine = await db.open_database(url_of(tmp_path))
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    await engine.dispose()
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": db.BUSY_TIMEOUT_MS,
        "synchronous": 2,
    }


async def test_opening_twice_at_once_and_again_later_migrates_once(tmp_path: Path) -> None:
    engines = await asyncio.gather(*(db.open_database(url_of(tmp_path)) for _ in range(3)))
    for engine in engines:
        await engine.dispose()
    engine = await db.open_database(url_of(tmp_path))
    await engine.dispose()
    state = await db.schema_state(url_of(tmp_path))
    assert state.up_to_date and state.head == "0001" and state.problems == ()


async def test_a_percent_sign_in_the_path_is_a_percent_sign(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / '100%d'}"
    await db.upgrade(url)
    assert (await db.schema_state(url)).up_to_date


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    engine = await db.open_database(url_of(tmp_path))
    async with engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await engine.dispose()
    with pytest.raises(StorageError, match="9999") as caught:
        await db.upgrade(url_of(tmp_path))
    assert "newer version" in caught.value.how_to_fix[0]
    assert not (await db.schema_state(url_of(tmp_path))).up_to_date


async def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at " * 10)
    with pytest.raises(StorageError, match="cannot be used"):
        await db.open_database(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(StorageError, match="cannot be used"):
        await db.schema_state(f"sqlite+aiosqlite:///{path}")


async def test_a_missing_database_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no database"):
        await db.schema_state(url_of(tmp_path))
    assert not (tmp_path / "deep").exists()


async def test_a_server_that_is_not_there_is_a_storage_error_without_the_password() -> None:
    with pytest.raises(StorageError) as caught:
        await db.open_database("postgresql+asyncpg://me:hunter2@127.0.0.1:1/offhook")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("url", ["mysql://localhost/x", "sqlite:///x", "no url at all"])
async def test_an_unknown_driver_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError):
        await db.open_database(url)
