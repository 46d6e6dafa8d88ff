"""The caller speaks over the agent: stop at once, decide a moment later. Pure; times are handed in.

    state      what is heard                                            then       action
    ---------  -------------------------------------------------------  ---------  -----------
    IDLE       anything: the agent is not speaking                      IDLE       -
    LISTENING  speech that is not our echo, for barge_in_ms             PAUSED     PauseAgent
               words, after some speech over the agent: a backchannel   LISTENING  -
                                                        other           IDLE       Interrupt
               final words, a backchannel that may be an answer         IDLE       Interrupt
               a digit                                                  IDLE       Interrupt
    PAUSED     speech of 700 ms in all                                  IDLE       Interrupt
               words: other than a backchannel                          IDLE       Interrupt
               final words: a backchannel that may be an answer         IDLE       Interrupt
               final words: only a backchannel, or nothing (a cough)    LISTENING  ResumeAgent
               resume_ms of silence and no words                        LISTENING  ResumeAgent
               a digit                                                  IDLE       Interrupt

`agent_started` leads from IDLE to LISTENING, `agent_finished` from anywhere to IDLE. So "yes" is a mere
backchannel only while the agent still speaks; said after the question it is an ordinary turn, and over the
end of it, which whoever knows the reply tells with `answers`, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from engine.config import TurnPolicy
from engine.media.frame import FRAME_S

BACKCHANNELS: dict[str, tuple[str, ...]] = {
    "en": (
        *("uh-huh", "uhhuh", "mhm", "mm", "mmm", "mm-hmm", "mmhmm", "hm", "hmm", "ah", "aha", "oh"),
        *("um", "uh", "er", "yeah", "yea", "yep", "yup", "yes", "ok", "okay", "right", "sure"),
        *("good", "great", "cool", "fine", "nice", "really", "wow", "true", "exactly"),
        *("i see", "got it", "all right", "alright", "of course", "go on", "makes sense"),
    ),
    "ru": (
        *("угу", "ага", "да", "мм", "ммм", "м", "хм", "гм", "а", "о", "э", "ну", "так", "ясно"),
        *("понятно", "понял", "поняла", "хорошо", "ладно", "ок", "окей", "точно", "верно"),
        *("конечно", "правда", "ну да", "вот как", "надо же", "всё ясно", "все ясно", "я понял"),
    ),
    "uk": (
        *("угу", "ага", "так", "да", "мм", "ммм", "м", "хм", "гм", "а", "о", "е", "ну", "ясно"),
        *("зрозуміло", "зрозумів", "зрозуміла", "добре", "гаразд", "ок", "окей", "точно", "авжеж"),
        *("звичайно", "звісно", "правда", "ну так", "все ясно", "я зрозумів", "я зрозуміла"),
    ),
}

_ECHO = 0.5
"""A frame at least so like our own sound is not the caller's."""
_COMMIT_S = 0.700
_GAP_S = 0.100
"""A dip this short is still the same run of speech."""
_SLACK_S = FRAME_S / 4
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class PauseAgent:
    """Fall silent, and keep the place. `onset` is when the caller began, in seconds."""

    at: float
    onset: float


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The caller has the floor: drop the rest of the reply."""

    at: float
    onset: float


@dataclass(frozen=True, slots=True)
class ResumeAgent:
    """It was nothing: go on from where the agent stopped."""

    at: float


Action = PauseAgent | Interrupt | ResumeAgent


class _State(Enum):
    IDLE = auto()
    LISTENING = auto()
    PAUSED = auto()


class BargeIn:
    """One call's barge-in policy. `languages` are the agent's; their backchannels are known.

    With `barge_in = false` in the policy nothing ever interrupts.
    """

    def __init__(self, policy: TurnPolicy, languages: Iterable[str]) -> None:
        self._policy = policy
        phrases = [*policy.backchannels]
        for language in languages:
            phrases += BACKCHANNELS.get(language, ())
        self._phrases = {tuple(_words(phrase)) for phrase in phrases}
        self._longest = max((len(phrase) for phrase in self._phrases), default=0)
        self._state = _State.IDLE
        self._run_from: float | None = None
        self._last_speech: float | None = None
        self._last_echo = 0.0
        self._spoken_s = 0.0

    @property
    def active(self) -> bool:
        """Somebody may be interrupted now."""
        return self._state is not _State.IDLE

    @property
    def pending(self) -> bool:
        """The agent is held and nothing is decided."""
        return self._state is _State.PAUSED

    def agent_started(self) -> None:
        """The agent begins a reply that may be interrupted."""
        if self._policy.barge_in:
            self._state = _State.LISTENING
            self._forget()

    def agent_finished(self) -> None:
        """The reply was played out or cut, by whomever."""
        self._state = _State.IDLE
        self._forget()

    def hear(
        self, at: float, speech: bool, echo_likeness: float = 0.0, *, onset: float | None = None
    ) -> Action | None:
        """One frame that ended at `at`, in seconds. `onset` is when its run of speech began, where the
        detector confirmed that later.
        """
        if self._state is _State.IDLE:
            return None
        if speech and echo_likeness < _ECHO:
            return self._spoke(at, onset)
        if speech:
            self._last_echo = at
        if self._last_speech is None:
            return None
        silence_s = at - self._last_speech + _SLACK_S
        if self._state is _State.PAUSED:
            return self._resume(at) if silence_s >= self._policy.resume_ms / 1000 else None
        if silence_s >= _GAP_S:
            self._run_from = None
            self._spoken_s = 0.0
        return None

    def words(self, at: float, text: str, final: bool, *, answers: bool = False) -> Action | None:
        """What was understood so far of the caller's speech over the agent.

        `answers`: so little of the reply is left that even a backchannel is an answer to it.
        """
        if self._state is _State.IDLE or self._last_speech is None:
            return None
        if not self._is_backchannel(text) or (final and answers and _words(text)):
            return self._interrupt(at)
        # While the caller still speaks, "yeah" may become "yeah, but": more words will follow.
        still_speaking = at - self._last_speech < _GAP_S
        if not final or self._state is not _State.PAUSED or still_speaking:
            return None
        return self._resume(at)

    def digit(self, at: float) -> Action | None:
        """A key was pressed."""
        return None if self._state is _State.IDLE else self._interrupt(at)

    def _spoke(self, at: float, onset: float | None) -> Action | None:
        # A run that began as our own echo is the caller's only from where it stopped being echo.
        began = at - FRAME_S if onset is None else max(onset, self._last_echo)
        if self._run_from is None:
            self._run_from = began
        heard_before = self._last_speech is not None and self._last_speech >= began
        self._spoken_s += FRAME_S if heard_before else at - began
        self._last_speech = at
        if self._state is _State.PAUSED:
            return self._interrupt(at) if self._spoken_s >= _COMMIT_S - _SLACK_S else None
        span_s = at - self._run_from
        if span_s < self._policy.barge_in_ms / 1000 - _SLACK_S or self._spoken_s < span_s / 2:
            return None
        self._state = _State.PAUSED
        return PauseAgent(at, self._run_from)

    def _interrupt(self, at: float) -> Interrupt:
        onset = at if self._run_from is None else self._run_from
        self.agent_finished()
        return Interrupt(at, onset)

    def _resume(self, at: float) -> ResumeAgent:
        # The last speech is remembered: its words may come late, and then they still count.
        self._state = _State.LISTENING
        self._run_from = None
        self._spoken_s = 0.0
        return ResumeAgent(at)

    def _forget(self) -> None:
        self._run_from = None
        self._last_speech = None
        self._last_echo = 0.0
        self._spoken_s = 0.0

    def _is_backchannel(self, text: str) -> bool:
        """The whole text is made of backchannel phrases; so is an empty one."""
        words = _words(text)
        while words:
            for length in range(min(self._longest, len(words)), 0, -1):
                if tuple(words[:length]) in self._phrases:
                    words = words[length:]
                    break
            else:
                return False
        return True


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
