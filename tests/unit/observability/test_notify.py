from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.observability.notify import Notifier


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def notifier(systemd: socket.socket, **more: str) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": systemd.getsockname(), **more})


def test_what_systemd_hears(systemd: socket.socket) -> None:
    notify = notifier(systemd)
    notify.ready()
    notify.status("3 calls\nSTOPPING=1")
    notify.stopping()
    notify.stopping(150)
    heard = [systemd.recv(200) for _ in range(4)]
    assert heard == [
        b"READY=1",
        b"STATUS=3 calls",
        b"STOPPING=1",
        b"STOPPING=1\nEXTEND_TIMEOUT_USEC=150000000",
    ]


def test_a_reload_has_its_moment_on_the_monotonic_clock(systemd: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier(systemd).reloading()
    reloading, moment = systemd.recv(200).decode().splitlines()
    assert reloading == "RELOADING=1"
    name, _, value = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_the_abstract_namespace() -> None:
    name = f"offhook-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": "@" + name}).ready()
        assert listener.recv(100) == b"READY=1"


async def test_signs_of_life_come_again_and_again(systemd: socket.socket) -> None:
    notify = notifier(systemd, WATCHDOG_USEC="20000", WATCHDOG_PID=str(os.getpid()))
    watch = asyncio.create_task(notify.watch())
    for _ in range(3):
        assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch


async def test_a_watchdog_for_another_process_is_not_ours(systemd: socket.socket) -> None:
    notify = notifier(systemd, WATCHDOG_USEC="20000", WATCHDOG_PID="1")
    assert notify.watchdog_s == 0.0
    await notify.watch()


async def test_without_systemd_nothing_happens() -> None:
    notify = Notifier({})
    notify.ready()
    notify.stopping(10)
    await notify.watch()


def test_a_socket_that_is_gone_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert "systemd could not be told" in caplog.text
