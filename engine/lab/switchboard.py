"""An engine behind a real Asterisk, both on free loopback ports: what the demo, the benches and the tests call."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from engine.app import Engine, PartsFactory
from engine.config import Agent, RouteSettings, Settings
from engine.lab.sandbox import Sandbox


@dataclass(frozen=True, slots=True)
class Switchboard:
    pbx: Sandbox
    engine: Engine
    settings: Settings


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_free_ports(settings: Settings, folder: Path) -> Settings:
    """The same settings for a throw-away engine: free ports, its own data, no Asterisk yet."""
    return settings.model_copy(
        update={
            "data": folder / "engine",
            "database": "",
            "agi": settings.agi.model_copy(update={"host": "127.0.0.1", "port": free_port()}),
            "audiosocket": settings.audiosocket.model_copy(
                update={"host": "127.0.0.1", "port": free_port(), "advertise": ""}
            ),
            "websocket": settings.websocket.model_copy(
                update={"enabled": True, "host": "127.0.0.1", "port": free_port()}
            ),
            "http": settings.http.model_copy(update={"host": "127.0.0.1", "port": free_port()}),
            "routes": (),
        }
    )


def sandbox_for(settings: Settings, folder: Path, *, sip_port: int = 0) -> Sandbox:
    """An Asterisk that asks the engine of these settings."""
    return Sandbox(
        folder / "asterisk",
        agi=f"127.0.0.1:{settings.agi.port}",
        audiosocket=f"127.0.0.1:{settings.audiosocket.port}",
        websocket_port=settings.websocket.port,
        sip_port=sip_port,
    )


def behind(settings: Settings, pbx: Sandbox, answers: Mapping[str, str]) -> Settings:
    """The settings with that Asterisk's manager; `answers` says which agent is behind which number."""
    ami = settings.ami.model_copy(
        update={"host": "127.0.0.1", "port": pbx.ami_port, "secret": SecretStr(pbx.ami_secret)}
    )
    routes = tuple(RouteSettings(number=number, agent=name) for number, name in answers.items())
    return settings.model_copy(update={"ami": ami, "routes": routes})


@asynccontextmanager
async def switchboard(
    settings: Settings,
    agents: Mapping[str, Agent],
    folder: Path,
    *,
    answers: Mapping[str, str],
    parts: PartsFactory | None = None,
    sip_port: int = 0,
) -> AsyncIterator[Switchboard]:
    """Asterisk and an engine. `answers` are agents by number, `*` for all others."""
    own = on_free_ports(settings, folder)
    async with sandbox_for(own, folder, sip_port=sip_port) as pbx:
        own = behind(own, pbx, answers)
        async with Engine(own, parts=parts, agents=agents) as engine:
            if engine.ami is not None:
                await engine.ami.wait_connected(10.0)
            yield Switchboard(pbx, engine, own)
