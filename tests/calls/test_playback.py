from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import numpy as np
import pytest

from engine.aio import cancel_and_wait
from engine.errors import LegClosed, ModelError
from engine.media.frame import Digit, Frame, Pcm
from engine.playback.player import Player
from engine.playback.utterance import BUFFER_FRAMES, Utterance
from tests.virtual_time import VirtualTimeLoop

RATE = 8000


class Line:
    """A leg that writes down what is sent and when; `lead_frames` of it are still unplayed at a flush."""

    call_id = "00000000-0000-4000-8000-000000000000"
    rate = RATE

    def __init__(self, lead_frames: int = 0) -> None:
        self.lead_frames = lead_frames
        self.sent: list[tuple[float, Frame]] = []
        self.flushed: list[float] = []
        self.closed = False

    async def receive(self) -> AsyncIterator[Frame | Digit]:
        return
        yield

    async def send(self, frame: Frame) -> None:
        if self.closed:
            raise LegClosed("gone")
        self.sent.append((asyncio.get_running_loop().time(), frame))

    async def flush(self) -> None:
        self.flushed.append(asyncio.get_running_loop().time())

    async def hang_up(self) -> None:
        self.closed = True

    @property
    def levels(self) -> list[int]:
        """The last sample of every frame: 0 in silence and in a faded frame."""
        return [int(frame.samples()[-1]) for _, frame in self.sent]


class Call:
    """A line with a running player."""

    def __init__(self, lead_frames: int = 0) -> None:
        self.line = Line(lead_frames)
        self.tapped: list[Frame] = []
        self.player = Player(self.line, tap=self.tapped.append)

    async def __aenter__(self) -> Call:
        self.task = asyncio.create_task(self.player.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_and_wait(self.task)

    async def says(self, *sentences: tuple[str, int, int]) -> Utterance:
        """Queue a reply of sentences (text, level, ms)."""
        utterance = Utterance(RATE, kind="reply")
        for text, level, ms in sentences:
            await utterance.say(text, "en", sound(level, ms))
        utterance.finish()
        self.player.play(utterance)
        return utterance


async def sound(level: int, ms: int, chunk_ms: int = 70) -> AsyncIterator[Pcm]:
    samples = np.full(ms * RATE // 1000, level, dtype=np.int16)
    step = chunk_ms * RATE // 1000
    for start in range(0, len(samples), step):
        yield Pcm(samples[start : start + step], RATE)


def gaps(times: Iterable[float]) -> list[float]:
    return np.diff(np.array(list(times))).round(6).tolist()


async def test_one_frame_every_20_ms_and_silence_when_idle() -> None:
    async with Call() as call:
        await asyncio.sleep(1.01)
    assert len(call.line.sent) == 51
    assert set(gaps(at for at, _ in call.line.sent)) == {0.02}
    assert {frame.pcm for _, frame in call.line.sent} == {bytes(320)}
    assert max(call.player.lateness_ms) < 0.001
    assert call.tapped == [frame for _, frame in call.line.sent]


async def test_an_utterance_is_played_whole_and_reported() -> None:
    async with Call() as call:
        await asyncio.sleep(0.105)
        utterance = await call.says(("Hello.", 1000, 110), ("How are you?", 2000, 200))
        assert [s.status for s in utterance.heard] == ["queued", "queued"]
        await asyncio.sleep(0.03)
        assert call.player.speaking and call.player.current is utterance
        await utterance.wait()
        assert not call.player.speaking
        await asyncio.sleep(0.1)
    first, second = utterance.heard
    assert (first.status, first.heard_ms, first.total_ms) == ("played", 110, 110)
    assert (second.status, second.heard_ms, second.total_ms) == ("played", 200, 200)
    assert utterance.first_frame_at == first.started_at == pytest.approx(0.12)
    assert second.started_at == pytest.approx(0.24)
    assert call.line.levels[6:22] == [1000] * 5 + [0] + [2000] * 10
    assert set(gaps(at for at, _ in call.line.sent)) == {0.02}


async def test_an_interruption_is_silence_from_the_next_frame_and_exact() -> None:
    async with Call() as call:
        utterance = await call.says(("One.", 1000, 100), ("Two.", 2000, 400), ("Three.", 3000, 100))
        await asyncio.sleep(0.305)
        utterance.interrupt()
        await utterance.wait()
        await asyncio.sleep(0.1)
    assert [(s.status, s.heard_ms, s.total_ms) for s in utterance.heard] == [
        ("played", 100, 100),
        ("cut", 200, 400),
        ("unheard", 0, 100),
    ]
    heard = [level for level in call.line.levels if level]
    assert heard == [1000] * 5 + [2000] * 10
    # The frame after the cut fades out within 5 ms instead of clicking.
    _, faded = next(pair for pair in call.line.sent if pair[0] > 0.305)
    assert faded.samples()[0] == 2000 and not faded.samples()[40:].any()
    assert call.line.flushed and call.line.flushed[0] - 0.305 < 0.02


async def test_the_next_utterance_follows_without_a_gap() -> None:
    async with Call() as call:
        await call.says(("One.", 1000, 40))
        last = await call.says(("Two.", 2000, 40))
        await last.wait()
    assert call.line.levels[1:5] == [1000, 1000, 2000, 2000]


async def test_pause_keeps_the_place_and_resume_goes_back_to_a_word() -> None:
    async with Call() as call:
        words = np.concatenate(
            [np.full(160 * count, level) for level, count in ((900, 20), (0, 2), (700, 28))]
        ).astype(np.int16)

        async def spoken() -> AsyncIterator[Pcm]:
            yield Pcm(words, RATE)

        utterance = Utterance(RATE, kind="reply")
        await utterance.say("Two words.", "en", spoken())
        utterance.finish()
        call.player.play(utterance)
        await asyncio.sleep(0.625)
        utterance.pause()
        assert utterance.heard[0].heard_ms == 620
        await asyncio.sleep(0.5)
        assert not call.player.speaking and utterance.heard[0].status == "playing"
        before = len(call.line.sent)
        utterance.resume()
        await utterance.wait()
    (sentence,) = utterance.heard
    assert (sentence.status, sentence.heard_ms, sentence.resumed) == ("played", 1000, True)
    # 31 frames were heard; it goes on from the silence at frame 21.
    again = call.line.levels[before : before + 30]
    assert again[:3] == [0, 700, 700] and again.count(700) == 28
    assert set(call.line.levels[40:before]) == {0}


async def test_an_interruption_while_paused_or_replaying_counts_what_was_heard_once() -> None:
    async with Call() as call:
        utterance = await call.says(("Long.", 1000, 2000))
        await asyncio.sleep(0.805)
        utterance.pause()
        utterance.resume()
        await asyncio.sleep(0.045)
        utterance.interrupt()
        paused = await call.says(("Other.", 1000, 2000))
        await asyncio.sleep(0.5)
        paused.pause()
        heard = paused.heard[0].heard_ms
        await asyncio.sleep(0.5)
        paused.interrupt()
    assert utterance.heard[0].heard_ms == 800
    assert paused.heard[0].heard_ms == heard and paused.heard[0].status == "cut"


async def test_a_queued_utterance_that_is_interrupted_is_never_heard() -> None:
    async with Call() as call:
        utterance = await call.says(("Thought too early.", 1000, 200))
        utterance.interrupt()
        await asyncio.sleep(0.2)
    assert [s.status for s in utterance.heard] == ["unheard"]
    assert not any(call.line.levels)


async def test_a_slow_voice_leaves_silence_and_not_the_end() -> None:
    async def halting() -> AsyncIterator[Pcm]:
        yield Pcm(np.full(800, 1000, dtype=np.int16), RATE)
        await asyncio.sleep(0.5)
        yield Pcm(np.full(800, 1000, dtype=np.int16), RATE)

    async with Call() as call:
        utterance = Utterance(RATE, kind="reply")
        call.player.play(utterance)
        await utterance.say("Well …", "en", halting())
        utterance.finish()
        await utterance.wait()
    assert utterance.heard[0].status == "played"
    assert sum(level == 1000 for level in call.line.levels) == 10
    assert set(gaps(at for at, _ in call.line.sent)) == {0.02}


async def test_synthesis_waits_when_30_s_are_buffered_and_goes_on_after_a_cut() -> None:
    utterance = Utterance(RATE, kind="reply")
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Pcm]:
        try:
            while True:
                yield Pcm(np.full(RATE, 1000, dtype=np.int16), RATE)
        finally:
            closed.set()

    saying = asyncio.create_task(utterance.say("On and on.", "en", endless()))
    await asyncio.sleep(1)
    assert BUFFER_FRAMES <= utterance.buffered_frames <= BUFFER_FRAMES + 50
    assert not saying.done()
    utterance.interrupt()
    await saying
    assert closed.is_set()


async def test_a_voice_that_fails_leaves_a_cut_sentence() -> None:
    async def failing() -> AsyncIterator[Pcm]:
        yield Pcm(np.full(320, 1000, dtype=np.int16), RATE)
        raise ModelError("no more breath")

    async with Call() as call:
        utterance = Utterance(RATE, kind="reply")
        call.player.play(utterance)
        with pytest.raises(ModelError):
            await utterance.say("Half a", "en", failing())
        utterance.finish()
        await utterance.wait()
    (sentence,) = utterance.heard
    assert (sentence.status, sentence.heard_ms) == ("cut", 40)


async def test_other_rates_are_resampled_to_the_line() -> None:
    async def voice() -> AsyncIterator[Pcm]:
        for _ in range(10):
            yield Pcm(np.full(2205, 1000, dtype=np.int16), 22_050)

    utterance = Utterance(RATE, kind="reply")
    await utterance.say("One second.", "en", voice())
    assert utterance.heard[0].total_ms == 1000
    with pytest.raises(ValueError, match="16000"):
        Player(Line()).play(Utterance(16_000, kind="reply"))


async def test_a_late_process_catches_up_without_a_burst(loop: VirtualTimeLoop) -> None:
    async with Call() as call:
        await asyncio.sleep(0.2)
        loop.advance(0.07)
        await asyncio.sleep(0.5)
    assert min(gaps(at for at, _ in call.line.sent)) >= 0.01 - 1e-9
    assert len(call.line.sent) == 39, "0.77 s: nothing was lost"
    assert call.player.resyncs == 0
    assert max(call.player.lateness_ms) > 50


async def test_a_very_late_process_starts_its_clock_anew(loop: VirtualTimeLoop) -> None:
    async with Call() as call:
        await asyncio.sleep(0.2)
        loop.advance(1.0)
        await asyncio.sleep(0.2)
    assert call.player.resyncs == 1
    assert set(gaps(at for at, _ in call.line.sent)[-8:]) == {0.02}
    assert len(call.line.sent) <= 22


async def test_the_player_ends_with_the_line() -> None:
    async with Call() as call:
        utterance = await call.says(("Good bye.", 1000, 1000))
        waiting = await call.says(("Still there?", 1000, 1000))
        await asyncio.sleep(0.31)
        await call.line.hang_up()
        await call.task
        await utterance.wait()
        late = await call.says(("Too late.", 1000, 100))
    assert utterance.heard[0].status == "cut"
    assert [u.heard[0].status for u in (waiting, late)] == ["unheard", "unheard"]


async def test_a_lead_is_filled_first_and_taken_off_what_was_heard() -> None:
    async with Call(lead_frames=3) as call:
        await asyncio.sleep(0.005)
        assert len(call.line.sent) == 4
        utterance = await call.says(("One.", 1000, 100), ("Two.", 2000, 400))
        await asyncio.sleep(0.3)
        taken = sum(level > 0 for level in call.line.levels)
        assert sum(s.heard_ms for s in utterance.heard) == (taken - 3) * 20
        utterance.interrupt()
        assert sum(s.heard_ms for s in utterance.heard) == (taken - 3) * 20
        await asyncio.sleep(0.1)
        assert len(call.line.flushed) == 1
        after = [at for at, _ in call.line.sent if at >= call.line.flushed[0]]
        assert gaps(after)[:5] == [0, 0, 0, 0.02, 0.02]
        whole = await call.says(("All of it.", 1000, 100))
        started = asyncio.get_running_loop().time()
        await whole.wait()
    assert whole.heard[0].status == "played" and whole.heard[0].heard_ms == 100
    assert whole.first_frame_at is not None
    assert asyncio.get_running_loop().time() - started >= 0.1 + 0.06


async def test_a_pause_with_a_lead_takes_back_what_the_far_side_dropped() -> None:
    async with Call(lead_frames=2) as call:
        utterance = await call.says(("One.", 1000, 40), ("Two.", 2000, 400))
        await asyncio.sleep(0.07)
        utterance.pause()
        # Frames left at 20, 40 and 60 ms; two of them were still on their way.
        assert [(s.status, s.heard_ms) for s in utterance.heard] == [("playing", 20), ("queued", 0)]
        utterance.resume()
        await utterance.wait()
    assert [(s.status, s.heard_ms) for s in utterance.heard] == [("played", 40), ("played", 400)]


async def test_what_is_skipped_is_cut_and_what_is_said_later_is_played() -> None:
    async with Call() as call:
        utterance = Utterance(RATE, kind="reply")
        call.player.play(utterance)
        await utterance.say("One.", "en", sound(1000, 100))
        await utterance.say("Two.", "en", sound(2000, 400))
        await utterance.say("Three.", "en", sound(3000, 400))
        await asyncio.sleep(0.205)
        utterance.skip()
        await asyncio.sleep(0.2)
        assert utterance.left_s is None and not utterance.done
        await utterance.say("Four.", "en", sound(4000, 100))
        utterance.finish()
        assert utterance.left_s == pytest.approx(0.1)
        await utterance.wait()
    assert [(s.status, s.heard_ms, s.total_ms) for s in utterance.heard] == [
        ("played", 100, 100),
        ("cut", 140, 400),
        ("unheard", 0, 400),
        ("played", 100, 100),
    ]
    assert utterance.state == "played" and utterance.left_s == 0
    # The last frame of what was skipped fades out instead of clicking.
    levels = [level for level in call.line.levels if level]
    assert levels == [1000] * 5 + [2000] * 6 + [4000] * 5


async def test_skipping_ends_a_pause_and_stops_the_voice() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Pcm]:
        try:
            while True:
                yield Pcm(np.full(800, 1000, dtype=np.int16), RATE)
                await asyncio.sleep(0.05)
        finally:
            closed.set()

    async with Call() as call:
        utterance = Utterance(RATE, kind="reply")
        call.player.play(utterance)
        saying = asyncio.create_task(utterance.say("On and on.", "en", endless()))
        await asyncio.sleep(0.305)
        utterance.pause()
        heard = utterance.heard[0].heard_ms
        utterance.skip()
        assert utterance.state == "playing"
        await saying
        assert closed.is_set()
        await utterance.say("Next.", "en", sound(2000, 40))
        utterance.finish()
        await utterance.wait()
        utterance.skip()
    assert [(s.status, s.heard_ms) for s in utterance.heard] == [("cut", heard), ("played", 40)]


async def test_what_is_left_of_a_reply_is_known_once_all_of_it_is_made() -> None:
    utterance = Utterance(RATE, kind="reply")
    assert utterance.left_s is None
    await utterance.say("One.", "en", sound(1000, 100))
    assert utterance.left_s is None
    utterance.finish()
    assert utterance.left_s == pytest.approx(0.1)
    utterance.next_frame(0.0)
    assert utterance.left_s == pytest.approx(0.08)
