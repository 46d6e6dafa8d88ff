import numpy as np

from engine.tts.trim import LeadingSilence, cut_tail


def tone(samples: int) -> np.ndarray:
    return np.full(samples, 5000, dtype=np.int16)


def quiet(samples: int) -> np.ndarray:
    return np.full(samples, 20, dtype=np.int16)


def test_forty_milliseconds_of_silence_are_left_whatever_the_chunks() -> None:
    sound = np.concatenate([quiet(4000), tone(800), quiet(4000), tone(800)])
    for size in (1, 7, 160, 5000, 20_000):
        trim = LeadingSilence(8000)
        out = np.concatenate([trim.push(sound[i : i + size]) for i in range(0, len(sound), size)])
        assert np.array_equal(out, sound[4000 - 320 :])


def test_sound_that_begins_at_once_is_untouched() -> None:
    assert len(LeadingSilence(8000).push(tone(100))) == 100


def test_the_loudest_negative_sample_is_sound() -> None:
    assert len(LeadingSilence(8000).push(np.array([-32768], dtype=np.int16))) == 1


def test_the_tail_is_cut_to_the_pause_wanted() -> None:
    assert len(cut_tail(np.concatenate([tone(800), quiet(4000)]), 8000, 0.1)) == 1600
    assert len(cut_tail(quiet(4000), 8000, 0.1)) == 800
