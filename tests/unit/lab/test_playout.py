import numpy as np
import pytest

from engine.lab.playout import Playout, rms
from engine.media.frame import Samples


def packet(value: int) -> Samples:
    return np.full(160, value, np.int16)


def at(sound: Samples, seconds: float) -> int:
    return int(sound[round(seconds * 8000) + 80])


def test_jitter_leaves_no_seams() -> None:
    line = Playout()
    for index, jitter in enumerate((0, 0.012, -0.004, 0.03, 0.001)):
        line.add(10 + index * 0.02 + jitter, 1, 500 + index * 160, packet(index + 1))
    sound = line.between(10, 10.1)
    assert sound.tolist() == np.repeat([1, 2, 3, 4, 5], 160).tolist()


def test_a_gap_in_sending_is_silence() -> None:
    line = Playout()
    line.add(10.0, 1, 0, packet(1000))
    line.add(10.2, 1, 160, packet(2000))  # contiguous timestamps, late by far: an underrun
    sound = line.between(9.9, 10.3)
    assert len(sound) == 3200
    assert [at(sound, s) for s in (0.05, 0.1, 0.15, 0.3, 0.33)] == [0, 1000, 0, 2000, 0]


def test_a_pause_told_by_timestamps_keeps_its_place() -> None:
    line = Playout()
    line.add(10.0, 1, 0, packet(1000))
    line.add(10.51, 1, 4000, packet(2000))
    assert at(line.between(10, 11), 0.5) == 2000


def test_a_timestamp_jump_that_arrival_denies() -> None:
    line = Playout()
    line.add(10.0, 1, 0, packet(1000))
    line.add(10.02, 1, 100_000, packet(2000))
    line.add(10.04, 1, 100_160, packet(3000))
    sound = line.between(10, 10.06)
    assert [at(sound, s) for s in (0, 0.02, 0.04)] == [1000, 2000, 3000]


def test_a_new_source_begins_where_it_arrives() -> None:
    line = Playout()
    line.add(10.0, 1, 0, packet(1000))
    line.add(10.02, 2, 777, packet(2000))
    assert at(line.between(10, 10.04), 0.02) == 2000


def test_a_burst_is_played_in_its_own_time() -> None:
    line = Playout()
    for index in range(50):
        line.add(10 + index * 0.0002, 1, index * 160, packet(index + 1))
    sound = line.between(10, 11)
    assert at(sound, 0.98) == 50


def test_timestamps_wrap() -> None:
    line = Playout()
    line.add(10.0, 1, 0xFFFFFFFF - 159, packet(1000))
    line.add(10.02, 1, 0, packet(2000))
    line.add(10.04, 1, 160, packet(3000))
    sound = line.between(10, 10.06)
    assert [at(sound, s) for s in (0, 0.02, 0.04)] == [1000, 2000, 3000]


def test_swapped_packets_are_put_right_and_stragglers_left_out() -> None:
    line = Playout()
    line.add(10.00, 1, 0, packet(1))
    line.add(10.02, 1, 320, packet(3))
    line.add(10.021, 1, 160, packet(2))
    line.add(10.20, 1, 160, packet(9))
    assert line.between(10, 10.06).tolist() == np.repeat([1, 2, 3], 160).tolist()
    assert not line.between(10.06, 10.3).any()
    assert len(line.packets) == 4


def test_a_sender_that_fell_behind_is_followed() -> None:
    line = Playout()
    for index in range(40):
        lag = 0.04 if index >= 10 else 0.0
        value = 5000 if index >= 30 else 0
        line.add(10 + index * 0.02 + lag, 1, index * 160, packet(value))
    first = line.first_sound(10, 11)
    assert first == pytest.approx(10 + 30 * 0.02 + 0.04, abs=0.001)


def test_first_and_last_sound() -> None:
    line = Playout()
    for index in range(50):
        line.add(10 + index * 0.02, 1, index * 160, packet(3000 if 10 <= index < 20 else 20))
    assert line.first_sound(10, 11) == pytest.approx(10.2, abs=0.001)
    assert line.last_sound(10, 11) == pytest.approx(10.4, abs=0.001)
    assert line.first_sound(10.5, 11) is None
    assert line.last_sound(10, 10.1) is None


def test_rms() -> None:
    assert rms(np.zeros(0, np.int16)) == 0
    assert rms(np.array([300, -400], np.int16)) == pytest.approx(353.55, abs=0.01)
    assert rms(np.full(4, -32768, np.int16)) == 32768
