"""Sound that went through a line is found again; other sound is not."""

from __future__ import annotations

import numpy as np
import pytest

from engine.lab.arrival import arrived
from engine.lab.voice import prompt
from engine.media.frame import Samples

RATE = 8000


def through_a_line(sound: Samples, late_s: float) -> Samples:
    """Later, quieter, coarser and with noise, as a telephone makes it."""
    noise = np.random.default_rng(1).normal(0, 20, len(sound))
    coarse = (sound.astype(np.float64) * 0.7 + noise) // 32 * 32
    return np.concatenate((np.zeros(round(late_s * RATE)), coarse)).astype(np.int16)


@pytest.mark.parametrize("late_s", [0.0, 0.2, 1.7])
def test_what_arrives_is_found(late_s: float) -> None:
    sent = prompt("demo-congrats", "en").samples
    assert arrived(sent, through_a_line(sent, late_s), RATE) == 1.0


def test_what_does_not_arrive_is_missed() -> None:
    sent = prompt("demo-congrats", "en").samples
    other = prompt("demo-instruct", "en").samples
    assert arrived(sent, other, RATE) == 0.0
    assert arrived(sent, np.zeros(len(sent), np.int16), RATE) == 0.0
    half = through_a_line(sent, 0.1)
    half[len(half) // 2 :] = 0
    assert 0.3 < arrived(sent, half, RATE) < 0.7


def test_nothing_sent_is_nothing_arrived() -> None:
    assert arrived(np.zeros(RATE, np.int16), np.zeros(RATE, np.int16), RATE) == 0.0
