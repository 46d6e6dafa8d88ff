"""The conversation of one call: who has the floor, what is thought, said, cut and resumed.

Everything here runs on the loop and reacts to one frame or key at a time; models work elsewhere.

    caller pauses ─▶ a turn begins as speculation     caller goes on ─▶ it is thrown away
    turn over ─▶ committed: ledger, player            caller over the agent ─▶ held, then cut or resumed
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from engine.aio import Background
from engine.calls.ears import Ears
from engine.calls.journal import Journal
from engine.calls.keypad import Keypad
from engine.calls.state import CallState, CallTicket, Outcome
from engine.calls.turn import Timings, Turn
from engine.dialog.guards import MAX_CLARIFICATIONS, Clarifications
from engine.dialog.history import Ledger
from engine.dialog.language import LanguageTracker
from engine.dialog.llm.base import ToolCall
from engine.dialog.mind import Mind, Say, Thought, ToolFinished, ToolStarted
from engine.dialog.phrases import phrases
from engine.errors import OffhookError
from engine.media.frame import Digit, Frame, Pcm
from engine.playback.player import Player
from engine.playback.utterance import Utterance
from engine.stt.base import Transcript
from engine.turns.bargein import Action, BargeIn, Interrupt, PauseAgent, ResumeAgent
from engine.turns.endpoint import (
    Paused,
    PauseHeld,
    SpeechResumed,
    SpeechStarted,
    TurnEvent,
    TurnOver,
)
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
        self._barge = BargeIn(self.agent.turns, self.agent.languages)
        self._ladder = SilenceLadder(self.agent.silence)
        self._keypad = Keypad(on_line=self._keys_entered)
        self._mind = make_mind(self, self.ledger)
        self._tasks = Background()
        self._next: Turn | None = None
        """The caller's turn in the making: speculation."""
        self._floor: Turn | None = None
        """The committed turn whose reply is being thought or spoken."""
        self._plan: Outcome | None = None
        self._clarifications = Clarifications()
        self._arguments: dict[str, dict[str, Any]] = {}
        self._stop_ms: int | None = None
        self._stop_at = 0.0
        """When the agent was last silenced, and how long after the caller's first sound."""

    # --- What the line brings ------------------------------------------------------------------

    def hear(self, frame: Frame) -> None:
        """One frame of the caller's."""
        heard = self._ears.hear(frame)
        self._follow_floor()
        self._apply(
            self._barge.hear(frame.at, heard.speech, heard.echo_likeness, onset=heard.onset)
        )
        for event in heard.events:
            self._on_turn_event(event)
        self._keypad.tick(frame.at)
        step = self._ladder.tick(
            frame.at,
            agent_speaking=self._sounding,
            caller_speaking=heard.speech or self._ears.endpointer.in_turn,
            thinking=self._floor is not None or self._keypad.busy or self._plan is not None,
        )
        if step is not None:
            self._nobody_speaks(step)

    def press(self, digit: Digit) -> None:
        """One DTMF key: it silences the agent, and goes to whoever collects digits, else to the model."""
        self._journal.note("caller.key", keep=False)
        self._ladder.activity(digit.at)
        self._apply(self._barge.digit(digit.at))
        self._keypad.press(digit)

    @property
    def state(self) -> CallState:
        if self._plan is not None:
            return CallState.ENDING
        if self._sounding:
            return CallState.SPEAKING
        return CallState.THINKING if self._floor is not None else CallState.LISTENING

    # --- What the agent does -------------------------------------------------------------------

    @property
    def language(self) -> str:
        """The language of the conversation now."""
        return self._languages.current

    def greet(self) -> None:
        notice = [self.agent.record_notice] if self._ticket.record else []
        self._speak("greeting", [*notice, self.agent.greeting])
        self._tasks.start(self._mind.prepare(), name="prepare")

    def plan_hang_up(self, reason: str) -> None:
        """After the present reply has been heard, end the call."""
        self._plan = Outcome("completed", "hangup", reason)

    def plan_transfer(self, to: str, reason: str) -> None:
        """After the present reply has been heard, the dialplan sends the caller to `to`."""
        step = to if to.startswith(("queue:", "dial:")) else f"dial:{to}"
        self._plan = Outcome("transferred", step, reason)

    async def collect_digits(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        """Wait for keys; returns what was pressed, without the terminator."""
        return await self._keypad.collect(max_digits, terminator, timeout_s)

    def say_goodbye(self, result: str) -> None:
        """End the call politely from outside: drain, or a call that has lasted too long."""
        self._plan = Outcome(result, "hangup")
        self._speak("goodbye", [phrases(self.language).farewell])

    async def close(self) -> None:
        """Cancel everything; what was heard is in the ledger."""
        floor, self._floor = self._floor, None
        for turn in (self._next, floor):
            if turn is not None:
                await turn.interrupt()
        if floor is not None:
            self._account(floor, barge_in=False)
        await self._tasks.close()
        self._keypad.close()

    # --- The floor -----------------------------------------------------------------------------

    @property
    def _sounding(self) -> bool:
        """The agent's voice is on the line, or held for a moment."""
        floor = self._floor
        return floor is not None and floor.utterance.first_frame_at is not None

    def _follow_floor(self) -> None:
        if self._sounding and not self._barge.active and not self._leaving:
            self._barge.agent_started()
        elif not self._sounding and self._barge.active:
            self._barge.agent_finished()

    @property
    def _leaving(self) -> bool:
        """A transfer was promised: the sentence that announces it is spoken to the end."""
        return self._plan is not None and self._plan.result != "completed"

    def _apply(self, action: Action | None) -> None:
        floor = self._floor
        if action is None or floor is None:
            return
        match action:
            case PauseAgent(at=at, onset=onset):
                floor.utterance.pause()
                self._stop_ms, self._stop_at = round((at - onset) * 1000), at
            case ResumeAgent():
                floor.utterance.resume()
                self._journal.note("agent.resumed")
            case Interrupt(at=at, onset=onset):
                if floor.utterance.state != "paused":
                    self._stop_ms, self._stop_at = round((at - onset) * 1000), at
                self._cut(floor)

    def _cut(self, floor: Turn) -> None:
        """The caller has the floor."""
        self._floor = None
        if self._plan is not None and self._plan.result == "completed":
            self._plan = None
        floor.utterance.interrupt()
        at_ms = self._journal.offset_ms(self._stop_at)
        self._journal.note("agent.interrupted", stop_ms=self._stop_ms, at_ms=at_ms)
        self._account(floor, barge_in=True)
        self._tasks.start(floor.interrupt(), name="interrupt")

    def _account(self, turn: Turn, *, barge_in: bool) -> None:
        """Write down what was heard of a turn's reply, once."""
        heard = turn.utterance.heard
        self._journal.agent_said(heard)
        if turn.timings.speech_to:
            self._journal.turn_finished(
                turn.timings,
                turn.utterance.first_frame_at,
                speculated=turn.speculated,
                barge_in=barge_in,
                barge_in_stop_ms=self._stop_ms if barge_in else None,
            )

    # --- The caller's turn ---------------------------------------------------------------------

    def _on_turn_event(self, event: TurnEvent) -> None:
        match event:
            case SpeechStarted():
                if self._floor is not None and not self._sounding:
                    self._floor.utterance.pause()  # the caller goes on while we think
                    self._journal.note("agent.held", keep=False)
            case Paused():
                self._drop_next()
                self._next = self._begin(event.speech_from, event.speech_to, event.at)
            case PauseHeld():
                self._tasks.start(self._judge(event), name="judge")
            case SpeechResumed():
                self._drop_next()
            case TurnOver():
                turn = self._next or self._begin(event.speech_from, event.speech_to, event.at)
                self._next = None
                turn.timings.over_at = event.at
                self._tasks.start(self._settle(turn), name="settle")

    def _begin(self, speech_from: float, speech_to: float, at: float) -> Turn:
        """Start to hear, think and synthesise; nothing is played."""
        turn = self._new_turn(Timings(speech_from, speech_to, at), self._reply)
        turn.speculated = True
        audio = self._ears.cut(speech_from, speech_to)
        turn.start(asyncio.ensure_future(self._transcribe(audio)))
        return turn

    def _drop_next(self) -> None:
        if self._next is not None:
            self._tasks.start(self._next.abandon(), name="abandon")
            self._next = None

    async def _transcribe(self, audio: Pcm) -> Transcript:
        languages = self.agent.languages
        return await self._parts.stt.transcribe(
            audio,
            language=languages[0] if len(languages) == 1 else None,
            languages=languages,
        )

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
        floor = self._floor
        if not self._barge.active or floor is None or floor is turn:
            return False
        self._apply(self._barge.words(self._now(), text, final=True))
        if floor is not self._floor:
            return False
        if turn is self._next:
            self._ears.endpointer.reset()
            self._drop_next()
        return True

    async def _settle(self, turn: Turn) -> None:
        """The caller has finished: answer, unless it was nothing."""
        try:
            transcript = await turn.transcript
        except asyncio.CancelledError:
            if turn.transcript.cancelled():
                return
            raise
        except OffhookError as error:
            await self._fail(error)
            return
        if not transcript.text or self._sounding:
            self._journal.note("caller.ignored", keep=False)
            if self._floor is not None:
                self._floor.utterance.resume()
            await turn.abandon()
            return
        await self._take_floor(turn, transcript)

    async def _take_floor(self, turn: Turn, transcript: Transcript) -> None:
        """Commit: the ledger learns what was said, and the reply may sound."""
        before, self._floor = self._floor, turn
        if before is not None:
            await before.interrupt()
        self._ladder.activity(self._now())
        self._stop_ms = None
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
        await self._play(turn)

    async def _play(self, turn: Turn) -> None:
        """Give a turn to the player and see it to its end."""
        self._floor = turn
        self.ledger.agent(lambda: turn.utterance.heard)
        for thought in turn.commit():
            self._on_thought(turn, thought)
        self._player.play(turn.utterance)
        try:
            await turn.wait()
        except OffhookError as error:
            await self._fail(error)
            return
        if self._floor is not turn:
            return  # interrupted, and accounted for there
        self._floor = None
        self._account(turn, barge_in=False)
        if self._plan is not None:
            self._finish(self._plan)
        else:
            self._tasks.start(self._mind.prepare(), name="prepare")

    async def _fail(self, error: OffhookError) -> None:
        """A model is gone: say so where a phrase is at hand, and let the dialplan take over."""
        log.error("the call cannot go on", exc_info=error)
        self._journal.note("call.error", code=error.code)
        floor, self._floor = self._floor, None
        if floor is not None:
            await floor.interrupt()
        self._plan = Outcome("failed", self._ticket.fallback, error.code)
        self._finish(self._plan)

    # --- Replies -------------------------------------------------------------------------------

    def _new_turn(
        self, timings: Timings | None, compose: Callable[[Turn], AsyncGenerator[Thought, None]]
    ) -> Turn:
        return Turn(
            utterance=Utterance(self._rate, kind="reply"),
            voice=lambda text, language: self._voices.speak(text, language=language),
            compose=compose,
            on_thought=self._on_thought,
            timings=timings,
        )

    async def _reply(self, turn: Turn) -> AsyncGenerator[Thought, None]:
        """What the agent answers to a transcript; before `commit` it must have no effects."""
        transcript = turn.transcript.result()
        if not transcript.text:
            return
        if self._is_backchannel(turn, transcript.text):
            return
        language = self._languages.guess(
            transcript.text, transcript.language, transcript.confidence
        )
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

    def _speak(self, kind: str, texts: list[str]) -> None:
        """Say fixed words now, in place of whatever was being said."""
        turn = self._new_turn(None, lambda _: self._fixed(texts))
        nothing: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        nothing.set_result(Transcript("", self.language, 1.0))
        self._journal.note("agent.prompt", keep=False, kind=kind)

        async def speak() -> None:
            before, self._floor = self._floor, turn
            if before is not None:
                await before.interrupt()
                self._account(before, barge_in=False)
            turn.start(nothing)
            await self._play(turn)

        self._tasks.start(speak(), name=f"speak {kind}")

    async def _fixed(self, texts: list[str]) -> AsyncGenerator[Thought, None]:
        for text in texts:
            yield Say(text, self.language)

    def _on_thought(self, turn: Turn, thought: Thought) -> None:
        if not turn.committed.is_set():
            turn.early.append(thought)  # a guess leaves no trace until it is right
            return
        match thought:
            case ToolStarted():
                self._arguments[thought.id] = thought.arguments
                call = ToolCall(thought.id, thought.name, thought.arguments)
                self.ledger.tool_started(call, at=self._now())
                self._journal.note("tool.started", name=thought.name)
            case ToolFinished():
                self.ledger.tool_finished(
                    thought.id, ok=thought.ok, result=thought.result, took_ms=thought.took_ms
                )
                self._journal.tool_finished(thought, self._arguments.pop(thought.id, {}))
            case _:
                pass

    def _nobody_speaks(self, step: Step) -> None:
        words, policy = phrases(self.language), self.agent.silence
        match step:
            case Step.REPROMPT:
                self._speak("reprompt", [policy.reprompt or words.reprompt])
            case Step.STILL_THERE:
                self._speak("still_there", [policy.still_there or words.still_there])
            case Step.GOODBYE:
                self._plan = Outcome("silence", "hangup")
                self._speak("goodbye", [policy.goodbye or words.goodbye])

    def _keys_entered(self, keys: str) -> None:
        """Keys that nobody collects are words like any other."""
        now = self._now()
        turn = self._new_turn(Timings(now, now, now, over_at=now), self._reply)
        entered: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        entered.set_result(Transcript(f"[keys] {keys}", self.language, 1.0))
        turn.start(entered)
        self._tasks.start(self._settle(turn), name="keys")
