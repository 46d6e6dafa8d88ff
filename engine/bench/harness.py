"""What the benches share: an engine on free ports, and callers through AudioSocket or a real Asterisk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from engine.app import Engine, PartsFactory
from engine.config import Agent, Settings
from engine.lab.audiosocket_caller import AudioSocketCaller
from engine.lab.timeline import Timeline
from engine.media.frame import Samples

NUMBER = "700"


class Caller(Protocol):
    heard: Timeline
    said: Timeline
    ended: asyncio.Event
    answered_at: float

    async def play(self, samples: Samples) -> tuple[float, float]: ...
    async def wait_for_sound(self, since: float, timeout_s: float) -> float | None: ...
    async def wait_for_quiet(self, quiet_s: float, timeout_s: float) -> bool: ...
    async def hang_up(self) -> None: ...


class Lab:
    """A running engine and a way to call it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def call(self) -> Caller:
        agi = (self.engine.settings.agi.host, self.engine.agi.port)
        return await AudioSocketCaller.call(agi, NUMBER)


@asynccontextmanager
async def engine_for(
    settings: Settings, agent: Agent, *, calls: int, parts: PartsFactory | None = None
) -> AsyncIterator[Lab]:
    """An engine with one agent, on free loopback ports and a throw-away database."""
    with tempfile.TemporaryDirectory(prefix="offhook-bench-") as folder:
        own = settings.model_copy(
            update={
                "data": Path(folder),
                "database": "",
                "agi": settings.agi.model_copy(update={"port": 0}),
                "audiosocket": settings.audiosocket.model_copy(update={"port": 0}),
                "websocket": settings.websocket.model_copy(update={"enabled": False}),
                "http": settings.http.model_copy(update={"port": 0}),
                "ami": settings.ami.model_copy(update={"secret": type(settings.ami.secret)("")}),
                "limits": settings.limits.model_copy(update={"calls": calls + 2}),
                "routes": (),
            }
        )
        async with Engine(own, parts=parts, agents={agent.id: agent}) as engine:
            yield Lab(engine)
