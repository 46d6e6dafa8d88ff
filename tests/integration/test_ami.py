"""The manager's connection breaks in the middle of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.aio import cancel_and_wait
from engine.app import Engine
from engine.bench.speech import trimmed
from engine.config import Settings
from engine.dialog.phrases import phrases
from engine.lab.sandbox import Sandbox
from engine.lab.softphone import Softphone
from engine.lab.switchboard import behind, on_free_ports, sandbox_for
from engine.lab.voice import prompt
from engine.telephony.ami import AmiClient
from tests.integration.calling import Watch, hears
from tests.integration.scripted import LONG, Script, agent, voice

pytestmark = pytest.mark.asterisk

WISH = trimmed(prompt("vm-goodbye").samples)
STORY = LONG[:90]  # 4.5 s


class Wire:
    """A TCP connection to the manager that can be cut; `port` is where the engine dials."""

    def __init__(self, manager_port: int) -> None:
        self._manager_port = manager_port
        self._pipes: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def lay(self) -> None:
        """Lay it, or lay it again where it was."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nothing passes any more, and nobody can connect."""
        assert self._server is not None
        self._server.close()
        await cancel_and_wait(*self._pipes)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._manager_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, far_writer))
                both.create_task(_pump(far_reader, writer))
        except asyncio.CancelledError:
            pass
        finally:
            for end in (writer, far_writer):
                end.transport.abort()
            self._pipes.discard(task)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    raise asyncio.CancelledError


@dataclass
class Line:
    pbx: Sandbox
    engine: Engine
    ami: AmiClient
    wire: Wire


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    own = on_free_ports(Settings(), tmp_path)
    async with sandbox_for(own, tmp_path) as pbx:
        wire = Wire(pbx.ami_port)
        await wire.lay()
        own = behind(own, pbx, {"*": "talker"})
        own = own.model_copy(update={"ami": own.ami.model_copy(update={"port": wire.port})})
        agents = {"talker": agent("talker", greeting=STORY)}
        script = Script(says="I want to speak to a person, please.")
        async with Engine(own, parts=script, agents=agents) as engine:
            assert engine.ami is not None
            await engine.ami.wait_connected(10)
            yield Line(pbx, engine, engine.ami, wire)
        await wire.cut()


async def until_down(ami: AmiClient) -> None:
    async with asyncio.timeout(10):
        while ami.connected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_call_goes_on_and_a_later_transfer_works(line: Line) -> None:
    watch = Watch(line.engine)
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=line.pbx.operator_port, auto_answer=True) as desk,
    ):
        call = await phone.call(line.pbx.uri("700"))
        await call.wait_for_sound()
        await line.wire.cut()
        await until_down(line.ami)
        await line.wire.lay()
        await line.ami.wait_connected(10)
        await hears(call, voice(STORY), 20)
        await call.wait_for_silence(500)
        await call.play(WISH)
        operator = await asyncio.wait_for(desk.incoming(), 10)
        assert operator.answered_at
        await call.hang_up()
    record = await watch.record()
    assert (record.call.outcome, record.call.next_step) == ("transferred", "dial:600")


async def test_without_the_manager_the_fallback_takes_the_caller(line: Line) -> None:
    """The dialplan cannot be told `dial:600`; what it knew from the beginning stands."""
    async with Softphone("caller") as phone:
        call = await phone.call(line.pbx.uri("700"))
        await call.wait_for_sound()
        await line.wire.cut()
        await until_down(line.ami)
        await call.play(WISH)
        await hears(call, voice(phrases("en").transferring))
        await hears(call, prompt("vm-reachoper").samples)
        await call.hang_up()
