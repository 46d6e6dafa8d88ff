import numpy as np
import pytest

from engine.media.frame import Pcm
from engine.media.logmel import RATE, log_mel, waveform


@pytest.mark.parametrize("mels", [80, 128])
def test_the_features_are_those_whisper_was_given(mels: int) -> None:
    extractor = pytest.importorskip("faster_whisper.feature_extractor")
    wave = (np.random.default_rng(1).standard_normal(RATE * 3) * 0.1).astype(np.float32)
    expected = extractor.FeatureExtractor(feature_size=mels)(wave, padding=0)
    ours = log_mel(wave, mels=mels)
    assert ours.shape == (mels, 300)
    assert np.abs(ours - expected).max() < 1e-5


def test_telephone_sound_is_brought_to_sixteen_kilohertz() -> None:
    time = np.arange(8000) / 8000
    tone = (np.sin(2 * np.pi * 440 * time) * 16384).astype(np.int16)
    wave = waveform(Pcm(tone, 8000))
    assert abs(len(wave) - RATE) <= 2
    assert wave.dtype == np.float32
    assert np.argmax(np.abs(np.fft.rfft(wave))) == 440
