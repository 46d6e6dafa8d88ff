"""A real process writes records and is killed in the middle."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
import subprocess
import sys
import time
from pathlib import Path

from engine.events import utc_now
from engine.storage.db import open_database
from engine.storage.records import ENGINE_LOST, CallStore

CHILD = """
import asyncio, sys, time
from pathlib import Path
from engine.events import utc_now
from engine.storage.db import open_database
from engine.storage.records import CallStore
from engine.storage.rows import CallRow

async def main() -> None:
    folder = Path(sys.argv[1])
    store = CallStore(await open_database(f"sqlite+aiosqlite:///{folder / 'c.sqlite3'}"), folder / "spool", node="n")
    await store.start()
    number = 0
    while True:
        call_id = f"call-{number}"
        await store.call_started(CallRow(call_id, "inbound", "+15550100", "100", utc_now()))
        print("started", call_id, flush=True)
        store.call_answered(call_id, utc_now())
        for tick in range(10):
            store.event(call_id, tick, "tick", {"wrote": time.time()})
            print("wrote", time.time(), flush=True)
            await asyncio.sleep(0.005)
        number += 1

asyncio.run(main())
"""


async def test_a_killed_engine_loses_no_call_and_only_the_last_moment(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    child = subprocess.Popen(  # noqa: ASYNC220 - its pipe is read on a thread
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert child.stdout is not None
    lines: list[str] = []
    try:
        while sum(line.startswith("started") for line in lines) < 8:
            lines.append(await asyncio.to_thread(child.stdout.readline))
            assert lines[-1], "the writer died by itself"
        killed_at = time.time()
        child.send_signal(signal.SIGKILL)
        lines += await asyncio.to_thread(child.stdout.readlines)
    finally:
        child.kill()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL

    engine = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'c.sqlite3'}")
    store = CallStore(engine, tmp_path / "spool", node="n")
    await store.start()
    started = {line.split()[1] for line in lines if line.startswith("started")}
    stored = await store.list_calls(1000)
    assert started <= {call.id for call in stored}, "every answered call has its record"

    times = [float(line.split()[1]) for line in lines if line.startswith("wrote")]
    records = [await store.get_call(call.id) for call in stored]
    kept = sum(len(record.events) for record in records if record)
    # All but the last moment: the gathering time, one commit, and room for a slow machine.
    assert kept >= sum(at < killed_at - 2.0 for at in times)
    assert kept >= (len(started) - 1) * 10, "a call's start is committed after all that came before"

    lost = await store.reconcile(utc_now() + dt.timedelta(seconds=1))
    assert lost == len(stored)
    assert {call.outcome for call in await store.list_calls(1000)} == {ENGINE_LOST}
    await store.close()
    await engine.dispose()
