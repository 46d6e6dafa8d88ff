from __future__ import annotations

import numpy as np
import pytest

from engine.media.frame import Pcm, Samples
from engine.media.resample import StreamResampler, resample


def tone(rate: int, seconds: float, hz: float = 440.0) -> Samples:
    time = np.arange(round(rate * seconds)) / rate
    return (8000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)


def stream(samples: Samples, rates: tuple[int, int], chunk: int) -> Samples:
    resampler = StreamResampler(*rates)
    parts = [resampler.push(samples[i : i + chunk]) for i in range(0, len(samples), chunk)]
    return np.concatenate([*parts, resampler.finish()])


@pytest.mark.parametrize("rates", [(22_050, 8000), (24_000, 8000), (8000, 16_000), (16_000, 8000)])
@pytest.mark.parametrize("chunk", [37, 441, 5000])
def test_chunk_boundaries_leave_no_trace(rates: tuple[int, int], chunk: int) -> None:
    sound = tone(rates[0], 1.0)
    whole = stream(sound, rates, len(sound))
    cut = stream(sound, rates, chunk)
    assert len(cut) == len(whole)
    # libsoxr dithers to 16 bit, which may differ by a unit or two.
    assert np.abs(cut.astype(int) - whole).max() <= 2


@pytest.mark.parametrize("rates", [(22_050, 8000), (8000, 16_000)])
def test_nothing_is_lost_at_the_end(rates: tuple[int, int]) -> None:
    out = stream(tone(rates[0], 1.0), rates, 320)
    assert abs(len(out) - rates[1]) <= 1
    expected = tone(rates[1], 1.0)[: len(out)]
    middle = slice(len(out) // 10, -len(out) // 10)
    assert np.abs(out.astype(int) - expected[: len(out)])[middle].max() < 80
    last = out[-rates[1] // 50 :].astype(float)
    assert np.sqrt((last * last).mean()) > 4000


def test_low_delay_answers_within_the_frame() -> None:
    resampler = StreamResampler(8000, 16_000, low_delay=True)
    assert len(resampler.push(tone(8000, 0.02))) >= 310


def test_the_same_rate_passes_through() -> None:
    sound = tone(8000, 0.1)
    resampler = StreamResampler(8000, 8000)
    assert resampler.push(sound) is sound
    assert len(resampler.finish()) == 0
    pcm = Pcm(sound, 8000)
    assert resample(pcm, 8000) is pcm


def test_finish_ends_the_stream() -> None:
    resampler = StreamResampler(8000, 16_000)
    resampler.push(tone(8000, 0.1))
    assert len(resampler.finish()) > 0
    assert len(resampler.finish()) == 0
    with pytest.raises(ValueError, match="finished"):
        resampler.push(tone(8000, 0.1))


def test_the_whole_at_once() -> None:
    out = resample(Pcm(tone(22_050, 2.0), 22_050), 8000)
    assert out.rate == 8000
    assert out.seconds == pytest.approx(2.0, abs=0.001)
    assert out.samples.dtype == np.int16
