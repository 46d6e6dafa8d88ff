from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from engine.bench.speech import questions
from engine.errors import WeightsError
from engine.lab.voice import VoiceMissing
from engine.media.frame import Samples
from engine.turns import vad_batch
from engine.turns.vad import SileroVad, SpeechDetector
from engine.turns.vad_batch import ALONE, LIMIT_S, RATE, STEP, WINDOW, SileroBatch

FRAME = 160
CALLS = ALONE + 4


@pytest.fixture(scope="module")
def spoken() -> list[Samples]:
    """What each caller says, in 20 ms frames: recorded people between pauses, over a faint noise."""
    try:
        sentences = questions()
    except VoiceMissing as missing:
        pytest.skip(missing.message)
    random = np.random.default_rng(1)
    lines = []
    for number in range(CALLS):
        sentence = sentences[number % len(sentences)]
        sound = np.concatenate((np.zeros(4000 + 77 * number), sentence[: 2 * 8000], np.zeros(8000)))
        sound = (sound * (1.0, 0.3, 0.1)[number % 3] + random.normal(0, 8, len(sound)))[: 3 * 8000]
        lines.append(sound.astype(np.int16)[: len(sound) // FRAME * FRAME].reshape(-1, FRAME))
    return lines


@pytest.fixture
async def batch() -> AsyncIterator[SileroBatch]:
    batch = SileroBatch()
    yield batch
    await batch.close()


async def settled(batch: SileroBatch) -> None:
    async with asyncio.timeout(10):
        while batch.running:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def alone(frames: Samples) -> list[float]:
    vad = SileroVad(8000, SileroBatch())
    return [vad.probability(frame) for frame in frames]


def edges(probabilities: list[float]) -> list[int]:
    """The frames in which speech is confirmed or over."""
    detector = SpeechDetector()
    speech = [detector.hear(index * 0.02, value) for index, value in enumerate(probabilities)]
    return np.flatnonzero(np.diff(np.array([False, *speech]).astype(int))).tolist()


async def test_many_callers_are_heard_as_each_alone_one_frame_later(
    batch: SileroBatch, spoken: list[Samples]
) -> None:
    vads = [SileroVad(8000, batch) for _ in spoken]
    heard: list[list[float]] = [[] for _ in spoken]
    for index in range(min(map(len, spoken))):
        for vad, frames, answers in zip(vads, spoken, heard, strict=True):
            answers.append(vad.probability(frames[index]))
        await settled(batch)
    for frames, answers in zip(spoken, heard, strict=True):
        expected = alone(frames)
        assert max(expected) > 0.9
        assert answers[1:] == pytest.approx(expected[: len(answers) - 1], abs=1e-3)


async def test_lines_of_two_rates_are_heard_together(
    batch: SileroBatch, spoken: list[Samples]
) -> None:
    others = [SileroVad(8000, batch) for _ in range(ALONE)]
    narrow, wide = SileroVad(8000, batch), SileroVad(16_000, batch)
    heard: list[tuple[float, float]] = []
    for frame in spoken[0]:
        for vad in others:
            vad.probability(frame)
        doubled = np.repeat(frame, 2)
        heard.append((narrow.probability(frame), wide.probability(doubled)))
        await settled(batch)
    starts = [edges([pair[side] for pair in heard])[0] for side in (0, 1)]
    assert starts[0] == pytest.approx(starts[1], abs=2)


async def test_windows_of_one_call_keep_their_order(batch: SileroBatch) -> None:
    for_keeps = [batch.join(doubled=False) for _ in range(ALONE)]
    random = np.random.default_rng(2)
    windows = random.integers(-3000, 3000, (5, WINDOW)).astype(np.int16)
    hearer, lonely = batch.join(doubled=False), SileroBatch()
    for window in windows:
        batch.hear(hearer, window)
    await settled(batch)
    reference = lonely.join(doubled=False)
    for window in windows:
        lonely.hear(reference, window)
    assert hearer.probability == pytest.approx(reference.probability, abs=1e-4)
    assert hearer.h == pytest.approx(reference.h, abs=1e-3)
    assert len(for_keeps) == ALONE


async def test_a_backlog_is_bounded(batch: SileroBatch) -> None:
    hearers = [batch.join(doubled=False) for _ in range(ALONE + 1)]
    window = np.full(WINDOW, 1000, dtype=np.int16)
    for _ in range(100):
        batch.hear(hearers[0], window)
    assert len(hearers[0].waiting) == round(LIMIT_S * RATE / STEP)
    await settled(batch)
    assert not hearers[0].waiting


def test_the_network_for_callers_computes_what_the_original_does() -> None:
    package = importlib.util.find_spec("faster_whisper")
    assert package is not None and package.origin is not None
    network = (Path(package.origin).parent / "assets/silero_vad_v6.onnx").read_bytes()
    original = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    memory = [np.zeros((1, 1, 128), np.float32) for _ in range(2)]
    batch = SileroBatch()
    hearer = batch.join(doubled=False)
    for window in random.normal(0, 1500, (6, WINDOW)).astype(np.int16):
        inputs = {"input": window[None].astype(np.float32) / 32768, "h": memory[0], "c": memory[1]}
        probability, *memory = original.run(None, inputs)
        batch.hear(hearer, window)
        assert hearer.probability == pytest.approx(float(probability[0]), abs=1e-5)


def test_another_network_is_refused_with_advice() -> None:
    with pytest.raises(WeightsError) as caught:
        vad_batch._for_callers(b"another network")
    assert any("webrtc" in step for step in caught.value.how_to_fix)
