from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest

from engine.media import opus
from engine.media.opus import OpusEncoder

RATE = 8000
needs_opus = pytest.mark.skipif(
    not shutil.which("opusenc") or not shutil.which("opusdec"),
    reason="opus-tools are not installed",
)


def record(path: Path, seconds: float = 2.0) -> Path:
    """A buzz on the left, as loud as a voice; nothing on the right."""
    times = np.arange(round(seconds * RATE)) / RATE
    left = 6000 * np.sign(np.sin(2 * np.pi * 150 * times))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.stack([left, left * 0], axis=1).astype("<i2").tobytes())
    return path


def loudness(path: Path) -> tuple[float, float, float]:
    """Seconds, and the RMS of the left and the right side."""
    with wave.open(str(path)) as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        sides = np.sqrt(np.mean(np.square(frames.astype(float)), axis=0))
        return file.getnframes() / file.getframerate(), float(sides[0]), float(sides[1])


@needs_opus
async def test_the_file_is_whole_small_and_keeps_the_sides_apart(tmp_path: Path) -> None:
    wav = record(tmp_path / "call.wav")
    before = wav.read_bytes()
    done = await OpusEncoder().encode(wav)
    assert done == tmp_path / "call.opus"
    assert done.stat().st_size < len(before) / 4
    assert wav.read_bytes() == before and sorted(os.listdir(tmp_path)) == ["call.opus", "call.wav"]
    heard = tmp_path / "heard.wav"
    subprocess.run(["opusdec", "--quiet", "--rate", str(RATE), done, heard], check=True)
    seconds, left, right = loudness(heard)
    assert seconds == pytest.approx(2.0, abs=0.05)
    assert left > 3000 and right < left / 30


@needs_opus
async def test_what_cannot_be_encoded_stays_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "call.wav"
    broken.write_bytes(b"RIFF and no more")
    assert await OpusEncoder().encode(broken) is None
    assert await OpusEncoder().encode(tmp_path / "gone.wav") is None
    assert os.listdir(tmp_path) == ["call.wav"]
    assert caplog.text.count("a recording stays WAV") == 2


async def test_without_the_program_nothing_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opus, "PROGRAM", "no-such-encoder")
    assert opus.encoder() is None
    assert await OpusEncoder().encode(record(tmp_path / "call.wav")) is None
    assert os.listdir(tmp_path) == ["call.wav"]


async def test_a_cancelled_encoding_ends_the_program_and_leaves_the_wav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands for an encoder at work on a long call: it has begun the file and takes its time.
    slow = tmp_path / "slow"
    slow.write_text(
        '#!/bin/sh\necho $$ > "$0.pid"\nfor part; do :; done\n: > "$part"\nexec sleep 60\n'
    )
    slow.chmod(0o755)
    monkeypatch.setattr(opus, "PROGRAM", str(slow))
    wav = record(tmp_path / "call.wav")
    work = asyncio.create_task(OpusEncoder().encode(wav))
    part = tmp_path / "call.opus.part"
    while not part.exists():  # noqa: ASYNC110 - the program is another process
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert wav.exists() and not part.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "slow.pid").read_text()), 0)
