from __future__ import annotations

from engine.telephony.outbound import SEND_BUFFER_BYTES, StallGate


def test_an_empty_buffer_is_open() -> None:
    gate = StallGate()
    assert all(gate.is_open(0, now * 0.02) for now in range(100))


def test_a_short_stall_is_waited_out_and_a_long_one_is_not() -> None:
    gate = StallGate()
    assert [gate.is_open(323, t) for t in (0.0, 0.05, 0.1, 0.12, 5.0)] == [True] * 3 + [False] * 2
    assert gate.is_open(0, 5.02)
    assert gate.is_open(323, 5.04)


def test_a_burst_does_not_queue_without_end() -> None:
    gate = StallGate()
    assert gate.is_open(SEND_BUFFER_BYTES - 1, 0.0)
    assert not gate.is_open(SEND_BUFFER_BYTES, 0.0)
