"""Opening the database and bringing its schema up to date.

SQLite (`sqlite+aiosqlite:///…`) runs in WAL mode; PostgreSQL goes by `postgresql+asyncpg://…`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from engine.errors import ConfigError, StorageError

BUSY_TIMEOUT_MS = 1500
CONNECT_TIMEOUT_S = 5.0
MIGRATION_LOCK = 0x0FF400C
"""Key of PostgreSQL's advisory lock; any number of our own."""
DRIVERS = ("sqlite+aiosqlite", "postgresql+asyncpg")

_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where the schema is and where this version of the program wants it. Empty: no schema yet."""

    current: str
    head: str
    problems: tuple[str, ...] = ()

    @property
    def up_to_date(self) -> bool:
        return self.current == self.head


async def open_database(url: str) -> AsyncEngine:
    """Migrate to the newest schema, then connect. Dispose of the engine when done.

    The migration runs on a thread, with a loop of its own. Raises ConfigError for a URL of another
    driver and StorageError when the database cannot be reached or is newer than this program.
    """
    await upgrade(url)
    return connect(url)


def connect(url: str) -> AsyncEngine:
    """An engine for a database that has its schema already. Nothing is opened yet. Raises ConfigError."""
    parsed = _parse(url)
    if parsed.drivername == "sqlite+aiosqlite":
        engine = create_async_engine(parsed)
        sa.event.listen(engine.sync_engine, "connect", _configure_sqlite)
        return engine
    # A server restart must cost one quiet reconnect, not an error.
    return create_async_engine(
        parsed, pool_pre_ping=True, connect_args={"timeout": CONNECT_TIMEOUT_S}
    )


async def upgrade(url: str) -> None:
    """Apply every missing migration. Raises ConfigError and StorageError."""
    parsed = _parse(url)
    if parsed.drivername == "sqlite+aiosqlite" and parsed.database:
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unreachable(parsed, error) from error
    try:
        await asyncio.to_thread(lambda: asyncio.run(_upgrade(url)))
    except CommandError as error:
        raise StorageError(
            f"the database schema cannot be upgraded: {error}",
            how_to_fix=[
                "the database was written by a newer version: install that version again",
                "or restore the backup made before it was upgraded",
            ],
        ) from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _unreachable(parsed, error) from error


async def schema_state(url: str) -> SchemaState:
    """Compare the schema with this program, and let SQLite check its own file.

    Raises ConfigError, and StorageError when the database cannot be read or does not exist.
    """
    parsed = _parse(url)
    is_sqlite = parsed.drivername == "sqlite+aiosqlite"
    if is_sqlite and not await asyncio.to_thread(_is_file, parsed.database or ""):
        raise StorageError(
            f"there is no database at {parsed.database}",
            how_to_fix=["run `offhook db upgrade`, or start `offhook serve` once"],
        )
    engine = connect(url)
    try:
        async with engine.connect() as connection:
            current = await connection.run_sync(
                lambda sync: MigrationContext.configure(sync).get_current_revision()
            )
            problems: tuple[str, ...] = ()
            if is_sqlite:
                rows = await connection.exec_driver_sql("PRAGMA quick_check(5)")
                problems = tuple(line for (line,) in rows if line != "ok")
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _unreachable(parsed, error) from error
    finally:
        await engine.dispose()
    head = ScriptDirectory.from_config(_alembic()).get_current_head()
    return SchemaState(current or "", head or "", problems)


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError("`database` is not an SQLAlchemy URL") from error
    if parsed.drivername not in DRIVERS:
        raise ConfigError(
            f"`database` uses {parsed.drivername!r}, which is not supported",
            how_to_fix=[f"begin the URL with {' or '.join(f'{name}://' for name in DRIVERS)}"],
        )
    return parsed


def _is_file(path: str) -> bool:
    return Path(path).is_file()


def _unreachable(url: sa.URL, error: Exception) -> StorageError:
    # `str(url)` hides the password.
    return StorageError(
        f"the database {url} cannot be used: {error}",
        how_to_fix=[
            "check that the folder is writable (SQLite) or that the server answers (PostgreSQL)",
            "check `database` in offhook.toml",
        ],
    )


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # WAL: readers never block the writer. FULL: a committed call survives a power cut too; the one
    # background writer commits about ten times a second, so the price is small.
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _alembic() -> Config:
    config = Config()
    # ConfigParser reads `%` as the start of a reference.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def _upgrade(url: str) -> None:
    engine = connect(url)
    try:
        async with engine.connect() as connection:
            await _lock(connection)
            await connection.run_sync(_run_migrations)
            await connection.commit()
    finally:
        await engine.dispose()


async def _lock(connection: AsyncConnection) -> None:
    """Two engines that start at once migrate one after the other, and a failed migration leaves nothing."""
    if connection.dialect.name == "sqlite":
        await connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))


def _run_migrations(connection: sa.Connection) -> None:
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
