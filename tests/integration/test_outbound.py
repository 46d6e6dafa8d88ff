"""`offhook call`: the command, Asterisk and the engine place a call together."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.bench.speech import trimmed
from engine.config import Settings
from engine.dialog.phrases import phrases
from engine.lab.softphone import Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import prompt
from tests.integration.calling import Watch, hears
from tests.integration.scripted import Script, agent, voice

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

NUMBER = "+15550123"
GREETING = "Good day, this is a reminder."
AGENT_FILE = f"""
name = "R"
languages = ["en"]
greeting = "{GREETING}"
prompt = "Be brief."
"""


@dataclass
class Ran:
    status: int
    out: str
    err: str


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def board(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    folder = tmp_path_factory.mktemp("outbound")
    agents = {"reminder": agent("reminder", greeting=GREETING)}
    script = Script(says="Thank you, goodbye.")
    async with switchboard(Settings(), agents, folder, answers={}, parts=script) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def trunk(board: Switchboard) -> AsyncIterator[Softphone]:
    """The telephone that is called."""
    async with Softphone("callee", sip_port=board.pbx.trunk_port) as phone:
        yield phone


class Command:
    def __init__(self, folder: Path, board: Switchboard) -> None:
        (folder / "agents").mkdir()
        (folder / "agents" / "reminder.toml").write_text(AGENT_FILE)
        ami = board.settings.ami
        self._file = folder / "offhook.toml"
        self._file.write_text(
            f'data = "{folder}"\nagents = "{folder / "agents"}"\n'
            f'[ami]\nport = {ami.port}\nsecret = "{ami.secret.get_secret_value()}"\n'
        )

    async def call(self, number: str, *options: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine", "-c", str(self._file)),
            *("call", number, "--agent", "reminder", *options),
            env={k: v for k, v in os.environ.items() if not k.startswith("OFFHOOK_")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def command(tmp_path: Path, board: Switchboard) -> Command:
    return Command(tmp_path, board)


async def test_the_called_person_talks_with_the_agent(
    board: Switchboard, trunk: Softphone, command: Command
) -> None:
    watch = Watch(board.engine)
    placing = asyncio.create_task(command.call(NUMBER, "--json", "--caller-id", "+15550700"))
    ringing = await asyncio.wait_for(trunk.incoming(), 10)
    assert "+15550700" in ringing.remote
    await asyncio.sleep(0.3)
    assert not watch.of("call.started"), "nobody has answered yet"
    ringing.answer()
    ran = await placing
    answer: dict[str, Any] = json.loads(ran.out)
    assert (ran.status, answer["answered"], answer["result"]) == (0, True, "answered")
    await hears(ringing, voice(GREETING))
    await ringing.wait_for_silence(300)
    await ringing.play(trimmed(prompt("vm-goodbye").samples))
    await hears(ringing, voice(phrases("en").farewell))
    await ringing.ended.wait()
    assert ringing.end_cause == "remote"
    record = await watch.record()
    assert record.call.direction == "outbound"
    assert record.call.to_number == NUMBER
    assert record.call.agent == "reminder"
    assert (record.call.outcome, record.call.next_step) == ("completed", "hangup")
    assert [row.role for row in record.transcripts] == ["agent", "caller", "agent"]


async def test_busy_and_unanswered_and_unknown(
    board: Switchboard, trunk: Softphone, command: Command
) -> None:
    watch = Watch(board.engine)
    unanswered = asyncio.create_task(command.call(NUMBER, "--ring-s", "5"))
    ringing = await asyncio.wait_for(trunk.incoming(), 10)
    busy = asyncio.create_task(command.call("15550124"))
    (await asyncio.wait_for(trunk.incoming(), 10)).refuse(486)
    nowhere = await command.call(NUMBER, "--channel", "PJSIP/{number}@nobody")
    for ran, why in (
        (await busy, "busy"),
        (await unanswered, "no answer"),
        (nowhere, "no such line"),
    ):
        assert ran.status == 1
        assert ran.out.startswith(why), ran
        assert "Traceback" not in ran.err
    await asyncio.wait_for(ringing.ended.wait(), 5)
    assert ringing.end_cause == "cancelled"
    assert not watch.of("call.started")
