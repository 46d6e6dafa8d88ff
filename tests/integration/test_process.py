"""`offhook serve` as systemd runs it: killed in the middle of a call, started again, and drained."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest

from engine.bench.speech import trimmed
from engine.config import Settings
from engine.dialog.phrases import phrases
from engine.lab.sandbox import Sandbox
from engine.lab.softphone import PhoneCall, Softphone
from engine.lab.switchboard import behind, on_free_ports, sandbox_for
from engine.lab.voice import prompt
from engine.storage.db import open_database
from engine.storage.records import CallStore
from engine.storage.rows import CallRecord
from tests.integration.calling import hears

pytestmark = [pytest.mark.asterisk, pytest.mark.models]

MENU = prompt("vm-reachoper").samples
START_S = 90.0
DRAIN_S = 4.0
GREETING = "Good day."
STORY = "We are open from nine to six, and on Saturday from ten until four. " * 5
AGENT = """
name = "Clerk"
languages = ["en"]
greeting = "{greeting}"
prompt = "You sell tyres. Be brief."
[voices.en]
engine = "espeak"
"""


class Service:
    """One Asterisk, one settings file; the engine is another process each time."""

    def __init__(self, settings: Settings, pbx: Sandbox, folder: Path) -> None:
        self.settings = settings
        self.pbx = pbx
        self._folder = folder
        agents = folder / "agents"
        agents.mkdir()
        for name, greeting in (("clerk", GREETING), ("talker", STORY)):
            (agents / f"{name}.toml").write_text(AGENT.format(greeting=greeting))
        own = settings
        (folder / "offhook.toml").write_text(
            f'data = "{own.data}"\nagents = "{agents}"\nlog_json = true\n'
            f"[agi]\nport = {own.agi.port}\n[audiosocket]\nport = {own.audiosocket.port}\n"
            f"[websocket]\nport = {own.websocket.port}\n[http]\nport = {own.http.port}\n"
            f'[ami]\nport = {own.ami.port}\nsecret = "{own.ami.secret.get_secret_value()}"\n'
            f"[limits]\ndrain_s = {DRAIN_S}\n"
            '[[routes]]\nnumber = "700"\nagent = "clerk"\n'
            '[[routes]]\nnumber = "702"\nagent = "talker"\n'
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        with self._log() as log:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "engine",
                    "-c",
                    str(self._folder / "offhook.toml"),
                    "serve",
                ),
                env={k: v for k, v in os.environ.items() if not k.startswith("OFFHOOK_")},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            await self._ready(process)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    @contextmanager
    def _log(self) -> Iterator[int]:
        file = os.open(self._folder / "serve.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            yield file
        finally:
            os.close(file)

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        url = f"http://127.0.0.1:{self.settings.http.port}/ready"
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while True:
                assert process.returncode is None, (self._folder / "serve.log").read_text()
                try:
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass  # not yet
                await asyncio.sleep(0.1)

    async def records(self) -> list[CallRecord]:
        """Newest first."""
        database = await open_database(self.settings.database_url)
        store = CallStore(database, spool=self.settings.data / "spool")
        try:
            found = [await store.get_call(row.id) for row in await store.list_calls()]
            return [record for record in found if record is not None]
        finally:
            await database.dispose()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    own = on_free_ports(Settings(), tmp_path)
    async with sandbox_for(own, tmp_path) as pbx:
        yield Service(behind(own, pbx, {}), pbx, tmp_path)


async def test_killed_then_started_again_then_drained(service: Service) -> None:
    async with Softphone("caller") as phone:
        async with service.running() as engine:
            await _killed_in_mid_call(service, phone, engine)
        async with service.running() as engine:
            await _nothing_was_lost(service)
            await _drained(service, phone, engine)


async def _killed_in_mid_call(
    service: Service, phone: Softphone, engine: asyncio.subprocess.Process
) -> None:
    call = await phone.call(service.pbx.uri("700"))
    await call.wait_for_sound(10)
    await call.wait_for_silence(500)
    await call.play(trimmed(prompt("privacy-prompt").samples))
    await call.wait_for_sound(20)  # it answers, and dies over it
    engine.send_signal(signal.SIGKILL)
    await engine.wait()
    # The dialplan goes on at once: nobody sits in silence.
    await hears(call, MENU, 10)
    await call.hang_up()


async def _nothing_was_lost(service: Service) -> None:
    (record,) = await service.records()
    assert (record.call.state, record.call.outcome) == ("ended", "engine_lost")
    assert record.call.reason == "the engine stopped during the call"
    assert record.call.ended_at is not None
    assert record.events[-1].type == "call.engine_lost"
    roles = [(row.role, row.status) for row in record.transcripts]
    assert roles[:2] == [("agent", "heard"), ("caller", roles[1][1])]
    assert record.transcripts[0].text == GREETING


async def _drained(service: Service, phone: Softphone, engine: asyncio.subprocess.Process) -> None:
    active: PhoneCall = await phone.call(service.pbx.uri("702"))
    await active.wait_for_sound(10)
    engine.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)
    async with Softphone("late") as other:
        late = await other.call(service.pbx.uri("700"))
        await hears(late, MENU, 10)
        await late.hang_up()
    # The other one is still being told the story.
    assert not active.ended.is_set()
    await active.wait_for_sound(2)
    await asyncio.wait_for(active.ended.wait(), DRAIN_S + 15)
    assert active.end_cause == "remote"
    assert await asyncio.wait_for(engine.wait(), 20) == 0
    records = await service.records()
    assert len(records) == 2, "the late caller never came to the engine"
    record = records[0]
    assert (record.call.state, record.call.outcome) == ("ended", "drained")
    assert record.call.next_step == "hangup"
    said = [(row.text, row.status) for row in record.transcripts]
    assert said[-1] == (phrases("en").farewell, "heard")
    assert "cut" in {status for _, status in said}, "the story was not told to its end"
