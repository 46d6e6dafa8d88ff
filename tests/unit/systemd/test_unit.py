from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

import engine
from engine.config import LimitSettings

UNIT = Path(engine.__file__).parent.parent / "systemd" / "offhook.service"
GOODBYE_S = 10.0


def directives() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def test_systemd_waits_longer_than_the_drain_takes() -> None:
    (limit,) = directives()["TimeoutStopSec"]
    assert float(limit) > LimitSettings().drain_s + GOODBYE_S


def test_it_is_a_notifying_service_with_a_watchdog() -> None:
    unit = directives()
    assert unit["Type"] == ["notify"]
    assert float(unit["WatchdogSec"][0]) > 0
    assert unit["ExecStart"] == ["/opt/offhook/venv/bin/offhook serve"]
    assert unit["StateDirectory"] == ["offhook"]


def test_a_reload_is_the_signal_the_engine_listens_for() -> None:
    # The engine answers it with RELOADING=1 and READY=1, for which NotifyAccess lets it speak.
    unit = directives()
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert unit["NotifyAccess"] == ["main"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("PrivateTmp", "yes"),
        ("CapabilityBoundingSet", ""),
        ("RestrictSUIDSGID", "yes"),
    ],
)
def test_it_is_locked_in(key: str, value: str) -> None:
    assert directives()[key] == [value]


needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The unit without the program and the user, which are not here; all else is judged as it stands."""
    text = UNIT.read_text().replace("/opt/offhook/venv/bin/offhook serve", "/bin/true")
    text = text.replace("User=offhook\nGroup=offhook\n", "").replace("Documentation=file:", "#")
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


@needs_systemd
def test_systemd_understands_every_line(copy: Path) -> None:
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", copy], capture_output=True, text=True
    )
    about_us = [line for line in judged.stderr.splitlines() if UNIT.name in line]
    assert about_us == []
    assert judged.returncode == 0, judged.stderr


@needs_systemd
def test_systemd_finds_little_that_is_exposed() -> None:
    # From 0 to 10, in tenths; what is left is the network, Asterisk's and the database's sockets, and JIT code.
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", UNIT],
        capture_output=True,
        text=True,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "Overall exposure level for offhook.service" in judged.stdout
