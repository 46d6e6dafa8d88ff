"""The schema and the record book on a real PostgreSQL, started for this test alone."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from engine.events import utc_now
from engine.storage import writer
from engine.storage.db import open_database, schema_state
from engine.storage.records import CallStore
from engine.storage.rows import CallRow, ToolRow, TranscriptRow
from engine.storage.tables import metadata

NOON = dt.datetime(2026, 2, 17, 12, 0, 0, 5000, tzinfo=dt.UTC)


class Server:
    """A cluster in a folder of its own, reached by its Unix socket only."""

    def __init__(self, programs: Path, folder: Path, user: str) -> None:
        self._programs, self.folder, self._user = programs, folder, user
        self.url = f"postgresql+asyncpg://{user}@/postgres?host={folder}"

    def create(self) -> None:
        self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self.folder / "data", *arguments],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # PostgreSQL refuses to run as root.
            user=self._user if os.getuid() == 0 else None,
            cwd=self.folder,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found and not installed:
        pytest.skip("PostgreSQL is not installed (no initdb)")
    programs = Path(found).resolve().parent if found else installed[-1].parent
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    folder = Path(tempfile.mkdtemp(prefix="offhook-pg-"))
    if os.getuid() == 0:
        shutil.chown(folder, user)
    server = Server(programs, folder, user)
    try:
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


async def test_replaying_the_migrations_gives_the_declared_schema(server: Server) -> None:
    engines = await asyncio.gather(*(open_database(server.url) for _ in range(3)))

    def differences(connection: sa.Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        )

    async with engines[0].connect() as connection:
        assert await connection.run_sync(differences) == []
    for engine in engines:
        await engine.dispose()
    assert (await schema_state(server.url)).up_to_date


async def test_a_call_reads_back_as_it_was_told(server: Server, tmp_path: Path) -> None:
    engine = await open_database(server.url)
    store = CallStore(engine, tmp_path, node="pbx")
    await store.start()
    await store.call_started(CallRow("call-1", "outbound", "100", "+15550100", NOON))
    await store.call_started(CallRow("call-2", "inbound", "+15550100", "100", NOON))
    store.call_answered("call-1", NOON + dt.timedelta(seconds=2))
    store.transcript(
        "call-1", TranscriptRow("agent", "nul\x00 and \ud800 half", 0, 1, status="cut")
    )
    store.tool("call-1", ToolRow(0, "t", {"n": math.nan}, ["\x00"], True, 1))
    store.event("call-1", 10**30, "a number no database holds")
    store.event("no-such-call", 1, "orphan")
    store.event("call-1", 7, "kept")
    store.call_finished("call-1", "completed", "", NOON + dt.timedelta(seconds=9), "hangup")
    await store.flush()

    record = await store.get_call("call-1")
    assert record and record.call.started_at == NOON and record.call.outcome == "completed"
    assert [row.text for row in record.transcripts] == ["nul and ? half"]
    assert record.tools[0].arguments == {"n": None} and record.tools[0].result == [""]
    assert [row.type for row in record.events] == ["kept"]
    assert (tmp_path / "rejected.jsonl").read_text().count('"why"') == 2
    assert await store.reconcile(utc_now()) == 1
    assert [call.outcome for call in await store.list_calls()] == ["completed", "engine_lost"]
    await store.close()
    await engine.dispose()


async def test_records_survive_the_death_of_the_server(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SPILL_AFTER_S", 0.1)
    engine = await open_database(server.url)
    store = CallStore(engine, tmp_path)
    await store.start()
    await store.call_started(CallRow("call-3", "inbound", "+15550100", "100", NOON))
    await asyncio.to_thread(server.stop)
    store.event("call-3", 1, "while it was down")
    await store.call_started(CallRow("call-4", "inbound", "+15550100", "100", NOON))
    spooled = (tmp_path / "calls.jsonl").read_text()
    assert "while it was down" in spooled and "call-4" in spooled
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(30):
        while not store.database_is_up:  # noqa: ASYNC110 - the writer has no event to wait for
            await asyncio.sleep(0.05)
    record = await store.get_call("call-3")
    assert record and [row.type for row in record.events] == ["while it was down"]
    assert await store.get_call("call-4")
    await store.close()
    await engine.dispose()
