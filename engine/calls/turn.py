"""One turn: from the caller's pause to the agent's last word.

A turn begins as speculation. Hearing, thinking and speaking all run at once, but nothing is played and no
tool runs until `commit`. A caller who goes on makes us throw the turn away.

    paused ──start──▶ transcribe ──▶ think ──▶ synthesise ──▶ (frames wait)
                                                                 │ commit: the turn is over
                                                                 ▼
                                                               played ──▶ done
    the caller goes on, or speaks over it ──▶ stop
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from engine.aio import Background
from engine.dialog.mind import Say, Thought
from engine.errors import ModelTimeout
from engine.media.frame import Pcm
from engine.playback.utterance import Utterance
from engine.stt.base import Transcript

log = logging.getLogger(__name__)

HANGS_S = 15.0
"""A model that takes so long for one sentence will not come back: its call goes on without it."""

Voice = Callable[[str, str], AsyncIterator[Pcm]]


@dataclass(slots=True)
class Timings:
    """Clock readings of one turn, in monotonic seconds; 0 where a stage has not happened."""

    speech_from: float = 0.0
    speech_to: float = 0.0
    paused_at: float = 0.0
    over_at: float = 0.0
    heard_at: float = 0.0
    sentence_at: float = 0.0
    sound_at: float = 0.0
    """The first synthesised frame is ready."""
    stt_ms: int = 0

    def stages_ms(self, first_frame_at: float | None) -> dict[str, int | None]:
        """What each stage cost on the way from the caller's last speech to the agent's first sound."""

        def between(start: float, end: float | None) -> int | None:
            return max(0, round((end - start) * 1000)) if start and end else None

        return {
            "endpoint": between(self.speech_to, self.over_at),
            "stt": self.stt_ms or None,
            "llm_first_sentence": between(self.heard_at, self.sentence_at),
            "tts_first_frame": between(self.sentence_at, self.sound_at),
            "gap": between(self.speech_to, first_frame_at),
        }


class Turn:
    """`transcript` resolves first; `wait` returns when the last frame was played, or the turn was stopped.

    Its work is one of `tasks`, whose owner waits for it in the end. The first sentence is a `notice` where
    the caller must hear it.
    """

    def __init__(
        self,
        *,
        utterance: Utterance,
        voice: Voice,
        compose: Callable[[Turn], AsyncGenerator[Thought, None]],
        on_thought: Callable[[Turn, Thought], None],
        tasks: Background,
        timings: Timings | None = None,
        notice: bool = False,
    ) -> None:
        self.utterance = utterance
        self.timings = timings or Timings()
        self.committed = asyncio.Event()
        self.transcript: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        self.speculated = False
        self.early: list[Thought] = []
        self._voice = voice
        self._compose = compose
        self._on_thought = on_thought
        self._tasks = tasks
        self._notice = notice
        self._now = asyncio.get_running_loop().time
        self._work: asyncio.Task[None] | None = None

    def start(self, transcript: asyncio.Future[Transcript]) -> None:
        """Begin with the transcript that is being made."""
        self._work = self._tasks.start(self._run(transcript), name="turn")
        # The one who waits on the turn reports what went wrong; nobody waits for one that was stopped.
        self._work.add_done_callback(lambda work: work.cancelled() or work.exception())

    def start_with(self, transcript: Transcript) -> None:
        """Begin with words that need not be heard."""
        known: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        known.set_result(transcript)
        self.start(known)

    def commit(self) -> list[Thought]:
        """The turn is over: tools may run; the caller's ear may have what is ready.

        Returns what was thought before, for the record.
        """
        self.committed.set()
        early, self.early = self.early, []
        return early

    def stop(self) -> None:
        """Silence now, and no more work; what was heard stays in the utterance. Safe to call twice."""
        self.utterance.interrupt()
        self.transcript.cancel()
        if self._work is not None:
            self._work.cancel()

    async def wait(self) -> None:
        """Until the agent has said all of it, or was stopped. Raises what composing raised."""
        if self._work is not None:
            await asyncio.wait({self._work})
            if not self._work.cancelled():
                self._work.result()
        await self.utterance.wait()

    @property
    def notice_heard(self) -> bool:
        """The notice has been heard, or there is none."""
        if not self._notice:
            return True
        return any(sentence.status == "played" for sentence in self.utterance.heard[:1])

    async def _run(self, transcript: asyncio.Future[Transcript]) -> None:
        try:
            result = await transcript
            self.timings.heard_at = self._now()
            self.timings.stt_ms = round(result.took_ms)
            if not self.transcript.done():
                self.transcript.set_result(result)
            async with aclosing(self._compose(self)) as thoughts:
                async for thought in thoughts:
                    self._on_thought(self, thought)
                    if isinstance(thought, Say):
                        await self._say(thought)
        except Exception as error:
            if not self.transcript.done():
                self.transcript.set_exception(error)
                self.transcript.exception()
            raise
        finally:
            transcript.cancel()
            self.utterance.finish()

    async def _say(self, thought: Say) -> None:
        if not self.timings.sentence_at:
            self.timings.sentence_at = self._now()
        sound = self._voice(thought.text, thought.language)
        await self.utterance.say(thought.text, thought.language, self._noted(sound))

    async def _noted(self, sound: AsyncIterator[Pcm]) -> AsyncIterator[Pcm]:
        async with aclosing(sound) as chunks:  # type: ignore[type-var]
            while True:
                try:
                    async with asyncio.timeout(HANGS_S):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise ModelTimeout(f"no sound within {HANGS_S:g} s") from error
                if not self.timings.sound_at:
                    self.timings.sound_at = self._now()
                yield chunk
