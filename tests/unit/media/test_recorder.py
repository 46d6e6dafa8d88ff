from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from engine.media.frame import FRAME_S, Frame
from engine.media.recorder import Recorder

RATE = 8000


def frame(value: int, at: float) -> Frame:
    return Frame(np.full(160, value, dtype="<i2").tobytes(), RATE, at)


def read(path: Path) -> tuple[list[int], list[int]]:
    """One value per frame, caller and agent."""
    with wave.open(str(path), "rb") as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (2, 2, RATE)
        data = np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2").reshape(-1, 160, 2)
    assert (data == data[:, :1]).all(), "every frame is where it should be, to the sample"
    return data[:, 0, 0].tolist(), data[:, 0, 1].tolist()


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    recorder = Recorder(tmp_path / "day" / "call.wav", RATE)
    yield recorder
    await recorder.close()


async def test_the_caller_is_left_and_the_agent_right(recorder: Recorder) -> None:
    for index in range(1, 151):
        recorder.offer_caller(frame(index, 50 + index * FRAME_S))
        recorder.offer_agent(frame(-index, 50 + index * FRAME_S))
    await recorder.close()
    caller, agent = read(recorder.path)
    assert caller == list(range(1, 151))
    assert agent == [-value for value in range(1, 151)]
    assert recorder.dropped == 0 and recorder.error is None


async def test_jitter_moves_nothing_and_gaps_are_silence(recorder: Recorder) -> None:
    for index in range(1, 101):
        jitter = 0.018 if index % 3 else -0.011
        recorder.offer_caller(frame(index, index * FRAME_S + jitter))
        if not 20 < index <= 70:
            recorder.offer_agent(frame(index, index * FRAME_S))
    await recorder.close()
    caller, agent = read(recorder.path)
    assert caller[:100] == list(range(1, 101))
    assert agent[:20] == list(range(1, 21))
    again = agent.index(71)
    assert abs(again - 70) <= 1, "within one frame of its time"
    assert set(agent[20:again]) == {0}
    assert agent[again : again + 30] == list(range(71, 101))


async def test_a_side_that_never_speaks_does_not_hold_the_other(recorder: Recorder) -> None:
    for index in range(1, 301):
        recorder.offer_caller(frame(7, index * FRAME_S))
    await recorder.close()
    caller, agent = read(recorder.path)
    assert caller == [7] * 300 and agent == [0] * 300


async def test_frames_faster_than_time_are_dropped_and_counted(recorder: Recorder) -> None:
    for _ in range(20):
        recorder.offer_caller(frame(1, 1.0))
    await recorder.close()
    caller, _ = read(recorder.path)
    assert len(caller) == 4
    assert recorder.dropped == 16


async def test_a_kill_leaves_a_playable_file(recorder: Recorder) -> None:
    for index in range(1, 131):
        recorder.offer_caller(frame(3, index * FRAME_S))
        recorder.offer_agent(frame(4, index * FRAME_S))
    for _ in range(400):
        await asyncio.sleep(0.005)
        if recorder.path.exists() and recorder.path.stat().st_size >= 44 + 100 * 640:
            break
    # Read as it is now, before anybody closes it.
    caller, agent = read(recorder.path)
    assert len(caller) >= 100
    assert set(caller) == {3} and set(agent) == {4}


async def test_a_full_disk_ends_the_recording_and_not_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    recorder = Recorder(full, RATE)
    for index in range(1, 1200):
        recorder.offer_caller(frame(1, index * FRAME_S))
    await recorder.close()
    assert isinstance(recorder.error, OSError)
    recorder.offer_caller(frame(1, 99.0))
    await recorder.close()
    assert "The recording stopped; the call goes on" in caplog.text


async def test_an_empty_call_is_an_empty_file(recorder: Recorder) -> None:
    await recorder.close()
    with wave.open(str(recorder.path), "rb") as wav:
        assert wav.getnframes() == 0


async def test_calls_that_come_and_go_do_not_keep_another_from_being_written(
    recorder: Recorder, tmp_path: Path
) -> None:
    for index in range(1, 131):
        recorder.offer_caller(frame(3, index * FRAME_S))
        recorder.offer_agent(frame(4, index * FRAME_S))
    for number in range(400):
        other = Recorder(tmp_path / f"{number}.wav", RATE)
        await asyncio.sleep(0.005)
        await other.close()
        if recorder.path.exists() and recorder.path.stat().st_size >= 44 + 100 * 640:
            break
    assert len(read(recorder.path)[0]) >= 100
