"""Smart Turn for real, on recorded prompts: whole ones and ones cut in mid-sentence."""

import wave
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from engine.errors import WeightsError
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore, cache_folder
from engine.media.frame import Pcm
from engine.turns.semantic import SmartTurn

FOLDER = Path(__file__).parents[3] / "models" / "weights"
NAMES = [
    "agent-alreadyon",
    "agent-incorrect",
    "agent-newlocation",
    "agent-pass",
    "all-circuits-busy-now",
    "cannot-complete-as-dialed",
    "check-number-dial-again",
]


def prompt(name: str) -> np.ndarray:
    """The samples without the silence around them."""
    inside = Path("usr/share/asterisk/sounds/en_US_f_Allison") / f"{name}.wav"
    for root in (Path("/"), cache_folder() / "asterisk-root"):
        if (root / inside).is_file():
            with wave.open(str(root / inside)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
            audible = np.flatnonzero(np.abs(samples.astype(np.int32)) > 300)
            return samples[audible[0] : audible[-1] + 1]
    pytest.skip("Asterisk's English prompts are not installed (asterisk-core-sounds-en-wav)")


def with_pause(samples: np.ndarray) -> Pcm:
    return Pcm(np.concatenate([samples, np.zeros(1600, dtype=np.int16)]), 8000)


@pytest.fixture
async def turn():
    try:
        path = WeightStore(FOLDER).path("smart-turn-v3.2-cpu")
    except WeightsError as error:
        pytest.skip(f"{error}; {error.how_to_fix[0]}")
    workers = Workers()
    yield SmartTurn(path, workers)
    await workers.close()


@pytest.mark.models
async def test_finished_sentences_sound_more_finished_than_cut_ones(turn: SmartTurn) -> None:
    whole, cut = [], []
    for name in NAMES:
        samples = prompt(name)
        whole.append(await turn.probability(with_pause(samples)))
        cut.append(await turn.probability(with_pause(samples[: int(len(samples) * 0.45)])))
    assert median(whole) > 0.7
    assert median(cut) < 0.5
    assert all(0 <= probability <= 1 for probability in whole + cut)


@pytest.mark.models
async def test_only_the_last_eight_seconds_count(turn: SmartTurn) -> None:
    await turn.warm()
    noise = np.random.default_rng(2).normal(0, 1000, 8000 * 12).astype(np.int16)
    long = await turn.probability(Pcm(noise, 8000))
    recent = await turn.probability(Pcm(noise[-8000 * 8 :], 8000))
    assert long == pytest.approx(recent, abs=1e-6)


@pytest.mark.models
async def test_no_sound_at_all_is_answered(turn: SmartTurn) -> None:
    assert 0 <= await turn.probability(Pcm.silence(0, 8000)) <= 1
