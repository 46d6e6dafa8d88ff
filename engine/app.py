"""The process: everything that lives as long as it does, opened in one order and closed in the other."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from admin.app import make_app
from engine.aio import Background, cancel_and_wait
from engine.calls.desk import Desk
from engine.calls.handoff import Handoff
from engine.calls.loading import load_parts
from engine.calls.parts import Parts
from engine.calls.routing import Router
from engine.calls.session import CallSession
from engine.calls.state import CallTicket, Outcome
from engine.config import Agent, Settings, load_agents
from engine.errors import ConfigError, OffhookError, StorageError
from engine.events import EventBus, utc_now
from engine.media.opus import OpusEncoder
from engine.observability.health import Health
from engine.observability.notify import Notifier
from engine.storage.db import open_database
from engine.storage.records import CallStore
from engine.telephony.admission import Admission
from engine.telephony.agi_server import AgiRequest, AgiServer
from engine.telephony.ami import AmiClient
from engine.telephony.audiosocket_server import AudioSocketServer
from engine.telephony.leg import Leg
from engine.telephony.websocket_server import WebSocketServer

log = logging.getLogger(__name__)

LIVE = ("agents", "routes")
"""The settings a reload changes; all others wait for the next start."""

PartsFactory = Callable[[Settings, Mapping[str, Agent], AsyncExitStack], Awaitable[Parts]]


class Engine:
    """`async with Engine(settings)`: answers calls while inside.

    `parts` and `agents` let a bench or a test bring its own. Raises OffhookError when it cannot start: a
    missing weight or a wrong setting is told here and never in the middle of a call.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        parts: PartsFactory | None = None,
        agents: Mapping[str, Agent] | None = None,
    ) -> None:
        self.settings = settings
        self.agents = agents or load_agents(settings.agents)
        _check_routes(settings, self.agents)
        self.bus = EventBus()
        self.desk = Desk(settings.limits.calls)
        self.health = Health()
        self.admission: Admission[CallTicket] = Admission(settings.audiosocket.uuid_ttl_s)
        self.sessions: dict[str, CallSession] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._make_parts = parts
        self._opus = OpusEncoder() if settings.recording.format == "opus" else None
        self._stack = AsyncExitStack()
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        settings = self.settings
        await asyncio.to_thread(settings.data.mkdir, parents=True, exist_ok=True)
        # 1. the record book, and the calls a killed process left open
        database = await open_database(settings.database_url)
        self._stack.push_async_callback(database.dispose)
        self.store = CallStore(database, spool=settings.data / "spool")
        await self.store.start()
        self._stack.push_async_callback(self.store.close)
        if lost := await self.store.reconcile(utc_now()):
            log.warning(
                "closed the records of calls lost with the last process", extra={"calls": lost}
            )
        # 2. the models, warm before the first ring
        make = self._make_parts or load_parts
        self.parts = await make(settings, self.agents, self._stack)
        # 3. Asterisk's events and actions; a PBX that is down now is waited for
        ami = settings.ami
        self.ami: AmiClient | None = None
        if ami.secret.get_secret_value():
            self.ami = AmiClient(ami.host, ami.port, ami.username, ami.secret.get_secret_value())
            await self.ami.start()
            self._stack.push_async_callback(self.ami.close)
        self.handoff = Handoff(self.ami)
        # 4. the media ports, before the port that sends callers to them
        audio = settings.audiosocket
        self.audiosocket = AudioSocketServer(
            audio.host, audio.port, claim=self.admission.claim, on_leg=self.answer
        )
        await self.audiosocket.start()
        self._stack.push_async_callback(self.audiosocket.close)
        if settings.websocket.enabled:
            self.websocket = WebSocketServer(
                settings.websocket.host,
                settings.websocket.port,
                claim=self.admission.claim,
                on_leg=self.answer,
            )
            await self.websocket.start()
            self._stack.push_async_callback(self.websocket.close)
        # 5. now callers may come
        self.router = self._make_router()
        self.agi = AgiServer(settings.agi.host, settings.agi.port, route=self._route)
        await self.agi.start()
        self._stack.push_async_callback(self.agi.close)
        await self._open_http()
        self._stack.push_async_callback(self._tasks.close)
        self._tasks.start(self._sweep(), name="sweep")

    async def _open_http(self) -> None:
        self.health.add("asterisk", lambda: self.ami is None or self.ami.connected)
        self.health.add("database", lambda: self.store.database_is_up)
        self.health.add("taking calls", lambda: self.desk.open)
        runner = web.AppRunner(make_app(self.health, self.desk.live))
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.settings.http.host, self.settings.http.port).start()
        self.http_port: int = runner.addresses[0][1]

    def _make_router(self) -> Router:
        audio = self.settings.audiosocket
        address = audio.advertise or f"{audio.host}:{self.audiosocket.port}"
        return Router(self.settings, self.agents, self.admission, self.desk, address)

    async def _route(self, request: AgiRequest) -> Mapping[str, str]:
        return await self.router.route(request)

    async def reload(self, fresh: Settings) -> None:
        """Take the agents and routes of `fresh` into use, once all that their calls need is warm.

        Calls go on with the agent they were promised. Raises OffhookError, and then nothing has changed.
        """
        agents = await asyncio.to_thread(load_agents, fresh.agents)
        _check_routes(fresh, agents)
        # An agent that reads as before stays the same object, with the voices it has.
        kept = {name: agent for name, agent in self.agents.items() if agents.get(name) == agent}
        changed = {name: agent for name, agent in agents.items() if name not in kept}
        voices = {name: self.parts.voices[name] for name in kept}
        voices |= await self.parts.prepare(changed)
        if later := [
            name
            for name in type(fresh).model_fields
            if name not in LIVE and getattr(fresh, name) != getattr(self.settings, name)
        ]:
            log.warning("changed settings wait for the next start", extra={"settings": later})
        self.settings = self.settings.model_copy(
            update={name: getattr(fresh, name) for name in LIVE}
        )
        self.agents = {name: kept.get(name, agent) for name, agent in agents.items()}
        self.parts = replace(self.parts, voices=voices)
        self.router = self._make_router()
        log.info("reloaded", extra={"agents": sorted(agents), "changed": sorted(changed)})

    async def _parts_for(self, agent: Agent) -> Parts:
        if self.agents.get(agent.id) is agent:
            return self.parts
        # It was promised this call before a reload, and keeps its own voices.
        return replace(self.parts, voices=await self.parts.prepare({agent.id: agent}))

    async def answer(self, leg: Leg, ticket: CallTicket) -> None:
        """One line, from its first frame to the dialplan's next step."""
        session = CallSession(
            ticket,
            leg,
            parts=await self._parts_for(ticket.agent),
            handoff=self.handoff,
            store=self.store,
            bus=self.bus,
            recordings=self.settings.data / "recordings",
        )
        with self.desk.seat(session):
            await session.run()
            await leg.hang_up()
        if self._opus and session.recording:
            work = self._to_opus(session.call_id, session.recording)
            self._tasks.start(work, name="opus")

    async def _to_opus(self, call_id: str, wav: Path) -> None:
        """A recording has one complete file at every moment, and the record names it."""
        if self._opus is None or (opus := await self._opus.encode(wav)) is None:
            return
        self.store.recording_kept(call_id, str(opus))
        try:
            await self.store.flush()
        except StorageError as error:
            log.warning("a recording is kept twice", extra={"error": error.message})
            return
        await asyncio.to_thread(wav.unlink, missing_ok=True)

    async def _sweep(self) -> None:
        """Count the calls that were promised and never came."""
        while True:
            await asyncio.sleep(self.settings.audiosocket.uuid_ttl_s)
            for call_id, _ticket in self.admission.abandoned():
                log.warning(
                    "a call was routed but its sound never came", extra={"call_id": call_id}
                )


def _check_routes(settings: Settings, agents: Mapping[str, Agent]) -> None:
    for route in settings.routes:
        if route.agent not in agents:
            raise ConfigError(
                f"route {route.number} names agent {route.agent!r}, which does not exist",
                how_to_fix=[
                    f"add {settings.agents / route.agent}.toml, or name one of: {', '.join(agents)}"
                ],
            )


def keep_for_good() -> None:
    """Spare the garbage collector what the start has made: it stays until the end.

    A full collection stops the sound of all calls. At 100 calls it took 125 ms, and 18 without what is
    kept here.
    """
    gc.collect()
    gc.freeze()


async def run(settings: Settings, *, reread: Callable[[], Settings]) -> None:
    """`offhook serve`: run until SIGTERM or SIGINT, then drain. A second signal ends at once.

    On SIGHUP `reread` brings the settings as they are now; it may read the disk, and raises ConfigError.
    """
    notifier = Notifier()
    stop = asyncio.Event()
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = 0
    on_terminal = sys.stdin.isatty()

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        stop.set()

    def on_hangup() -> None:
        # From a terminal that was closed it means: nobody is there any more.
        if on_terminal and not sys.stdin.isatty():
            on_signal()
        else:
            changed.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    async with Engine(settings) as engine:
        keep_for_good()
        log.info("ready", extra={"agents": sorted(engine.agents), "lines": engine.desk.limit})
        notifier.ready()
        watchdog = asyncio.create_task(notifier.watch(), name="watchdog")
        reloads = asyncio.create_task(_reload(engine, reread, changed, notifier), name="reloads")
        await stop.wait()
        await cancel_and_wait(reloads)
        notifier.stopping(settings.limits.drain_s + 20)
        drain = asyncio.create_task(engine.desk.drain(settings.limits.drain_s), name="drain")
        while not drain.done() and signals < 2:
            await asyncio.wait({drain}, timeout=0.2)
        await cancel_and_wait(drain, watchdog)


async def _reload(
    engine: Engine, reread: Callable[[], Settings], changed: asyncio.Event, notifier: Notifier
) -> None:
    while True:
        await changed.wait()
        changed.clear()
        notifier.reloading()
        try:
            await engine.reload(await asyncio.to_thread(reread))
        except OffhookError as error:
            log.error(
                "the reload was refused: the agents and routes from before stay in force",
                extra={"error": error.message, "how_to_fix": "; ".join(error.how_to_fix)},
            )
            notifier.status(f"the reload was refused: {error.message}")
        else:
            notifier.status(f"answering as {', '.join(sorted(engine.agents))}")
        notifier.ready()
