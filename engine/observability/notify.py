"""Word to systemd (sd_notify(3)): ready, stopping, and a sign of life for the watchdog.

Outside systemd, where NOTIFY_SOCKET is not set, every method does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ names a socket of the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # The watchdog may be meant for another process of the service.
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit_us = environment.get("WATCHDOG_USEC", "")
        self.watchdog_s = int(limit_us) / 1e6 if ours and limit_us.isdigit() else 0.0

    def ready(self) -> None:
        """Calls can come."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The files are being read anew; `ready` follows, whatever became of it."""
        # systemd tells this reload from an earlier one by the time (sd_notify(3), Type=notify-reload).
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now_us}")

    def stopping(self, limit_s: float = 0.0) -> None:
        """No more calls. `limit_s` asks for that much time, where TimeoutStopSec of the unit is shorter."""
        extend = f"\nEXTEND_TIMEOUT_USEC={round(limit_s * 1e6)}" if limit_s else ""
        self._send(f"STOPPING=1{extend}")

    def status(self, sentence: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={sentence.splitlines()[0] if sentence else ''}")

    async def watch(self) -> None:
        """Prove that the loop turns, twice in each watchdog interval, until cancelled.

        A loop that hangs sends nothing, and systemd starts the engine anew.
        """
        if not self._address or not self.watchdog_s:
            return
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.setblocking(False)
                out.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("systemd could not be told", extra={"error": str(error)})
