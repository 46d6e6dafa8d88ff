"""The conversation of one call: what the caller says becomes turns, and a turn becomes a reply.

Everything here runs on the loop and reacts to one frame or key at a time; models work elsewhere.

    caller pauses ─▶ a turn begins as speculation     caller goes on ─▶ it is thrown away
    turn over ─▶ committed: ledger, player            caller over the agent ─▶ see floor.py
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from engine.aio import Background
from engine.calls.ears import Ears
from engine.calls.floor import Floor
from engine.calls.journal import Journal
from engine.calls.keypad import Keypad
from engine.calls.state import CallState, CallTicket, Outcome
from engine.calls.turn import HANGS_S, Timings, Turn
from engine.dialog.guards import MAX_CLARIFICATIONS, Clarifications
from engine.dialog.history import Ledger
from engine.dialog.language import LanguageTracker
from engine.dialog.llm.base import ToolCall
from engine.dialog.mind import Mind, Say, Thought, ToolFinished, ToolStarted
from engine.dialog.phrases import phrases
from engine.errors import ModelTimeout, OffhookError
from engine.media.frame import FRAME_S, Digit, Frame, Pcm
from engine.playback.player import Player
from engine.playback.utterance import Utterance
from engine.stt.base import Transcript
from engine.turns.endpoint import (
    Paused,
    PauseHeld,
    SpeechResumed,
    SpeechStarted,
    TurnEvent,
    TurnOver,
)
from engine.turns.expectation import Expectation
from engine.turns.silence import SilenceLadder, Step

if TYPE_CHECKING:
    from engine.calls.parts import Parts

log = logging.getLogger(__name__)


class Conversation:
    """Implements the tools' CallControl. `finish(outcome)` is called once, when the agent is done."""

    def __init__(
        self,
        *,
        ticket: CallTicket,
        parts: Parts,
        player: Player,
        ears: Ears,
        rate: int,
        journal: Journal,
        finish: Callable[[Outcome], None],
        make_mind: Callable[[Conversation, Ledger], Mind],
    ) -> None:
        self.agent = ticket.agent
        self._now = asyncio.get_running_loop().time
        self.ledger = Ledger(self._now())
        self._languages = LanguageTracker(ticket.agent.languages)
        self._ticket = ticket
        self._parts = parts
        self._voices = parts.voices[ticket.agent.id]
        self._player = player
        self._ears = ears
        self._rate = rate
        self._journal = journal
        self._finish = finish
        self._ladder = SilenceLadder(self.agent.silence)
        self._floor = Floor(
            self.agent.turns,
            self.agent.languages,
            journal,
            on_kept=lambda: self._ladder.activity(self._now()),
        )
        self._keypad = Keypad(on_line=self._keys_entered)
        self._mind = make_mind(self, self.ledger)
        self._tasks = Background()
        self._next: Turn | None = None
        """The caller's turn in the making: speculation."""
        self._clarifications = Clarifications()
        self._failed = False
        self._closed = False

    # --- What the line brings ------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """One frame of the caller's."""
        if self._closed:
            return
        floor, heard = self._floor, self._ears.hear(frame)
        floor.hear(frame.at, heard)
        for event in heard.events:
            self._on_turn_event(event)
        if floor.interruptible or not floor.sounding:
            self._keypad.tick(frame.at)
        step = self._ladder.tick(
            frame.at,
            agent_speaking=floor.sounding,
            caller_speaking=heard.speech or self._ears.endpointer.in_turn,
            thinking=floor.turn is not None or self._keypad.busy or floor.plan is not None,
        )
        if step is not None:
            self._nobody_speaks(step)

    def press(self, digit: Digit) -> None:
        """One DTMF key: it silences the agent, and goes to whoever collects digits, else to the model."""
        if self._closed:
            return
        self._journal.note("caller.key", keep=False)
        self._ladder.activity(digit.at)
        if self._keypad.collecting:
            self._floor.hush()
        else:
            self._floor.key(digit.at)
        self._keypad.press(digit)

    @property
    def state(self) -> CallState:
        turn = self._floor.turn
        if self._floor.plan is not None:
            return CallState.ENDING
        if turn is not None and turn.utterance.kind == "greeting":
            return CallState.GREETING
        if self._floor.sounding:
            return CallState.SPEAKING
        return CallState.LISTENING if turn is None else CallState.THINKING

    # --- What the agent does -------------------------------------------------------------------

    @property
    def language(self) -> str:
        """The language of the conversation now."""
        return self._languages.current

    def greet(self) -> None:
        notice = [self.agent.record_notice] if self._ticket.record else []
        self._speak("greeting", [*notice, self.agent.greeting], notice=bool(notice))
        self._tasks.start(self._mind.prepare(), name="prepare")

    def plan_hang_up(self, reason: str) -> None:
        """After the present reply has been heard, end the call."""
        self._floor.plan = Outcome("completed", "hangup", reason)

    def plan_transfer(self, to: str, reason: str) -> None:
        """After the present reply has been heard, the dialplan sends the caller to `to`."""
        step = to if to.startswith(("queue:", "dial:")) else f"dial:{to}"
        self._floor.plan = Outcome("transferred", step, reason)

    async def collect_digits(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        """Wait for keys; returns what was pressed, without the terminator."""
        turn = self._floor.turn
        self._ears.expect(Expectation.DICTATION)
        question_s = 0.0 if turn is None else turn.utterance.buffered_frames * FRAME_S
        return await self._keypad.collect(max_digits, terminator, timeout_s, question_s=question_s)

    def say_goodbye(self, result: str) -> None:
        """End the call politely from outside: drain, or a call that has lasted too long."""
        if self._closed or (self._floor.plan is not None and self._floor.guarded):
            return  # it is ending, or promised to somebody else
        self._floor.plan = Outcome(result, "hangup")
        self._speak("goodbye", [phrases(self.language).farewell])

    async def close(self) -> None:
        """Cancel everything; what was heard is in the ledger. Safe to call twice."""
        self._closed = True
        self._drop_next()
        self._floor.clear()
        self._keypad.close()
        await self._tasks.close()

    # --- The caller's turn ---------------------------------------------------------------------

    def _on_turn_event(self, event: TurnEvent) -> None:
        match event:
            case SpeechStarted():
                self._floor.hold()
            case Paused():
                self._drop_next()
                if self._parts.spare():  # else the pause must prove itself first
                    self._next = self._guess(event)
            case PauseHeld():
                if self._next is None:
                    self._next = self._guess(event)
                self._tasks.start(self._judge(event), name="judge")
            case SpeechResumed():
                self._drop_next()
            case TurnOver():
                turn = self._next or self._begin(event.speech_from, event.speech_to, event.at)
                self._next = None
                turn.timings.over_at = event.at
                self._start(self._settle(turn), name="settle")

    def _guess(self, pause: Paused | PauseHeld) -> Turn:
        """Begin before it is known that the caller has finished."""
        turn = self._begin(pause.speech_from, pause.speech_to, pause.at)
        turn.speculated = True
        return turn

    def _begin(self, speech_from: float, speech_to: float, at: float) -> Turn:
        """Start to hear, think and synthesise; nothing is played."""
        turn = self._new_turn("reply", self._reply, Timings(speech_from, speech_to, at))
        audio = self._ears.cut(speech_from, speech_to)
        turn.start(self._tasks.start(self._transcribe(audio), name="transcribe"))
        return turn

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.stop()
            self._next = None

    async def _transcribe(self, audio: Pcm) -> Transcript:
        languages = self.agent.languages
        try:
            async with asyncio.timeout(HANGS_S):
                return await self._parts.stt.transcribe(
                    audio,
                    language=languages[0] if len(languages) == 1 else None,
                    languages=languages,
                )
        except TimeoutError as error:
            raise ModelTimeout(f"nothing was understood within {HANGS_S:g} s") from error

    async def _judge(self, pause: PauseHeld) -> None:
        """Ask the turn model whether the caller has finished."""
        audio = self._ears.cut(pause.speech_from, pause.at)
        try:
            probability = await self._parts.turn_model.probability(audio)
        except OffhookError:
            log.warning("the turn model failed; waiting on silence alone", exc_info=True)
            return
        events = self._ears.endpointer.judge(self._now(), probability, pause_id=pause.pause_id)
        for event in events:
            self._on_turn_event(event)

    def _is_backchannel(self, turn: Turn, text: str) -> bool:
        """Words over the agent decide at once whether it stops for good or goes on."""
        if not self._floor.interruptible or not self._floor.hides(turn):
            return False
        if not self._floor.words(self._now(), text):
            return False
        if turn is self._next:
            self._ears.endpointer.reset()
            self._drop_next()
        return True

    async def _settle(self, turn: Turn) -> None:
        """The caller has finished: answer, unless it was nothing."""
        await asyncio.wait({turn.transcript})
        if turn.transcript.cancelled():
            return
        transcript = turn.transcript.result()
        if not transcript.text or self._floor.guarded or self._floor.hides(turn):
            self._journal.note("caller.ignored", keep=False)
            turn.stop()
            if not self._ears.endpointer.in_turn:
                self._floor.let_go()
            return
        # Commit: the ledger learns what was said, and the reply may sound.
        self._floor.revoke()
        self._floor.take(turn)
        self._ladder.activity(self._now())
        if transcript.confidence >= self.agent.min_confidence:
            self._clarifications.clear()
        self._languages.hear(transcript.text, transcript.language, transcript.confidence)
        self.ledger.caller(
            transcript.text,
            self.language,
            transcript.confidence,
            started_at=turn.timings.speech_from,
            ended_at=turn.timings.speech_to,
        )
        self._journal.caller_said(transcript, turn.timings)
        if self._ears.endpointer.in_turn:
            self._floor.hold()
        await self._play(turn)

    def _keys_entered(self, keys: str, at: float) -> None:
        """Keys that nobody collects are words like any other."""
        now = self._now()
        self._floor.key(now)
        turn = self._new_turn("reply", self._reply, Timings(at, at, now, over_at=now))
        turn.start_with(Transcript(f"[keys] {keys}", self.language, 1.0))
        self._start(self._settle(turn), name="keys")

    # --- The agent's reply ---------------------------------------------------------------------

    async def _play(self, turn: Turn) -> None:
        """Give the turn that has the floor to the player and see it to its end."""
        self.ledger.agent(lambda: turn.utterance.heard)
        for thought in turn.commit():
            self._on_thought(turn, thought)
        self._player.play(turn.utterance)
        await turn.wait()
        self._ears.asked(turn.utterance.heard)
        if not self._floor.done(turn):
            return
        if self._floor.plan is not None:
            self._finish(self._floor.plan)
        else:
            self._tasks.start(self._mind.prepare(), name="prepare")

    def _new_turn(
        self,
        kind: str,
        compose: Callable[[Turn], AsyncGenerator[Thought, None]],
        timings: Timings | None = None,
        *,
        notice: bool = False,
    ) -> Turn:
        return Turn(
            utterance=Utterance(self._rate, kind=kind),
            voice=lambda text, language: self._voices.speak(text, language=language),
            compose=compose,
            on_thought=self._on_thought,
            tasks=self._tasks,
            timings=timings,
            notice=notice,
        )

    async def _reply(self, turn: Turn) -> AsyncGenerator[Thought, None]:
        """What the agent answers to a transcript; before `commit` it must have no effects."""
        transcript = turn.transcript.result()
        if self._is_backchannel(turn, transcript.text) or not transcript.text:
            return
        language = self._languages.guess(
            transcript.text, transcript.language, transcript.confidence
        )
        if turn is self._next:
            self._ears.understood(transcript.text, language)
        if transcript.confidence >= self.agent.min_confidence:
            async with aclosing(
                self._mind.think(transcript.text, language, committed=turn.committed)
            ) as thoughts:
                async for thought in thoughts:
                    yield thought
            return
        house = phrases(language)
        asked = self._clarifications.asked
        if asked < MAX_CLARIFICATIONS or not self.agent.transfers:
            yield Say(house.repeat[asked % len(house.repeat)], language)
            await turn.committed.wait()
            self._clarifications.unclear()
            return
        yield Say(house.not_understood, language)
        await turn.committed.wait()
        self.plan_transfer(self.agent.transfers[0].to, "the caller was not understood")

    def _speak(self, kind: str, texts: list[str], *, notice: bool = False) -> None:
        """Say fixed words now, in place of whatever was being said."""
        turn = self._new_turn(kind, lambda _: self._fixed(texts), notice=notice)
        self._journal.note("agent.prompt", keep=False, kind=kind)
        self._floor.take(turn)
        turn.start_with(Transcript("", self.language, 1.0))
        self._start(self._play(turn), name=f"speak {kind}")

    async def _fixed(self, texts: list[str]) -> AsyncGenerator[Thought, None]:
        for text in texts:
            yield Say(text, self.language)

    def _on_thought(self, turn: Turn, thought: Thought) -> None:
        if not turn.committed.is_set():
            turn.early.append(thought)  # a guess leaves no trace until it is right
            return
        match thought:
            case ToolStarted():
                call = ToolCall(thought.id, thought.name, thought.arguments)
                self.ledger.tool_started(call, at=self._now())
                self._journal.tool_started(thought)
            case ToolFinished():
                self.ledger.tool_finished(
                    thought.id, ok=thought.ok, result=thought.result, took_ms=thought.took_ms
                )
                self._journal.tool_finished(thought)

    def _nobody_speaks(self, step: Step) -> None:
        words, policy = phrases(self.language), self.agent.silence
        match step:
            case Step.REPROMPT:
                self._speak("reprompt", [policy.reprompt or words.reprompt])
            case Step.STILL_THERE:
                self._speak("still_there", [policy.still_there or words.still_there])
            case Step.GOODBYE:
                self._floor.plan = Outcome("silence", "hangup")
                self._speak("goodbye", [policy.goodbye or words.goodbye])

    # --- What goes wrong -----------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Work the call cannot go on without."""
        self._tasks.start(work, name=name).add_done_callback(self._ended)

    def _ended(self, work: asyncio.Task[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """A model is gone, or we are wrong: the dialplan takes over, instead of silence."""
        log.error("the call cannot go on", exc_info=error)
        code = error.code if isinstance(error, OffhookError) else type(error).__name__
        self._journal.note("call.error", code=code)
        kept = self._floor.plan if self._floor.guarded else None
        self._floor.clear()
        # A promise is kept, though it could not be announced.
        plan = self._floor.plan = kept or Outcome("failed", self._ticket.fallback, code)
        if self._failed:
            self._finish(plan)
            return
        self._failed = True
        # These words are in the phrase cache, so they need no model.
        self._speak("trouble", [phrases(self.language).trouble_leaving], notice=True)
