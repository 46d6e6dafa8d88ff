"""When to stop writing to a line that does not read."""

from __future__ import annotations

import socket
from asyncio import BaseTransport

STALLED_S = 0.1
SEND_BUFFER_BYTES = 16_384
"""What the kernel may hold for us: about a second at 8 kHz. The default would hold minutes of old sound."""


class StallGate:
    """Live sound must not queue: shut once the write buffer has not been empty for `limit_s` seconds, or
    holds as much as the kernel does."""

    def __init__(self, limit_s: float = STALLED_S) -> None:
        self._limit_s = limit_s
        self._busy_since: float | None = None

    def is_open(self, buffered: int, now: float) -> bool:
        """Ask before each frame, with the bytes that the transport still holds."""
        if not buffered:
            self._busy_since = None
            return True
        if self._busy_since is None:
            self._busy_since = now
        return buffered < SEND_BUFFER_BYTES and now - self._busy_since <= self._limit_s


def prepare_socket(transport: BaseTransport) -> None:
    """No Nagle, a small send buffer. Does nothing where the transport is not TCP."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
