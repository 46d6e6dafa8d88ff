"""The floor: what the agent thinks or says now, who may interrupt it, and what follows once it was heard.

    take ──▶ thought ──▶ sounds ──▶ heard to its end: done, and the plan is carried out
               │ hold      │ the caller speaks over it: paused, then cut or resumed
               ▼           ▼
             silent until let_go, or another turn takes the floor

What must be heard is guarded: the notice that the call is recorded, and whatever is said once the call is
promised to somebody else or is over. No voice and no key cuts that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.calls.ears import Heard
from engine.calls.journal import Journal
from engine.calls.state import Outcome
from engine.calls.turn import Turn
from engine.config import TurnPolicy
from engine.turns.bargein import Action, BargeIn, Interrupt, PauseAgent, ResumeAgent

_REVOCABLE = ("completed", "silence")
"""Goodbyes: a caller who speaks into one of them is still there, and keeps the line."""
_ANSWER_S = 0.7
_ANSWER_TO_QUESTION_S = 2.0
"""With less than this left of a reply, "yes" is no backchannel but the answer to it."""

_OVERLAP_S = 0.1
"""The last sound of a question may reach so far into our answer; it was not said over it."""


class Floor:
    """One call's. `on_kept` is told when the caller cuts a goodbye, so that the call goes on."""

    def __init__(
        self,
        policy: TurnPolicy,
        languages: Iterable[str],
        journal: Journal,
        on_kept: Callable[[], None],
    ) -> None:
        self.turn: Turn | None = None
        """The turn whose reply is being thought or spoken."""
        self.plan: Outcome | None = None
        """How the call ends once the present reply was heard."""
        self._barge = BargeIn(policy, languages)
        self._journal = journal
        self._on_kept = on_kept
        self._stop_ms: int | None = None
        self._stop_at = 0.0
        """When the agent was last silenced, and how long after the caller's first sound."""

    # --- How it stands -------------------------------------------------------------------------

    @property
    def sounding(self) -> bool:
        """The agent's voice is on the line, or held for a moment."""
        return self.turn is not None and self.turn.utterance.first_frame_at is not None

    @property
    def interruptible(self) -> bool:
        return self._barge.active

    @property
    def guarded(self) -> bool:
        if self.plan is not None and self.plan.result not in _REVOCABLE:
            return True
        return self.turn is not None and not self.turn.notice_heard

    def hides(self, turn: Turn) -> bool:
        """The caller said this turn, or the end of it, while the agent's voice was on the line."""
        if self.turn is None or self.turn is turn:
            return False
        first = self.turn.utterance.first_frame_at
        return first is not None and turn.timings.speech_to > first + _OVERLAP_S

    # --- The agent -----------------------------------------------------------------------------

    def take(self, turn: Turn) -> None:
        """`turn` comes in place of whatever was being thought or said."""
        before, self.turn = self.turn, turn
        if before is not None:
            before.stop()
            self._account(before, barge_in=False)
        self._stop_ms = None

    def done(self, turn: Turn) -> bool:
        """Nothing more will sound of `turn`. True when it was heard to its end."""
        if self.turn is not turn or turn.utterance.interrupted:
            return False  # cut, and accounted for there; or the line is gone
        self.turn = None
        self._account(turn, barge_in=False)
        return True

    def clear(self) -> None:
        """Silence, for good."""
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.stop()
            self._account(turn, barge_in=False)

    def revoke(self) -> None:
        """The caller goes on: no goodbye."""
        if self.plan is not None and self.plan.result in _REVOCABLE:
            self.plan = None
            self._on_kept()

    # --- The caller ----------------------------------------------------------------------------

    def hear(self, at: float, heard: Heard) -> None:
        """One frame of the caller's."""
        self._follow()
        self._apply(self._barge.hear(at, heard.speech, heard.echo_likeness, onset=heard.onset))

    def words(self, at: float, text: str) -> bool:
        """What the caller said over the agent. True when it goes on: that was a mere backchannel."""
        turn = self.turn
        self._apply(self._barge.words(at, text, final=True, answers=self._nearly_over))
        return self.turn is turn

    def key(self, at: float) -> None:
        """A key silences the agent."""
        self._apply(self._barge.digit(at))

    def hush(self) -> None:
        """The caller does what the agent is asking for: the question need not be finished."""
        self._barge.agent_finished()
        if self.turn is not None:
            self.turn.utterance.skip()

    def hold(self) -> None:
        """The caller goes on while we think: not a word until he has finished."""
        if self.turn is not None and not self.sounding and not self.guarded:
            self.turn.utterance.pause()
            self._journal.note("agent.held", keep=False)

    def let_go(self) -> None:
        """What the caller did was nothing."""
        if self.turn is not None and not self._barge.pending:
            self.turn.utterance.resume()

    # --- Inside --------------------------------------------------------------------------------

    def _follow(self) -> None:
        if self.guarded:
            self._barge.agent_finished()
            self.let_go()
        elif self.sounding and not self._barge.active:
            self._barge.agent_started()
        elif not self.sounding and self._barge.active:
            self._barge.agent_finished()

    @property
    def _nearly_over(self) -> bool:
        if self.turn is None or self.plan is not None:
            return False
        left_s = self.turn.utterance.left_s
        last = self.turn.utterance.heard[-1:]
        asks = any(item.status == "playing" and item.text.rstrip().endswith("?") for item in last)
        return left_s is not None and left_s < (_ANSWER_TO_QUESTION_S if asks else _ANSWER_S)

    def _apply(self, action: Action | None) -> None:
        turn = self.turn
        if action is None or turn is None:
            return
        match action:
            case PauseAgent(at=at, onset=onset):
                turn.utterance.pause()
                self._stopped(at, onset)
            case ResumeAgent():
                turn.utterance.resume()
                self._journal.note("agent.resumed")
            case Interrupt(at=at, onset=onset):
                if turn.utterance.state != "paused":
                    self._stopped(at, onset)
                self._cut(turn)

    def _stopped(self, at: float, onset: float) -> None:
        self._stop_ms, self._stop_at = round((at - onset) * 1000), at

    def _cut(self, turn: Turn) -> None:
        """The caller has the floor."""
        self.turn = None
        turn.stop()
        self.revoke()
        at_ms = self._journal.offset_ms(self._stop_at)
        self._journal.note("agent.interrupted", stop_ms=self._stop_ms, at_ms=at_ms)
        self._account(turn, barge_in=True)

    def _account(self, turn: Turn, *, barge_in: bool) -> None:
        """Write down what was heard of a turn's reply, once."""
        self._journal.agent_said(turn.utterance.heard)
        if turn.timings.speech_to:
            self._journal.turn_finished(
                turn.timings,
                turn.utterance.first_frame_at,
                speculated=turn.speculated,
                barge_in=barge_in,
                barge_in_stop_ms=self._stop_ms if barge_in else None,
            )
