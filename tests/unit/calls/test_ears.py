from __future__ import annotations

import numpy as np
import pytest

from engine.calls.ears import KEEP_S, POST_ROLL_S, PRE_ROLL_S, Ears
from engine.config import TurnPolicy
from engine.media.frame import FRAME_S, Frame, Samples
from engine.turns.endpoint import SpeechStarted

RATE = 8000
SAMPLES = 160


class Loudness:
    def probability(self, samples: Samples) -> float:
        return float(np.abs(samples).max() > 100)


def ears() -> Ears:
    return Ears(RATE, TurnPolicy(), Loudness())


def noise(index: int, seed: int) -> Samples:
    return np.random.default_rng((seed, index)).integers(-2000, 2000, SAMPLES).astype(np.int16)


def frame(index: int, samples: Samples | None = None) -> Frame:
    """Frame 0 ends at 20 ms; without samples its number is in all of them, and it is silent."""
    if samples is None:
        samples = np.full(SAMPLES, index % 100, np.int16)
    return Frame(samples.tobytes(), RATE, (index + 1) * FRAME_S)


def test_speech_is_told_with_the_moment_it_began() -> None:
    own = ears()
    heard = [own.hear(frame(n, noise(n, 1) if n >= 10 else None)) for n in range(20)]
    first = next(item for item in heard if item.speech)
    assert first.onset == pytest.approx(0.2)
    assert [e for item in heard for e in item.events] == [SpeechStarted(pytest.approx(0.2))]
    assert all(item.onset is None for item in heard[:10])


def test_our_own_sound_that_comes_back_is_not_the_caller() -> None:
    own = ears()
    delay, heard = 8, []
    for n in range(150):
        own.sent(frame(n, noise(n, 2)))
        back = (noise(n - delay, 2) // 2).astype(np.int16) if n >= delay else None
        heard.append(own.hear(frame(n, back)))
    later = heard[60:]
    assert all(item.echo_likeness > 0.9 for item in later)
    assert not any(item.speech for item in later)


def test_a_turn_is_cut_out_with_its_edges() -> None:
    own = ears()
    for n in range(90):
        own.hear(frame(n))
    pcm = own.cut(speech_from=1.01, speech_to=1.2)
    marks = pcm.samples.reshape(-1, SAMPLES)[:, 0].tolist()
    first = int((1.01 - PRE_ROLL_S) / FRAME_S)
    last = round((1.2 + POST_ROLL_S) / FRAME_S) - 1
    assert pcm.rate == RATE and marks == list(range(first, last + 1))


def test_only_what_is_kept_can_be_cut() -> None:
    own = ears()
    assert len(own.cut(0.0, 1.0).samples) == 0
    for n in range(round(KEEP_S / FRAME_S) + 50):
        own.hear(frame(n))
    assert own.cut(0.0, 2.0).seconds == pytest.approx(2.0 + POST_ROLL_S - 1.0, abs=0.021)
