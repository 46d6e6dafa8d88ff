"""The process: what is open while it runs, and that nothing stays open when it cannot start."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from engine.app import Engine
from engine.bench.silent_models import silent_parts
from engine.calls.parts import Parts
from engine.config import (
    Agent,
    AgiSettings,
    AudioSocketSettings,
    HttpSettings,
    Settings,
    WebSocketSettings,
)
from engine.errors import WeightsError
from engine.lab.audiosocket_caller import AudioSocketCaller, agi_step

HOST = "127.0.0.1"
AGENTS = {"a": Agent(id="a", name="A", languages=("en",), greeting="Hello.", prompt="x")}


def settings(folder: Path, **changed: object) -> Settings:
    values: dict[str, object] = {
        "data": folder,
        "agi": AgiSettings(port=0),
        "audiosocket": AudioSocketSettings(port=0),
        "websocket": WebSocketSettings(enabled=False),
        "http": HttpSettings(port=0),
    }
    return Settings.model_validate(values | changed)


async def test_health_is_told_while_the_engine_runs(tmp_path: Path) -> None:
    async with Engine(settings(tmp_path), parts=silent_parts, agents=AGENTS) as engine:
        async with aiohttp.ClientSession(f"http://{HOST}:{engine.http_port}") as web:
            assert (await web.get("/ready")).status == 200
            engine.desk.open = False
            assert (await web.get("/ready")).status == 503
        agi = engine.agi.port
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, agi)


async def test_a_call_has_a_seat_and_a_record(tmp_path: Path) -> None:
    async with Engine(settings(tmp_path), parts=silent_parts, agents=AGENTS) as engine:
        seated = asyncio.Event()
        engine.bus.listen(lambda event: seated.set())
        caller = await AudioSocketCaller.call((HOST, engine.agi.port), "700")
        await asyncio.wait_for(seated.wait(), 5)
        assert len(engine.desk) == 1
        await caller.hang_up()
        await engine.desk.drain(limit_s=5)
        await engine.store.flush()
        (row,) = await engine.store.list_calls()
    assert (row.agent, row.agent_version) == ("a", AGENTS["a"].version)
    assert (row.state, row.outcome) == ("ended", "caller_hangup")


class Told(logging.Handler):
    """Wakes who waits for a sentence in the log."""

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self._sentence = sentence
        self.record: asyncio.Future[logging.LogRecord] = asyncio.get_running_loop().create_future()

    def emit(self, record: logging.LogRecord) -> None:
        if self._sentence in record.getMessage() and not self.record.done():
            self.record.set_result(record)


async def test_a_call_whose_sound_never_comes_is_told(tmp_path: Path) -> None:
    told_of = Told("its sound never came")
    logging.getLogger("engine.app").addHandler(told_of)
    soon = settings(tmp_path, audiosocket=AudioSocketSettings(port=0, uuid_ttl_s=0.02))
    async with Engine(soon, parts=silent_parts, agents=AGENTS) as engine:
        told = await agi_step(HOST, engine.agi.port, called="700")
        record = await asyncio.wait_for(told_of.record, 5)
        assert engine.admission.pending == 0
    logging.getLogger("engine.app").removeHandler(told_of)
    assert record.call_id == told["OFFHOOK_UUID"]  # type: ignore[attr-defined]


async def test_an_engine_that_cannot_load_its_models_opens_no_port(tmp_path: Path) -> None:
    closed: list[str] = []

    async def parts(
        settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
    ) -> Parts:
        stack.callback(closed.append, "half loaded")
        raise WeightsError("nothing there")

    engine = Engine(settings(tmp_path), parts=parts, agents=AGENTS)
    with pytest.raises(WeightsError):
        await engine.__aenter__()
    assert closed == ["half loaded"] and not hasattr(engine, "audiosocket")


async def test_an_engine_whose_port_is_taken_closes_what_it_opened(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        busy = settings(tmp_path, agi=AgiSettings(port=taken.getsockname()[1]))
        engine = Engine(busy, parts=silent_parts, agents=AGENTS)
        with pytest.raises(OSError):
            await engine.__aenter__()
    with pytest.raises(OSError):
        await asyncio.open_connection(HOST, engine.audiosocket.port)
