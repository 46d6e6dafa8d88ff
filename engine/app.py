"""The process: everything that lives as long as it does, opened in one order and closed in the other."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from aiohttp import web

from admin.app import make_app
from engine.aio import Background
from engine.calls.desk import Desk
from engine.calls.handoff import Handoff
from engine.calls.loading import load_parts
from engine.calls.parts import Parts
from engine.calls.routing import Router
from engine.calls.session import CallSession
from engine.calls.state import CallTicket, Outcome
from engine.config import Agent, Settings, load_agents
from engine.events import EventBus, utc_now
from engine.observability.health import Health
from engine.observability.notify import Notifier
from engine.storage.db import open_database
from engine.storage.records import CallStore
from engine.telephony.admission import Admission
from engine.telephony.agi_server import AgiServer
from engine.telephony.ami import AmiClient
from engine.telephony.audiosocket_server import AudioSocketServer
from engine.telephony.leg import Leg
from engine.telephony.websocket_server import WebSocketServer

log = logging.getLogger(__name__)

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
        self.bus = EventBus()
        self.desk = Desk(settings.limits.calls)
        self.health = Health()
        self.admission: Admission[CallTicket] = Admission(settings.audiosocket.uuid_ttl_s)
        self.sessions: dict[str, CallSession] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._make_parts = parts
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
        address = audio.advertise or f"{audio.host}:{self.audiosocket.port}"
        self.router = Router(settings, self.agents, self.admission, self.desk, address)
        self.agi = AgiServer(settings.agi.host, settings.agi.port, route=self.router.route)
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

    async def answer(self, leg: Leg, ticket: CallTicket) -> None:
        """One line, from its first frame to the dialplan's next step."""
        session = CallSession(
            ticket,
            leg,
            parts=self.parts,
            handoff=self.handoff,
            store=self.store,
            bus=self.bus,
            recordings=self.settings.data / "recordings",
        )
        with self.desk.seat(session):
            await session.run()
            await leg.hang_up()

    async def _sweep(self) -> None:
        """Count the calls that were promised and never came."""
        while True:
            await asyncio.sleep(self.settings.audiosocket.uuid_ttl_s)
            for call_id, _ticket in self.admission.abandoned():
                log.warning(
                    "a call was routed but its sound never came", extra={"call_id": call_id}
                )


async def run(settings: Settings) -> None:
    """`offhook serve`: run until SIGTERM or SIGINT, then drain. A second signal ends at once."""
    notifier = Notifier()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with Engine(settings) as engine:
        log.info("ready", extra={"agents": sorted(engine.agents), "lines": engine.desk.limit})
        notifier.ready()
        watchdog = asyncio.create_task(notifier.watch(), name="watchdog")
        await stop.wait()
        notifier.stopping(settings.limits.drain_s + 20)
        drain = asyncio.create_task(engine.desk.drain(settings.limits.drain_s), name="drain")
        while not drain.done() and signals < 2:
            await asyncio.wait({drain}, timeout=0.2)
        drain.cancel()
        watchdog.cancel()
        await asyncio.gather(drain, watchdog, return_exceptions=True)
