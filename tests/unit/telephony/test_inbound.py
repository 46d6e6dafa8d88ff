from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.media.frame import FRAME_S, Digit, Frame
from engine.telephony.inbound import PATIENCE_S, Inbound, Reframer
from tests.virtual_time import VirtualTimeLoop

SPEECH = b"\x01\x02" * 160
SILENCE = bytes(320)


class Line:
    """A line on virtual time: what arrives when, and what a reader that never sleeps is given."""

    def __init__(self, limit: int = 50) -> None:
        self.inbound = Inbound(8000, 0.0, limit=limit)
        self.heard: list[tuple[float, Frame | Digit]] = []

    def drain(self, now: float) -> None:
        while (item := self.inbound.pop(now)) is not None:
            self.heard.append((now, item))

    def play(self, arrivals: list[tuple[float, Callable[[float], None]]], until: float) -> None:
        for at, arrive in [*arrivals, (until, lambda now: None)]:
            while self.inbound.deadline < at:
                self.drain(self.inbound.deadline)
            arrive(at)
            self.drain(at)

    def speak(self, at: float, pcm: bytes = SPEECH) -> tuple[float, Callable[[float], None]]:
        return at, lambda now: self.inbound.push(pcm, 8000, now)

    def press(self, at: float, key: str) -> tuple[float, Callable[[float], None]]:
        return at, lambda now: self.inbound.digit(key, now)

    @property
    def story(self) -> str:
        """s: speech, .: silence, a digit: itself."""
        return "".join(
            item.key if isinstance(item, Digit) else "." if item.pcm == SILENCE else "s"
            for _, item in self.heard
        )


def test_contiguous_speech_is_passed_as_it_comes() -> None:
    line = Line()
    line.play([line.speak(0.02 * n) for n in range(1, 51)], until=1.0)
    assert line.story == "s" * 50


@pytest.mark.parametrize("tick", [0.0199, 0.0201, 0.021])
def test_a_drifting_clock_adds_neither_silence_nor_delay(tick: float) -> None:
    line = Line()
    arrivals = [line.speak(tick * n) for n in range(1, 3001)]
    line.play(arrivals, until=tick * 3000)
    assert line.story == "s" * 3000
    assert all(item.at == now for now, item in line.heard)


def test_jitter_is_not_silence() -> None:
    line = Line()
    jitter = [0.0, 0.039, 0.001, 0.02, 0.038, 0.0]
    line.play([line.speak(0.02 * n + jitter[n % 6]) for n in range(1, 60)], until=1.2 + 0.02)
    assert line.story == "s" * 59


def test_a_gap_is_told_once_on_the_absolute_schedule() -> None:
    line = Line()
    spoken = [line.speak(0.02 * n) for n in (1, 2, 3)]
    resumed = [line.speak(0.02 * n) for n in (14, 15, 16)]
    line.play(spoken + resumed, until=0.32)
    assert line.story == "sss" + "." * 10 + "sss"
    silence = [(now, item.at) for now, item in line.heard if line_is_silent(item)]
    # 60 ms after the last packet what is missing comes at once, then one frame every 20 ms.
    assert [now for now, _ in silence[:4]] == pytest.approx([0.12, 0.12, 0.13, 0.15])
    assert [at for _, at in silence] == pytest.approx([0.08 + 0.02 * n for n in range(10)])


def line_is_silent(item: Frame | Digit) -> bool:
    return isinstance(item, Frame) and item.pcm == SILENCE


def test_a_line_that_never_speaks_is_silence_all_along() -> None:
    line = Line()
    line.play([], until=2.01)
    assert line.story == "." * 100


def test_many_gaps_do_not_add_up() -> None:
    line = Line()
    # 100 bursts of speech, the pauses between them not whole frames.
    starts = [n * 0.4 + (n * n * 7 % 19) / 1000 for n in range(100)]
    line.play([line.speak(at + 0.02 * k) for at in starts for k in range(1, 6)], until=40.0)
    assert abs(len(line.story) - 40.0 / FRAME_S) <= 5


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60, 80])
def test_every_packet_time_without_holes(packet_ms: int) -> None:
    line = Line()
    pcm = b"\x01\x02" * (8 * packet_ms)
    # Late by up to 15 ms each, as telephones are.
    arrivals = [
        line.speak(packet_ms / 1000 * n + 0.015 * (n % 2), pcm) for n in range(1, 1200 // packet_ms)
    ]
    line.play(arrivals, until=arrivals[-1][0])
    assert "." not in line.story.lstrip(".")
    assert len(line.story.lstrip(".")) == (1200 // packet_ms - 1) * packet_ms // 20


def test_a_late_reader_is_told_of_gaps_in_their_place() -> None:
    line = Line()
    for at in (0.02, 0.04, 0.20, 0.22):
        line.inbound.push(SPEECH, 8000, at)
    line.drain(0.22)
    assert line.story == "ss" + "." * 7 + "ss"


def test_sound_behind_a_stall_is_kept_and_time_never_runs_back() -> None:
    line = Line()
    late = [line.speak(0.40, SPEECH * 5)]
    line.play([line.speak(0.02), *late, line.speak(0.42)], until=0.42)
    assert line.story == "s" + "." * 18 + "s" * 6
    times = [item.at for _, item in line.heard]
    assert times == sorted(times) and times[-1] <= 0.42


def test_a_reader_that_is_away_loses_the_oldest() -> None:
    line = Line(limit=10)
    for n in range(1, 31):
        line.inbound.push(n.to_bytes(2, "little") * 160, 8000, 0.02 * n)
    line.drain(0.6)
    assert [item.pcm[0] for _, item in line.heard if isinstance(item, Frame)] == list(range(21, 31))
    assert line.inbound.dropped == 20


def test_silence_for_a_reader_that_is_away_is_bounded_too() -> None:
    line = Line(limit=10)
    line.drain(60.0)
    assert len(line.story) <= 11
    assert line.inbound.dropped + len(line.story) == 2999


def test_keys_are_kept_in_their_place_when_sound_is_dropped() -> None:
    line = Line(limit=3)
    line.inbound.digit("7", 0.01)
    for n in range(1, 8):
        line.inbound.push(SPEECH, 8000, 0.02 * n)
    line.drain(0.14)
    assert line.story == "7ss"
    assert line.heard[0][1] == Digit("7", 0.01)


def test_a_flood_of_keys_has_its_end() -> None:
    line = Line(limit=3)
    for n in range(9):
        line.inbound.digit(str(n), 0.0)
    line.drain(0.0)
    assert line.story == "678"


def test_keys_come_between_frames() -> None:
    line = Line()
    line.play([line.speak(0.02), line.press(0.03, "5"), line.speak(0.04)], until=0.04)
    assert line.story == "s5s"


def test_nothing_follows_the_close() -> None:
    line = Line()
    line.inbound.push(SPEECH, 8000, 0.02)
    line.inbound.close()
    line.inbound.push(SPEECH, 8000, 0.04)
    line.inbound.digit("1", 0.04)
    line.drain(9.0)
    assert line.story[-1] == "s" and line.story.count("s") == 1


@given(st.lists(st.integers(1, 400), max_size=30))
def test_reframing_keeps_every_byte_in_order(sizes: list[int]) -> None:
    reframer = Reframer(8000)
    sound = bytes(n % 251 for n in range(sum(sizes) * 2))
    frames, position = [], 0
    for size in sizes:
        frames += reframer.push(sound[position : position + size * 2], 8000)
        position += size * 2
    assert all(len(frame) == 320 for frame in frames)
    assert b"".join(frames) == sound[: len(sound) // 320 * 320]
    assert reframer.rest_s == pytest.approx(len(sound) % 320 / 16000)


@pytest.mark.parametrize("rate", [12000, 16000, 44100, 48000])
def test_another_rate_is_resampled(rate: int) -> None:
    reframer = Reframer(8000)
    times = np.arange(rate) / rate
    tone = (10000 * np.sin(2 * np.pi * 500 * times)).astype("<i2").tobytes()
    step = rate // 50 * 2
    frames = [
        f for at in range(0, len(tone), step) for f in reframer.push(tone[at : at + step], rate)
    ]
    assert 45 <= len(frames) <= 50
    spectrum = np.abs(np.fft.rfft(np.frombuffer(b"".join(frames[5:45]), "<i2")))
    assert np.argmax(spectrum) * 8000 / (40 * 160) == pytest.approx(500, abs=2)


def test_going_back_to_the_agreed_rate() -> None:
    reframer = Reframer(8000)
    reframer.push(bytes(640), 16000)
    assert reframer.push(SPEECH, 8000)[-1:] == [SPEECH]


async def test_receive_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    inbound = Inbound(8000, loop.time())
    loop.call_later(0.01, inbound.push, SPEECH, 8000, loop.time())
    loop.call_later(0.15, inbound.close)
    heard = [item async for item in inbound.receive()]
    assert [item.pcm == SPEECH for item in heard if isinstance(item, Frame)][:1] == [True]
    assert 4 <= len(heard) <= 8
    assert all(
        after.at - before.at == pytest.approx(FRAME_S)
        for before, after in zip(heard[1:], heard[2:], strict=False)
    )


def test_a_line_that_turned_to_short_packets_is_waited_for_no_longer_than_these() -> None:
    """The reader's timer was set for long packets, and has to be set anew."""

    async def call() -> list[tuple[float, bool]]:
        loop = asyncio.get_running_loop()
        inbound = Inbound(8000, 0.0)
        loop.call_later(0.2, inbound.push, SPEECH * 10, 8000, 0.2)
        loop.call_later(0.22, inbound.push, SPEECH, 8000, 0.22)
        loop.call_later(0.5, inbound.close)
        return [
            (loop.time(), item.pcm == SPEECH)
            async for item in inbound.receive()
            if isinstance(item, Frame)
        ]

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        heard = runner.run(call())
    spoken = [at for at, speech in heard if speech]
    after = [at for at, speech in heard if not speech and at > 0.22]
    assert spoken == pytest.approx([0.2] * 10 + [0.22])
    assert after[0] == pytest.approx(0.22 + PATIENCE_S + FRAME_S)


def test_one_timer_serves_several_frames() -> None:
    class CountingLoop(VirtualTimeLoop):
        timers = 0

        def call_at(self, when, callback, *args, context=None):  # type: ignore[no-untyped-def]
            self.timers += callback == inbound._due
            return super().call_at(when, callback, *args, context=context)

    inbound = Inbound(8000, 0.0)

    async def call() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        for n in range(1, 101):
            loop.call_later(n * FRAME_S, inbound.push, SPEECH, 8000, n * FRAME_S)
        loop.call_later(100.5 * FRAME_S, inbound.close)
        return len([item async for item in inbound.receive()]), loop.timers

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        frames, timers = runner.run(call())
    assert frames == 100 and timers <= 40
