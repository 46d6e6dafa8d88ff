from __future__ import annotations

import numpy as np
import pytest

from engine.lab.timeline import LOUD, RATE, Timeline, rms
from engine.media.frame import FRAME_S, Samples

SAMPLES = RATE // 50


def flat(level: int, count: int = SAMPLES) -> Samples:
    return np.full(count, level, np.int16)


def line(pattern: str, start: float = 10.0) -> Timeline:
    """One frame a character: `#` is loud, `.` is silent, a space is nothing at all."""
    timeline = Timeline()
    for index, mark in enumerate(pattern):
        if mark != " ":
            timeline.add(start + index * FRAME_S, flat(2000 if mark == "#" else 0))
    return timeline


def at(index: int) -> object:
    return pytest.approx(10.0 + index * FRAME_S)


def test_how_loud_a_stretch_is() -> None:
    assert rms(flat(0)) == 0 and rms(np.zeros(0, np.int16)) == 0
    assert rms(flat(-300)) == 300
    assert rms(flat(32767)) == pytest.approx(32767), "squares do not overflow"
    assert 260 < LOUD < 261


def test_the_first_sound_is_not_a_click() -> None:
    assert line("..#..##..").first_sound(0.0) == at(5)
    assert line("..##..##").first_sound(10.07) == at(6)
    assert line("...#").first_sound(0.0) is None
    assert Timeline().first_sound(0.0) is None


def test_loud_frames_between_two_moments() -> None:
    timeline = line("##..##")
    assert timeline.frames == 6
    assert timeline.loud() == [at(0), at(1), at(4), at(5)]
    assert timeline.loud(10.01, 10.09) == [at(1), at(4)]


def test_a_spurt_ends_where_quiet_begins() -> None:
    timeline = line("###.##" + "." * 20 + "##")
    assert timeline.last_sound(10.0, 20.0) == at(6)
    assert timeline.last_sound(10.0, 20.0, quiet_s=0.02) == at(3)
    assert timeline.last_sound(10.0, 20.0, quiet_s=1.0) == at(28)
    assert timeline.last_sound(10.2, 10.3) is None


def test_how_long_it_has_been_quiet() -> None:
    assert line("##...").quiet_for(10.2) == pytest.approx(0.18)
    assert line(".....").quiet_for(10.2) == pytest.approx(0.2)
    assert Timeline().quiet_for(10.2) == 0.0
