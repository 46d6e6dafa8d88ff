"""What the benches share: an engine on free ports, and callers through AudioSocket or a real Asterisk."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engine.app import Engine, PartsFactory
from engine.config import Agent, Settings
from engine.errors import ConfigError, OffhookError
from engine.lab import ports
from engine.lab.audiosocket_caller import AudioSocketCaller
from engine.lab.caller import Caller
from engine.lab.sandbox import Sandbox
from engine.lab.sip_caller import SipCaller
from engine.lab.switchboard import on_free_ports, switchboard

NUMBER = "700"
THROUGH = ("audiosocket", "asterisk")
_TAKEN_S = 5.0


class Lab:
    """A running engine and a way to call it. `call` raises where the agent does not answer."""

    def __init__(self, engine: Engine, call: Callable[[], Awaitable[Caller]]) -> None:
        self.engine = engine
        self.call = call


@asynccontextmanager
async def engine_for(
    settings: Settings,
    agent: Agent,
    *,
    calls: int,
    through: str = "audiosocket",
    parts: PartsFactory | None = None,
) -> AsyncIterator[Lab]:
    """An engine with one agent, on free loopback ports and with a throw-away database.

    `through` is audiosocket, straight to the media port, or asterisk: SIP calls through a sandbox. Raises
    ConfigError for another one or too many calls, and AsteriskMissing.
    """
    _check(through, calls)
    with tempfile.TemporaryDirectory(prefix="offhook-bench-") as name:
        folder = Path(name)
        # Who calls again at once may find his last call still on its way out.
        limits = settings.limits.model_copy(update={"calls": 2 * calls + 2})
        own = settings.model_copy(update={"limits": limits})
        agents = {agent.id: agent}
        if through == "asterisk":
            async with switchboard(
                own, agents, folder, answers={"*": agent.id}, parts=parts
            ) as board:
                yield Lab(board.engine, _by_sip(board.engine, board.pbx))
        else:
            async with Engine(_alone(own, folder), parts=parts, agents=agents) as engine:
                yield Lab(engine, lambda: AudioSocketCaller.call(_agi(engine), NUMBER))


def _check(through: str, calls: int) -> None:
    if through not in THROUGH:
        raise ConfigError(
            f"calls cannot go through {through!r}", how_to_fix=[f"one of: {', '.join(THROUGH)}"]
        )
    if through == "asterisk" and calls > ports.CALLS:
        raise ConfigError(
            f"{calls} calls at once are too many for the sandbox's ports",
            how_to_fix=[f"--calls {ports.CALLS} at most, or --through audiosocket"],
        )


def _alone(settings: Settings, folder: Path) -> Settings:
    """Without an Asterisk."""
    ami = settings.ami.model_copy(update={"secret": type(settings.ami.secret)("")})
    return on_free_ports(settings, folder).model_copy(update={"ami": ami})


def _agi(engine: Engine) -> tuple[str, int]:
    return engine.settings.agi.host, engine.agi.port


def _by_sip(engine: Engine, pbx: Sandbox) -> Callable[[], Awaitable[Caller]]:
    numbers = itertools.count(1)

    async def call() -> Caller:
        # Asterisk answers for the engine, so only the caller's number tells that the agent has him.
        name = f"1555{next(numbers):07}"
        caller = await SipCaller.call(name, pbx.uri(NUMBER))
        try:
            async with asyncio.timeout(_TAKEN_S):
                while name not in {row["caller"] for row in engine.desk.live()}:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        except TimeoutError:
            await caller.hang_up()
            raise OffhookError("a call was answered by the dialplan, not by the engine") from None
        return caller

    return call
