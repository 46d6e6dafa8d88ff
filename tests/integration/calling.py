"""What the tests of real calls share: the engine's events, and how sound is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from engine.app import Engine
from engine.events import Event
from engine.lab.softphone import PhoneCall
from engine.media.frame import Samples
from engine.storage.rows import CallRecord

# Nobody listens there: an Asterisk that has no engine.
NO_ENGINE = {"agi": "127.0.0.1:9", "audiosocket": "127.0.0.1:9", "websocket_port": 9}


class Watch:
    """The engine's events while a test runs."""

    def __init__(self, engine: Engine) -> None:
        self.events: list[Event] = []
        self._engine = engine
        engine.bus.listen(self.events.append)

    def texts(self, kind: str) -> str:
        return " ".join(event.data["text"] for event in self.events if event.type == kind)

    def of(self, kind: str, agent: str = "") -> list[Event]:
        """The events of a kind; with `agent` only those of calls that agent answered."""
        calls = {e.call_id for e in self.events if agent in ("", e.data.get("agent"))}
        return [e for e in self.events if e.type == kind and (not agent or e.call_id in calls)]

    async def until(self, what: Callable[[], object], timeout: float = 20.0) -> None:
        async with asyncio.timeout(timeout):
            while not what():  # noqa: ASYNC110 - the engine's events have no one to wait on
                await asyncio.sleep(0.02)

    async def finished(self, agent: str = "") -> Event:
        await self.until(lambda: self.of("call.finished", agent))
        await self._engine.store.flush()
        return self.of("call.finished", agent)[0]

    async def record(self, agent: str = "") -> CallRecord:
        """What the book says of a call that is over."""
        found = await self._engine.store.get_call((await self.finished(agent)).call_id)
        assert found is not None
        return found


async def after_greeting(call: PhoneCall) -> None:
    await call.wait_for_sound(10)
    await call.wait_for_silence(800, 30)


def best_fit(sent: Samples, heard: Samples) -> tuple[float, int]:
    """Pearson's r of `sent` and the stretch of `heard` that fits it best, and where that begins."""
    size = 1 << (len(sent) + len(heard)).bit_length()
    a, b = sent.astype(float), heard.astype(float)
    product = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    lag = int(np.argmax(product[: len(heard) - len(sent) + 1]))
    stretch = b[lag : lag + len(sent)]
    return (float(np.corrcoef(a, stretch)[0, 1]) if stretch.any() else 0.0), lag


def correlation(sent: Samples, heard: Samples) -> float:
    return best_fit(sent, heard)[0] if len(heard) >= len(sent) else 0.0


def received(call: PhoneCall) -> Samples:
    """All sound that came, in its order and without the holes of a machine that stood still for a moment."""
    pieces = [samples for _, samples in call.stream.heard.packets]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


async def hears(call: PhoneCall, sound: Samples, timeout: float = 15.0) -> None:
    """Wait until all of `sound` came out of the telephone. Raises TimeoutError."""
    seen = 0
    async with asyncio.timeout(timeout):
        while True:
            heard = received(call)
            # Off the loop: the engine keeps its clock there.
            if await asyncio.to_thread(correlation, sound, heard[seen:]) > 0.95:
                return
            seen = max(0, len(heard) - len(sound))
            await asyncio.sleep(0.2)
