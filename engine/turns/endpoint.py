"""When has the caller finished? Arithmetic on timestamps handed in; nothing here reads a clock.

    speech   ______####____________########_____________________________________
                   |   |   |       |       |   |                       |
                   a   b   c       d       e   f                       g

    a  SpeechStarted    the first frame of a run that reached 60 ms; shorter noise never starts a turn
    c  Paused(1)        b + speculate_ms of silence: transcribe and think ahead
    d  SpeechResumed(1) the caller goes on: throw that work away
    f  Paused(2)        e + speculate_ms; PauseHeld(2) follows at e + judge_ms: ask the turn model
    g  TurnOver         e + the silence that is needed, spanning a to e

The silence needed for a pause depends on what the turn model said about it (`judge`):

    max_silence_ms  |*
                    |  *                   no word from the model: halfway between the two, so that a
                    |    *                 slow or absent model costs patience but not the turn
    min_silence_ms  |      *************
                    +------+-----------
                    0   complete_probability   1

The two silences are the policy's where nothing is known of the caller; `patience.py` stretches and shortens
them. A judgement for an earlier pause is ignored. Within a pause a burst shorter than 60 ms does not reset the
silence; while one lasts the turn is not ended either.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import TurnPolicy
from engine.media.frame import FRAME_S
from engine.turns.patience import Patience

_SHORTEST_S = 0.060
_LONGEST_S = 28.0
"""A turn is cut here even in mid-speech: recognisers look at 30 s, and a line whose noise passes for
speech must not make the agent wait for ever."""
_SLACK_S = FRAME_S / 4
"""Timestamps are sums of frames; a threshold met but for rounding is met."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The caller began to speak, at `at`."""

    at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The caller has been silent for `speculate_ms`. Times in seconds."""

    at: float
    pause_id: int
    speech_from: float
    speech_to: float


@dataclass(frozen=True, slots=True)
class PauseHeld:
    """The pause has lasted `judge_ms`: long enough for the turn model to hear it."""

    at: float
    pause_id: int
    speech_from: float
    speech_to: float


@dataclass(frozen=True, slots=True)
class SpeechResumed:
    """The caller spoke on, from `at`, after the pause `pause_id`, which was not the end."""

    at: float
    pause_id: int


@dataclass(frozen=True, slots=True)
class TurnOver:
    """The caller has finished; `silence_ms` is how long we waited to be sure.

    `forced`: the turn model did not agree or did not answer in time, or the turn grew too long.
    """

    at: float
    speech_from: float
    speech_to: float
    silence_ms: int
    forced: bool


TurnEvent = SpeechStarted | Paused | PauseHeld | SpeechResumed | TurnOver


class Endpointer:
    """One caller's turns. Feed it every frame, in order."""

    def __init__(self, policy: TurnPolicy) -> None:
        self.patience = Patience(policy)
        self._policy = policy
        self._pauses = 0
        self._run_from: float | None = None
        self._speech_from: float | None = None
        self._speech_to = 0.0
        self._pause_id: int | None = None
        self._held = False
        self._probability: float | None = None
        self._cut_at = 0.0
        self._ended_at: float | None = None
        """When the speech of the turn before ended; None where that was not by a silence."""

    @property
    def in_turn(self) -> bool:
        """The caller has begun a turn that is not over."""
        return self._speech_from is not None

    def hear(self, at: float, speech: bool, onset: float | None = None) -> list[TurnEvent]:
        """One frame that ended at `at`, in seconds. `onset` is when the run it belongs to began, where
        the detector confirmed that later.
        """
        if not speech:
            self._run_from = None
            return self._silence(at)
        if self._run_from is None:
            began = at - FRAME_S if onset is None else onset
            # A run that a forced end has cut goes on as the next turn, from there.
            self._run_from = max(began, self._cut_at)
        if at - self._run_from < _SHORTEST_S - _SLACK_S:
            return []
        return self._speech(at, self._run_from)

    def judge(self, at: float, probability: float, *, pause_id: int) -> list[TurnEvent]:
        """The turn model's word on a pause: how likely the caller has finished, 0..1."""
        if pause_id != self._pause_id:
            return []
        self._probability = probability
        return self._silence(at) if self._run_from is None else []

    def reset(self) -> None:
        """Forget the present turn: what was said in it was dealt with elsewhere."""
        self._clear()

    @property
    def silence_needed_ms(self) -> float:
        """How long a silence ends the turn, as things stand."""
        spoken_s = 0.0 if self._speech_from is None else self._speech_to - self._speech_from
        low, high = self.patience.bounds_ms(spoken_s)
        if self._probability is None:
            return (low + high) / 2
        complete = self._policy.complete_probability
        if self._probability >= complete:
            return low
        return high - (high - low) * self._probability / complete

    def _clear(self) -> None:
        self._run_from = None
        self._speech_from = None
        self._pause_id = None
        self._probability = None

    def _speech(self, at: float, run_from: float) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        if self._speech_from is None:
            self._speech_from = run_from
            self.patience.turn_began(None if self._ended_at is None else run_from - self._ended_at)
            self._ended_at = None
            events.append(SpeechStarted(run_from))
        if self._pause_id is not None:
            events.append(SpeechResumed(run_from, self._pause_id))
            self.patience.resumed(run_from - self._speech_to)
            self._pause_id = None
        self._probability = None
        self._speech_to = at
        if at - self._speech_from >= _LONGEST_S:
            events.append(TurnOver(at, self._speech_from, at, 0, forced=True))
            self._clear()
            self._cut_at = at
        return events

    def _silence(self, at: float) -> list[TurnEvent]:
        if self._speech_from is None:
            return []
        events: list[TurnEvent] = []
        silence_s = at - self._speech_to + _SLACK_S
        if self._pause_id is None and silence_s >= self._policy.speculate_ms / 1000:
            self._pauses += 1
            self._pause_id, self._held = self._pauses, False
            events.append(Paused(at, self._pause_id, self._speech_from, self._speech_to))
        if (
            self._pause_id is not None
            and not self._held
            and silence_s >= self._policy.judge_ms / 1000
        ):
            self._held = True
            events.append(PauseHeld(at, self._pause_id, self._speech_from, self._speech_to))
        if silence_s >= self.silence_needed_ms / 1000:
            said = self._probability
            forced = said is None or said < self._policy.complete_probability
            silence_ms = round((at - self._speech_to) * 1000)
            events.append(TurnOver(at, self._speech_from, self._speech_to, silence_ms, forced))
            self._ended_at = self._speech_to
            self.patience.turn_over()
            self._clear()
        return events
