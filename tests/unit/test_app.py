"""The process: taking changed agents and routes into use while calls go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pty
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.app import Engine
from engine.bench.silent_models import silent_parts
from engine.calls.parts import Parts, Voice
from engine.config import (
    Agent,
    AgiSettings,
    AudioSocketSettings,
    HttpSettings,
    RecordingSettings,
    RouteSettings,
    Settings,
    WebSocketSettings,
)
from engine.errors import ConfigError, ModelError
from engine.lab.audiosocket_caller import AudioSocketCaller, agi_step
from engine.lab.switchboard import free_port

ROOT = Path(engine.__file__).parent.parent
WEIGHTS = ROOT / "models" / "weights"
HOST = "127.0.0.1"


def write_agent(folder: Path, name: str, greeting: str = "Hello.") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(
        f'name = "R"\nlanguages = ["en"]\ngreeting = "{greeting}"\nprompt = "Be brief."\n'
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the desk has no event to wait for
            await asyncio.sleep(0.01)


def routes(**numbers: str) -> tuple[RouteSettings, ...]:
    return tuple(RouteSettings(number=key[1:], agent=agent) for key, agent in numbers.items())


@dataclass
class House:
    """A running engine with silent models, and the agents whose voices were made ready, in order."""

    engine: Engine
    folder: Path
    prepared: list[Agent] = field(default_factory=list)
    broken: bool = False

    @property
    def agi(self) -> tuple[str, int]:
        return HOST, self.engine.agi.port

    def fresh(self, **changed: object) -> Settings:
        return self.engine.settings.model_copy(update=changed)

    async def status(self, number: str) -> str:
        return (await agi_step(*self.agi, called=number))["OFFHOOK_STATUS"]

    def greetings(self) -> list[str]:
        return [session.ticket.agent.greeting for session in self.engine.desk.sessions()]


@asynccontextmanager
async def open_house(folder: Path, *, record: str = "") -> AsyncIterator[House]:
    """`record` is the format of the recordings; empty: nothing is recorded."""
    write_agent(folder / "agents", "reception")
    if record:
        with (folder / "agents" / "reception.toml").open("a") as agent:
            agent.write('record = true\nrecord_notice = "This call is recorded."\n')
    settings = Settings(
        data=folder / "var",
        agents=folder / "agents",
        agi=AgiSettings(port=0),
        audiosocket=AudioSocketSettings(port=0),
        websocket=WebSocketSettings(enabled=False),
        http=HttpSettings(port=0),
        routes=routes(n700="reception"),
        recording=RecordingSettings.model_validate({"format": record or "wav"}),
    )

    async def parts(
        settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
    ) -> Parts:
        silent = await silent_parts(settings, agents, stack)

        async def prepare(agents: Mapping[str, Agent]) -> Mapping[str, Voice]:
            if house.broken:
                raise ModelError("the voice cannot be loaded")
            house.prepared += agents.values()
            return await silent.prepare(agents)

        return replace(silent, prepare=prepare)

    house = House(Engine(settings, parts=parts), folder)
    async with house.engine:
        yield house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as house:
        yield house


async def test_a_reload_takes_new_agents_and_routes(house: House) -> None:
    assert await house.status("701") == "UNKNOWN"
    write_agent(house.folder / "agents", "sales")
    await house.engine.reload(house.fresh(routes=routes(n701="sales", n702="reception")))
    assert [await house.status(number) for number in ("700", "701", "702")] == [
        "UNKNOWN",
        "OK",
        "OK",
    ]
    assert [agent.id for agent in house.prepared] == ["sales"], "the other one is warm already"
    assert set(house.engine.parts.voices) == {"reception", "sales"}


async def test_a_running_call_keeps_its_agent_and_the_next_one_gets_the_new(house: House) -> None:
    first = await AudioSocketCaller.call(house.agi, "700")
    await until(lambda: len(house.greetings()) == 1)
    write_agent(house.folder / "agents", "reception", "Good day.")
    await house.engine.reload(house.fresh())
    second = await AudioSocketCaller.call(house.agi, "700")
    await until(lambda: len(house.greetings()) == 2)
    assert house.greetings() == ["Hello.", "Good day."]
    await first.hang_up()
    await second.hang_up()


async def test_a_call_promised_before_is_answered_as_promised(house: House) -> None:
    agents = house.folder / "agents"
    variables = await agi_step(*house.agi, called="700")
    (agents / "reception.toml").rename(agents / "welcome.toml")
    await house.engine.reload(house.fresh(routes=routes(n700="welcome")))
    ticket = house.engine.admission.claim(variables["OFFHOOK_UUID"])
    parts = await house.engine._parts_for(ticket.agent)
    assert list(parts.voices) == ["reception"] and list(house.engine.parts.voices) == ["welcome"]


async def test_a_broken_file_changes_nothing(house: House) -> None:
    before = house.engine.agents, house.engine.parts, house.engine.settings
    write_agent(house.folder / "agents", "sales")
    with pytest.raises(ConfigError, match="'ghost', which does not exist"):
        await house.engine.reload(house.fresh(routes=routes(n701="ghost")))
    house.broken = True
    with pytest.raises(ModelError):
        await house.engine.reload(house.fresh(routes=routes(n701="sales")))
    (house.folder / "agents" / "sales.toml").write_text("name =")
    with pytest.raises(ConfigError, match="is not TOML"):
        await house.engine.reload(house.fresh(routes=routes(n701="sales")))
    assert (house.engine.agents, house.engine.parts, house.engine.settings) == before
    assert await house.status("700") == "OK" and await house.status("701") == "UNKNOWN"


async def test_what_only_a_start_changes_is_told(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "engine.app")
    agi = AgiSettings(port=free_port())
    await house.engine.reload(house.fresh(agi=agi, log_json=True))
    (record,) = [item for item in caplog.records if "next start" in item.message]
    assert record.__dict__["settings"] == ["log_json", "agi"]
    assert house.engine.settings.agi.port == 0


def _at_work(name: str) -> bool:
    return any(task.get_name() == name for task in asyncio.all_tasks())


async def recorded_call(house: House) -> Path:
    """Makes a call of some frames; its recording as the record book names it in the end."""
    caller = await AudioSocketCaller.call(house.agi, "700")
    await until(house.engine.desk.sessions)
    (session,) = house.engine.desk.sessions()
    await caller.play(np.zeros(1600, np.int16))
    await caller.hang_up()
    await until(lambda: not house.engine.desk.sessions() and not _at_work("opus"))
    await house.engine.store.flush()
    record = await house.engine.store.get_call(session.call_id)
    assert record is not None
    return Path(record.call.recording)


@pytest.mark.skipif(not shutil.which("opusenc"), reason="opus-tools are not installed")
async def test_a_recording_becomes_opus_and_the_record_says_so(tmp_path: Path) -> None:
    async with open_house(tmp_path, record="opus") as house:
        kept = await recorded_call(house)
    assert kept.suffix == ".opus" and kept.read_bytes().startswith(b"OggS")
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


async def test_without_an_encoder_the_wav_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.media.opus.PROGRAM", "no-such-encoder")
    async with open_house(tmp_path, record="opus") as house:
        kept = await recorded_call(house)
    assert kept.suffix == ".wav" and kept.read_bytes().startswith(b"RIFF")
    assert "the recording stays WAV" in caplog.text


def test_a_route_to_nobody_is_told_at_the_start(tmp_path: Path) -> None:
    write_agent(tmp_path, "reception")
    with pytest.raises(ConfigError, match="names agent 'ghost'") as told:
        Engine(Settings(agents=tmp_path, routes=routes(n700="ghost")))
    assert "name one of: reception" in told.value.how_to_fix[0]


# --- the command, with the real models -----------------------------------------------------------


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(120)
        yield listener


@asynccontextmanager
async def serve(
    folder: Path, *, stdin: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OFFHOOK_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine", "serve"),
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(folder / "notify")},
        stdin=stdin,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def word(systemd: socket.socket) -> list[str]:
    return (await asyncio.to_thread(systemd.recv, 1000)).decode().splitlines()


def configure(folder: Path, agi_port: int, more: str = "") -> None:
    (folder / "offhook.toml").write_text(
        f'data = "var"\n[models]\nfolder = "{WEIGHTS}"\n[agi]\nport = {agi_port}\n'
        f"[audiosocket]\nport = {free_port()}\n[websocket]\nenabled = false\n"
        f'[http]\nport = {free_port()}\n[[routes]]\nnumber = "700"\nagent = "reception"\n{more}'
    )


@pytest.mark.models
@pytest.mark.skipif(not WEIGHTS.exists(), reason="offhook models fetch")
async def test_sighup_reloads_and_a_closed_terminal_ends_it(
    tmp_path: Path, systemd: socket.socket
) -> None:
    port = free_port()
    agents = tmp_path / "agents"
    write_agent(agents, "reception")
    configure(tmp_path, port)
    terminal, stdin = pty.openpty()
    async with serve(tmp_path, stdin=stdin) as process:
        assert process.stderr is not None
        os.close(stdin)
        assert await word(systemd) == ["READY=1"]

        async def reload() -> str:
            process.send_signal(signal.SIGHUP)
            assert (await word(systemd))[0] == "RELOADING=1"
            (status,) = await word(systemd)
            assert await word(systemd) == ["READY=1"]
            return status

        # 1. a new agent speaks, with phrases that were made before its first call
        write_agent(agents, "sales", "Sales, good day.")
        configure(tmp_path, port, '[[routes]]\nnumber = "701"\nagent = "sales"\n')
        assert await reload() == "STATUS=answering as reception, sales"
        assert (await agi_step(HOST, port, called="701"))["OFFHOOK_STATUS"] == "OK"
        # 2. a broken file leaves it in force
        (agents / "sales.toml").write_text('name = "S"\n')
        assert "the reload was refused: agent agents/sales.toml" in await reload()
        assert (await agi_step(HOST, port, called="701"))["OFFHOOK_STATUS"] == "OK"
        # 3. the terminal closes
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert (await word(systemd))[0] == "STOPPING=1"
        log = (await process.stderr.read()).decode()
        assert await process.wait() == 0
    assert "the reload was refused" in log and "docs/agents.md" in log
    assert "Traceback" not in log
