"""The breaker on virtual time: when it opens, how long it rests, how it heals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import ModelError, ModelTimeout
from engine.inference.circuit import Circuit
from engine.inference.model_server import ModelBusy, ModelRefused
from tests.virtual_time import VirtualTimeLoop


class Probe:
    """Fails while `broken`; `at` are the moments it was asked."""

    def __init__(self, broken: ModelError | None = None) -> None:
        self.broken = broken
        self.at: list[float] = []

    async def __call__(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        if self.broken is not None:
            raise self.broken


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await script()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


FAILED = ModelError("broken")


def test_failures_in_a_row_open_it_and_a_probe_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def script() -> None:
        probe = Probe()
        circuit = Circuit("llm", probe, failures=3, rest_s=15.0)
        circuit.failed(FAILED)
        circuit.failed(FAILED)
        circuit.succeeded()
        circuit.failed(FAILED)
        circuit.failed(FAILED)
        assert circuit.closed and circuit.stats().for_s is None
        circuit.failed(ModelTimeout("late"))
        assert not circuit.closed
        await asyncio.sleep(14.9)
        assert circuit.stats().state == "open" and circuit.stats().for_s == pytest.approx(14.9)
        await asyncio.sleep(0.3)
        assert circuit.stats().state == "probing" and not circuit.closed
        await asyncio.sleep(1)
        stats = circuit.stats()
        assert circuit.closed and probe.at == [15.0]
        assert (stats.answered, stats.failed, stats.skipped, stats.opened) == (1, 5, 2, 1)
        # A server that was ill a moment ago has one try.
        circuit.failed(FAILED)
        assert not circuit.closed
        await circuit.close()

    run(script)
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [
        "a model server fails and is left alone for a while",
        "a model server answers again",
        "a model server fails and is left alone for a while",
    ]


def test_a_probe_that_fails_is_repeated_and_success_makes_it_trusted_again() -> None:
    async def script() -> None:
        probe = Probe(FAILED)
        circuit = Circuit("stt", probe, failures=2, rest_s=10.0)
        circuit.failed(FAILED, conclusive=True)
        await asyncio.sleep(25)
        assert probe.at == [10.0, 20.5] and not circuit.closed
        probe.broken = None
        await asyncio.sleep(10)
        assert probe.at == [10.0, 20.5, 31.0] and circuit.closed
        circuit.succeeded()
        circuit.failed(FAILED)
        assert circuit.closed
        await circuit.close()

    run(script)


def test_the_time_a_server_names_is_kept() -> None:
    async def script() -> None:
        probe = Probe(ModelBusy("still busy", retry_after_s=100.0))
        circuit = Circuit("tts", probe, failures=3, rest_s=10.0)
        circuit.failed(ModelBusy("busy", retry_after_s=40.0))
        await asyncio.sleep(200)
        assert probe.at == [40.0, 140.5]
        await circuit.close()
        await asyncio.sleep(200)
        assert len(probe.at) == 2

    run(script)


def test_a_probe_that_hangs_is_a_failure() -> None:
    async def script() -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        circuit = Circuit("tts", hang, rest_s=10.0)
        circuit.failed(FAILED, conclusive=True)
        await asyncio.sleep(45)
        assert circuit.stats().state == "open"
        await circuit.close()

    run(script)


def test_one_wrong_request_says_nothing_about_the_server() -> None:
    async def script() -> None:
        circuit = Circuit("llm", Probe(), failures=1)
        circuit.failed(ModelRefused("too long", status=400))
        assert circuit.closed
        circuit.failed(ModelRefused("wrong key", status=401))
        assert not circuit.closed
        await circuit.close()

    run(script)
