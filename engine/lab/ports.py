"""Loopback ports for a sandbox, in blocks, so that several run side by side.

All ports of a sandbox come from one block of 400 below the range from which the kernel hands out ports of
its own, and the block's first UDP port stays bound for as long as the sandbox lives: that is the lock.
"""

from __future__ import annotations

import socket
from pathlib import Path

from engine.errors import AsteriskError

_FIRST, _LAST, _SIZE = 12_000, 32_000, 400
_RTP = 10
CALLS = (_SIZE - _RTP) // 2
"""One telephone's call takes two ports, for RTP and RTCP."""
_HOST = "127.0.0.1"


class PortBlock:
    """`sip`, `operator`, `trunk` are UDP, `ami` and `http` TCP, `rtp` the first and last UDP port."""

    def __init__(self, guard: socket.socket, base: int) -> None:
        self._guard = guard
        self.sip = base + 1
        self.operator = base + 2
        self.trunk = base + 3
        self.ami = base + 4
        self.http = base + 5
        self.rtp = (base + _RTP, base + _SIZE - 1)

    def release(self) -> None:
        self._guard.close()


def take_block() -> PortBlock:
    """The first free block. Raises AsteriskError when all are taken."""
    for base in range(_FIRST, _LAST, _SIZE):
        guard = _bound(socket.SOCK_DGRAM, base)
        if guard is None:
            continue
        block = PortBlock(guard, base)
        wanted = [
            *((socket.SOCK_DGRAM, port) for port in (block.sip, block.operator, block.trunk)),
            *((socket.SOCK_STREAM, port) for port in (block.ami, block.http)),
        ]
        if all(_is_free(kind, port) for kind, port in wanted):
            return block
        block.release()
    raise AsteriskError("no free block of loopback ports between 12000 and 32000")


def is_bound_udp(port: int) -> bool:
    """Whether a program has the port, asked without taking it: it may be about to."""
    wanted = f":{port:04X}"
    lines = Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return any(line.split()[1].endswith(wanted) for line in lines)


def free_media_port() -> int:
    """An even UDP port that is free now, and so are the two above it (RTCP, a second stream)."""
    while True:
        probe = _bound(socket.SOCK_DGRAM, 0)
        if probe is None:
            raise AsteriskError("no free loopback port")
        port = int(probe.getsockname()[1]) & ~1
        probe.close()
        if port < 65534 and all(_is_free(socket.SOCK_DGRAM, port + offset) for offset in range(3)):
            return port


def _is_free(kind: socket.SocketKind, port: int) -> bool:
    probe = _bound(kind, port)
    if probe is None:
        return False
    probe.close()
    return True


def _bound(kind: socket.SocketKind, port: int) -> socket.socket | None:
    probe = socket.socket(socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:  # as Asterisk does: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((_HOST, port))
    except OSError:
        probe.close()
        return None
    return probe
