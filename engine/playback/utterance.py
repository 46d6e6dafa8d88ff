"""One spoken reply: an object one can feed, pause, interrupt and await, and that knows what was heard.

    say("Hello.")  say("How are you?")  finish()
        |  |            |                            state: queued -> playing <-> paused
        v  v            v                                           |        -> interrupted
    |f|f|f|f|f| |f|f|f|f|...   20 ms frames, ready to send          +-> played
           ^ head: the player takes one per tick

What was heard is what the player took, less what the far side still holds (`lead_frames`): exact to a
frame. All times are seconds on the loop's clock. Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from engine.media.frame import FRAME_MS, Pcm, Samples
from engine.media.resample import StreamResampler

BUFFER_FRAMES = 30_000 // FRAME_MS
"""Sound made but not played: 30 s, then synthesis waits."""
_REWIND = (5, 20)
"""A resumed sentence starts again 100 to 400 ms earlier, where it was quietest: between words."""
_FADE_MS = 5
_STRETCH_S = 0.2
"""Resampling gives way to other calls after this much sound."""

SentenceStatus = Literal["queued", "playing", "played", "cut", "unheard"]
UtteranceState = Literal["queued", "playing", "paused", "played", "interrupted"]


@dataclass(frozen=True, slots=True)
class HeardSentence:
    """One sentence as the caller heard it.

    queued: not begun. playing: begun (also while paused). played: to its end. cut: begun, then
    interrupted after `heard_ms`, or its synthesis failed. unheard: interrupted before it began.
    `total_ms` grows until the sentence is synthesised.
    """

    text: str
    language: str
    status: SentenceStatus
    heard_ms: int
    total_ms: int
    resumed: bool
    started_at: float | None


@dataclass(slots=True)
class _Sentence:
    text: str
    language: str
    frames: list[bytes] = field(default_factory=list)
    samples: int = 0
    complete: bool = False
    """No more sound will come, or is wanted."""
    whole: bool = False
    """All its sound came."""
    head: int = 0
    """The next frame to play; goes back when resumed."""
    heard_before: int = 0
    """Frames heard before the last rewind."""
    resumed: bool = False
    started_at: float | None = None


class Utterance:
    """One reply at the leg's `rate`. `kind` says what it is for: "reply", "greeting", "filler" …"""

    def __init__(self, rate: int, *, kind: str) -> None:
        self.rate = rate
        self.kind = kind
        self.state: UtteranceState = "queued"
        self.first_frame_at: float | None = None
        self.lead_frames = 0
        """Frames the far side holds; the player that plays this sets it."""
        self._sentences: list[_Sentence] = []
        self._current = 0
        self._finished = False
        self._done = asyncio.Event()
        self._room = asyncio.Event()
        self._dry = 0
        self._faded_in = True

    # -- made by the voice ----------------------------------------------------------------------

    async def say(self, text: str, language: str, sound: AsyncIterator[Pcm]) -> None:
        """Take one sentence's sound, of any rate, until it ends; waits while 30 s are buffered.

        Sentences play in the order of the calls. Returns early when the utterance is interrupted, and
        then closes `sound`. Whatever `sound` raises is raised here, the sentence staying as far as it
        came.
        """
        sentence = _Sentence(text, language)
        self._sentences.append(sentence)
        try:
            if hasattr(sound, "aclose"):
                async with aclosing(cast(Any, sound)):
                    await self._take(sentence, sound)
            else:
                await self._take(sentence, sound)
        finally:
            sentence.complete = True

    def finish(self) -> None:
        """No more sentences will come; the utterance ends when the last is played."""
        self._finished = True

    # -- steered by the call --------------------------------------------------------------------

    def interrupt(self) -> None:
        """Stop for good. The player is silent from its next frame. Safe at any time, also twice."""
        if not self.done:
            self._retreat()
            self._end("interrupted")

    def pause(self) -> None:
        """Fall silent from the next frame on, keeping the place."""
        if self.state in ("queued", "playing"):
            self._retreat()
            self.state = "paused"

    def resume(self) -> None:
        """Go on after `pause`, from the word boundary nearest before."""
        if self.state != "paused":
            return
        self.state = "playing" if self.first_frame_at is not None else "queued"
        if self._current < len(self._sentences):
            sentence = self._sentences[self._current]
            said = sentence.complete and sentence.head >= len(sentence.frames)
            if sentence.head > 0 and not said:
                sentence.resumed = True
                sentence.heard_before = max(sentence.heard_before, sentence.head)
                sentence.head = _word_start(sentence.frames, sentence.head)
                self._faded_in = False

    def skip(self) -> None:
        """Say no more of the sentences so far; those said later are played. Also ends a pause."""
        if self.done:
            return
        fade = self.state == "playing"
        for sentence in self._sentences[self._current :]:
            if sentence.complete and sentence.head >= len(sentence.frames):
                continue
            rest = sentence.frames[sentence.head : sentence.head + 1]
            del sentence.frames[sentence.head :]
            if fade and sentence.head:
                sentence.frames += [_faded(pcm, self.rate, out=True) for pcm in rest]
            sentence.complete, sentence.whole = True, False
        if self.state == "paused":
            self.state = "playing" if self.first_frame_at is not None else "queued"
        self._room.set()

    async def wait(self) -> None:
        """Until played out or interrupted."""
        await self._done.wait()

    # -- what became of it ----------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self._done.is_set()

    @property
    def interrupted(self) -> bool:
        return self.state == "interrupted"

    @property
    def buffered_frames(self) -> int:
        """Frames made and not yet taken by the player."""
        return sum(len(s.frames) - s.head for s in self._sentences[self._current :])

    @property
    def left_s(self) -> float | None:
        """Seconds of sound that the player has not taken; None while more may come."""
        made = all(sentence.complete for sentence in self._sentences)
        return self.buffered_frames * FRAME_MS / 1000 if self._finished and made else None

    @property
    def heard(self) -> tuple[HeardSentence, ...]:
        """Every sentence so far, in order, as it was heard."""
        behind = self._held if self.state == "playing" else 0
        ledger: list[HeardSentence] = []
        for sentence in reversed(self._sentences):
            # The far side holds the newest frames, so the lead is taken off from the end.
            held = min(behind, sentence.head)
            behind -= held
            frames = max(sentence.heard_before, sentence.head - held)
            ledger.append(self._entry(sentence, frames))
        return tuple(reversed(ledger))

    # -- taken by the player --------------------------------------------------------------------

    def next_frame(self, at: float) -> bytes | None:
        """The frame to send at `at`, or None when there is none now: paused, done, or not made yet."""
        if self.done or self.state == "paused":
            return None
        while self._current < len(self._sentences):
            sentence = self._sentences[self._current]
            if sentence.head < len(sentence.frames):
                return self._taken(sentence, at)
            if not sentence.complete:
                self._dry += 1
                return None
            self._current += 1
        self._dry += 1
        if self._finished and self._dry > self.lead_frames:
            # Not before the far side has played what it held when the last frame was taken.
            self._end("played")
        return None

    def fading_frame(self) -> bytes | None:
        """The 5 ms of sound, faded to silence, that follow a cut or a pause without a click."""
        if self._current >= len(self._sentences):
            return None
        sentence = self._sentences[self._current]
        if not 0 < sentence.head < len(sentence.frames):
            return None
        return _faded(sentence.frames[sentence.head], self.rate, out=True)

    # -- inside ---------------------------------------------------------------------------------

    async def _take(self, sentence: _Sentence, sound: AsyncIterator[Pcm]) -> None:
        def unwanted() -> bool:
            return self.done or sentence.complete

        if unwanted():
            return
        resampler: StreamResampler | None = None
        rest: Samples = np.zeros(0, dtype=np.int16)
        async for pcm in sound:
            if unwanted():
                return
            if resampler is None:
                resampler = StreamResampler(pcm.rate, self.rate)
            stretch = max(1, int(pcm.rate * _STRETCH_S))
            for start in range(0, len(pcm.samples), stretch):
                out = resampler.push(pcm.samples[start : start + stretch])
                rest = self._cut(sentence, np.concatenate((rest, out)))
                await asyncio.sleep(0)
                await self._wait_for_room()
                if unwanted():
                    return
        if unwanted():
            return
        if resampler is not None:
            rest = self._cut(sentence, np.concatenate((rest, resampler.finish())))
            if len(rest):
                padding = np.zeros(self._frame_samples - len(rest), dtype=np.int16)
                self._cut(sentence, np.concatenate((rest, padding)))
                sentence.samples -= len(padding)
        sentence.whole = True

    def _cut(self, sentence: _Sentence, samples: Samples) -> Samples:
        """Append whole frames to the sentence; what is left over comes back."""
        whole = len(samples) // self._frame_samples * self._frame_samples
        pcm, size = samples[:whole].astype("<i2", copy=False).tobytes(), self._frame_samples * 2
        sentence.frames += [pcm[start : start + size] for start in range(0, len(pcm), size)]
        sentence.samples += whole
        return samples[whole:]

    @property
    def _frame_samples(self) -> int:
        return self.rate * FRAME_MS // 1000

    async def _wait_for_room(self) -> None:
        while self.buffered_frames >= BUFFER_FRAMES and not self._done.is_set():
            self._room.clear()
            await self._room.wait()

    def _taken(self, sentence: _Sentence, at: float) -> bytes:
        pcm = sentence.frames[sentence.head]
        if sentence.started_at is None:
            sentence.started_at = at
        if self.first_frame_at is None:
            self.first_frame_at = at
        self.state = "playing"
        sentence.head += 1
        self._dry = 0
        self._room.set()
        if not self._faded_in:
            self._faded_in = True
            return _faded(pcm, self.rate, out=False)
        return pcm

    @property
    def _held(self) -> int:
        """Frames taken that the far side has not played."""
        return max(0, self.lead_frames - self._dry)

    def _retreat(self) -> None:
        """The far side will drop what it holds: that was not heard, and a resume starts there."""
        frames = self._held
        self._dry = self.lead_frames
        while frames > 0 and self._sentences:
            self._current = min(self._current, len(self._sentences) - 1)
            sentence = self._sentences[self._current]
            back = min(frames, sentence.head)
            sentence.head -= back
            frames -= back
            if self._current == 0:
                return
            if frames > 0:
                self._current -= 1

    def _end(self, state: Literal["played", "interrupted"]) -> None:
        self.state = state
        self._done.set()
        self._room.set()

    def _entry(self, sentence: _Sentence, frames: int) -> HeardSentence:
        total_ms = round(sentence.samples * 1000 / self.rate)
        status: SentenceStatus
        ended = sentence.complete and frames >= len(sentence.frames)
        if ended and sentence.whole and (frames or self.state == "played"):
            status = "played"
        elif self.done or (ended and not sentence.whole):
            status = "cut" if frames else "unheard"
        else:
            status = "playing" if frames else "queued"
        return HeardSentence(
            text=sentence.text,
            language=sentence.language,
            status=status,
            heard_ms=min(frames * FRAME_MS, total_ms),
            total_ms=total_ms,
            resumed=sentence.resumed,
            started_at=sentence.started_at if frames else None,
        )


def _word_start(frames: list[bytes], head: int) -> int:
    """The quietest frame 100 to 400 ms before `head`, the latest of equals; 0 near the start."""
    nearest, farthest = _REWIND
    first, last = max(0, head - farthest), head - nearest
    if last <= first:
        return 0
    sound = np.frombuffer(b"".join(frames[first:last]), dtype="<i2").reshape(last - first, -1)
    energy = np.square(sound, dtype=np.float32).mean(axis=1)
    return last - 1 - int(np.argmin(energy[::-1]))


def _faded(pcm: bytes, rate: int, *, out: bool) -> bytes:
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
    length = rate * _FADE_MS // 1000
    if out:
        samples[:length] *= np.linspace(1, 0, length, dtype=np.float32)
        samples[length:] = 0
    else:
        samples[:length] *= np.linspace(0, 1, length, dtype=np.float32)
    return samples.astype("<i2").tobytes()
