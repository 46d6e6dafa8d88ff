"""Health: named probes, asked when someone looks.

`/health` says that the process answers, and what it thinks of each part. `/ready` says whether new
calls should be sent here. They differ on purpose: restarting an engine because Asterisk is away would
only kill the calls it still carries.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

Probe = Callable[[], bool]


class Health:
    """Probes must be quick and must not block: they read what is known already."""

    def __init__(self) -> None:
        self._probes: dict[str, tuple[Probe, bool]] = {}
        self._since: dict[str, tuple[bool, float]] = {}
        self._started = time.monotonic()

    def add(self, name: str, probe: Probe, *, required: bool = True) -> None:
        """Ask `probe` about `name`; while one that is required says no, the engine is not ready."""
        self._probes[name] = (probe, required)

    @property
    def ready(self) -> bool:
        return all(self._ask(name) for name, (_, required) in self._probes.items() if required)

    def report(self) -> dict[str, Any]:
        """`status` is ok, degraded (something optional is down) or down (not ready)."""
        checks = {}
        for name, (_, required) in self._probes.items():
            ok = self._ask(name)
            since = self._since[name][1]
            checks[name] = {
                "ok": ok,
                "required": required,
                "for_s": round(time.monotonic() - since, 1),
            }
        missing = [check for check in checks.values() if not check["ok"]]
        down = any(check["required"] for check in missing)
        return {
            "status": "down" if down else "degraded" if missing else "ok",
            "ready": not down,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "checks": checks,
        }

    def _ask(self, name: str) -> bool:
        try:
            ok = bool(self._probes[name][0]())
        except Exception:
            # A broken probe must read as a broken part, never as a broken health page.
            log.exception("a health probe failed", extra={"check": name})
            ok = False
        if name not in self._since or self._since[name][0] != ok:
            self._since[name] = (ok, time.monotonic())
        return ok
