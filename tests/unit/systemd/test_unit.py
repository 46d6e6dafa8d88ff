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


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    # The program and the user are not here, so they are replaced; all else is judged as it stands.
    text = UNIT.read_text().replace("/opt/offhook/venv/bin/offhook serve", "/bin/true")
    text = text.replace("User=offhook\nGroup=offhook\n", "").replace("Documentation=file:", "#")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    judged = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", copy], capture_output=True, text=True
    )
    about_us = [line for line in judged.stderr.splitlines() if UNIT.name in line]
    assert about_us == []
    assert judged.returncode == 0, judged.stderr
