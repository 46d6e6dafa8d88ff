from __future__ import annotations

import shutil
import subprocess
import wave
from io import BytesIO

import numpy as np
import pytest

from engine.media.frame import Pcm, Samples
from engine.media.resample import resample
from engine.turns.vad import SileroVad, SpeechDetector, WebRtcVad, make_vad
from engine.turns.vad_batch import SileroBatch


@pytest.fixture(scope="module")
def sentence() -> Pcm:
    """A second of silence, a synthetic voice at about -20 dBFS, a second of silence."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng")
    words = "Good morning, I would like to change my appointment."
    made = subprocess.run(
        ["espeak-ng", "--stdout", words], capture_output=True, check=True, timeout=30
    )
    with wave.open(BytesIO(made.stdout)) as wav:
        rate = wav.getframerate()
        samples = np.frombuffer(made.stdout[44:], dtype="<i2")
    loud = np.flatnonzero(np.abs(samples) > 500)
    spoken = samples[loud[0] : loud[-1]]
    quiet = np.zeros(rate, dtype=np.int16)
    return Pcm(np.concatenate((quiet, spoken, quiet)), rate)


def frames(pcm: Pcm, rate: int) -> list[Samples]:
    samples = resample(pcm, rate).samples
    size = rate // 50
    return [samples[i : i + size] for i in range(0, len(samples) - size + 1, size)]


@pytest.mark.parametrize("name", ["silero", "webrtc"])
@pytest.mark.parametrize("rate", [8000, 16_000])
def test_a_sentence_is_found_where_it_is(name: str, rate: int, sentence: Pcm) -> None:
    vad = make_vad("silero" if name == "silero" else "webrtc", rate)
    detector = SpeechDetector()
    random = np.random.default_rng(1)
    speech, onsets = [], []
    for index, frame in enumerate(frames(sentence, rate), 1):
        noise = random.standard_normal(len(frame)) * 6
        probability = vad.probability((frame * 0.5 + noise).astype(np.int16))
        assert 0.0 <= probability <= 1.0
        speech.append(detector.hear(index * 0.02, probability))
        if speech[-1]:
            onsets.append(detector.onset)
    assert not any(speech[:48]) and not any(speech[-30:])
    assert np.mean(speech[60:-60]) > 0.8
    assert onsets[0] == pytest.approx(1.0, abs=0.12)


def test_noise_is_no_speech_to_silero() -> None:
    vad = SileroVad(8000, SileroBatch())
    random = np.random.default_rng(1)
    noise = (random.standard_normal((150, 160)) * 300).astype(np.int16)
    assert max(vad.probability(frame) for frame in noise) < 0.35


def test_webrtc_knows_its_rates() -> None:
    with pytest.raises(ValueError, match="22050"):
        WebRtcVad(22_050)


def hear(*probabilities: float) -> tuple[list[int], list[float | None]]:
    detector = SpeechDetector(start=0.5, stop=0.35, minimum_ms=60)
    speech, onsets = [], []
    for index, probability in enumerate(probabilities, 1):
        speech.append(int(detector.hear(index * 0.02, probability)))
        onsets.append(None if detector.onset is None else round(detector.onset, 3))
    return speech, onsets


def test_a_run_is_confirmed_after_the_minimum_and_knows_its_first_frame() -> None:
    speech, onsets = hear(0.1, 0.7, 0.2, 0.1, 0.6, 0.8, 0.9, 0.9, 0.4, 0.9, 0.3, 0.2)
    assert speech == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert onsets[1] == 0.02 and onsets[2] is None
    assert set(onsets[4:10]) == {0.08} and onsets[10] is None


def test_between_the_thresholds_a_run_goes_on_but_none_begins() -> None:
    assert hear(*[0.4] * 10)[0] == [0] * 10
    assert hear(0.6, *[0.4] * 10)[0][3:] == [1] * 8
