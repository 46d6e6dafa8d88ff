from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engine.media.echo import EchoGuard
from engine.media.frame import Samples

RATE = 8000
FRAME = 160


def speech(seed: int, seconds: float, rate: int = RATE) -> npt.NDArray[np.float64]:
    """Speech-like sound: a gliding pitch with formants, in syllables with gaps, at about -20 dBFS."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    pitch = 110 + 70 * random.random() + 30 * np.sin(2 * np.pi * (0.7 + random.random()) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voiced = sum(np.sin(k * phase + random.random() * 6) / k for k in range(1, 12))
    sound = np.asarray(voiced) + 0.4 * random.standard_normal(count)
    syllables = np.repeat(random.random(count // 800 + 1), 800)[:count]
    envelope = np.convolve(np.where(syllables > 0.25, syllables, 0.02), np.ones(320) / 320, "same")
    sound = sound * envelope
    return np.asarray(sound * 3000 / np.sqrt((sound * sound).mean()))


def likeness(
    agent: npt.NDArray[np.float64], heard: npt.NDArray[np.float64], jitter: bool = False
) -> npt.NDArray[np.float64]:
    """The likeness of every frame, both streams ticking side by side."""
    guard = EchoGuard(RATE)
    line = heard + np.random.default_rng(9).standard_normal(len(heard)) * 8
    out, pcm = [], as_pcm(agent)
    for index, frame in enumerate(as_pcm(line).reshape(-1, FRAME)):
        sent = pcm[index * FRAME : (index + 1) * FRAME]
        if jitter and index % 7 == 0:
            out.append(guard.heard(frame))
            guard.sent(sent)
        else:
            guard.sent(sent)
            out.append(guard.heard(frame))
    return np.array(out)


def as_pcm(sound: npt.NDArray[np.float64]) -> Samples:
    return np.clip(sound, -32768, 32767).astype(np.int16)


def echo_of(
    sound: npt.NDArray[np.float64], delay_ms: float, loss_db: float
) -> npt.NDArray[np.float64]:
    """Later, weaker and smeared over 4 ms, as a line does."""
    smear = np.array([1.0, *[0.0] * 11, 0.3, *[0.0] * 19, -0.15])
    late = np.concatenate((np.zeros(round(delay_ms * RATE / 1000)), np.convolve(sound, smear)))
    return np.asarray(late[: len(sound)] * 10 ** (-loss_db / 20))


def loud(sound: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Frames in which the sound is above -55 dBFS."""
    return np.asarray(energy(sound) > 58**2)


def energy(sound: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((sound.reshape(-1, FRAME) ** 2).mean(axis=1))


@pytest.mark.parametrize("delay_ms", [40, 113, 300])
@pytest.mark.parametrize("loss_db", [12, 20, 30])
def test_our_own_voice_is_known_when_it_comes_back(delay_ms: float, loss_db: float) -> None:
    agent = speech(1, 4)
    echo = echo_of(agent, delay_ms, loss_db)
    frames = likeness(agent, echo)[50:]
    assert np.mean(frames[loud(echo)[50:]] >= 0.5) > 0.9


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_caller_without_echo_is_not_taken_for_one(seed: int) -> None:
    caller = speech(seed, 4) * 0.7
    frames = likeness(speech(1, 4), caller)
    assert np.mean(frames[loud(caller)] < 0.5) > 0.95


@pytest.mark.parametrize("loss_db", [12, 20, 30])
def test_double_talk_is_still_the_caller(loss_db: float) -> None:
    agent = speech(1, 6)
    caller = speech(5, 6) * 0.7
    caller[: 3 * RATE] = 0
    echo = echo_of(agent, 120, loss_db)
    frames = likeness(agent, echo + caller)
    over = energy(caller) > 4 * energy(echo) + 58**2
    assert np.mean(frames[over] < 0.5) > 0.85
    assert np.mean(frames[np.flatnonzero(over)[:10]] < 0.5) >= 0.7, "and from its first frames"


def test_arrival_jitter_does_not_move_the_delay() -> None:
    agent = speech(1, 4)
    echo = echo_of(agent, 160, 18)
    frames = likeness(agent, echo, jitter=True)[60:]
    assert np.mean(frames[loud(echo)[60:]] >= 0.5) > 0.9


def test_delay_and_return_loss_are_measured() -> None:
    agent = speech(1, 4)
    pcm, heard = as_pcm(agent), as_pcm(echo_of(agent, 120, 18))
    guard = EchoGuard(RATE)
    assert guard.delay_ms is None and guard.return_loss_db is None
    for start in range(0, len(pcm), FRAME):
        guard.sent(pcm[start : start + FRAME])
        guard.heard(heard[start : start + FRAME])
    assert guard.delay_ms == pytest.approx(120, abs=3)
    assert guard.return_loss_db == pytest.approx(18, abs=3)


def test_a_silent_agent_has_no_echo() -> None:
    caller = speech(2, 2)
    assert not likeness(np.zeros(2 * RATE), caller).any()


def test_what_was_heard_before_we_spoke_is_not_forgotten() -> None:
    # Twelve frames are looked at together; most of them came while nothing had been sent.
    sound = as_pcm(speech(1, 2)).reshape(-1, FRAME)
    first, second = EchoGuard(RATE), EchoGuard(RATE)
    for guard, quiet in ((first, None), (second, np.zeros(FRAME, dtype=np.int16))):
        for frame in sound[:50]:
            guard.sent(quiet)
            assert guard.heard(frame) == 0.0
    told = []
    for index, frame in enumerate(sound[50:]):
        for guard in (first, second):
            guard.sent(frame)
        back = sound[50 + index - 6] // 4 if index >= 6 else sound[index]
        told.append((first.heard(back), second.heard(back)))
    assert all(one == other for one, other in told)
    assert max(one for one, _ in told) > 0.9
