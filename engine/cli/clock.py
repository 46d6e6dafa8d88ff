"""Is this machine's clock kept right by NTP? Asked of the kernel, so it needs no systemd and works in a container.

adjtimex(2) with `modes` 0 only reads, which every user may. The kernel sets STA_UNSYNC at the start and
whenever nobody has corrected the clock for long enough that it may be 16 s off.
"""

from __future__ import annotations

import ctypes

_STA_UNSYNC = 0x40


class _Timex(ctypes.Structure):
    """`struct timex` up to `status`; the rest is room for what the kernel writes behind it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def is_synchronised() -> bool | None:
    """None where the kernel does not tell."""
    ask = getattr(ctypes.CDLL(None), "adjtimex", None)
    timex = _Timex()
    if ask is None or ask(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & _STA_UNSYNC
