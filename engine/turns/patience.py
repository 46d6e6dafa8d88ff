"""How long this caller is waited for. Arithmetic on pauses that are handed in, in seconds.

The policy's two silences are where it starts:

    slow speaker   `usual_s` follows the pauses the caller made and spoke on after, halfway at each, and at
                   once where we took one for the end. A turn without any takes it back by a fifth. A
                   quarter more than that is the shortest wait
    dictation      asked for a number or an address, or in the middle of one: twice the shortest wait
    yes or no      asked so, and less than 0.8 s of speech yet: seven tenths of the shortest wait, and
                   at most twice as long

                       shortest                          longest
    anything           min_silence_ms                    max_silence_ms
    slow or dictation  up to 2 x min_silence_ms          longer by as much as the shortest is
    yes or no          0.7 x min_silence_ms              2 x min_silence_ms
"""

from __future__ import annotations

from engine.config import TurnPolicy
from engine.turns.expectation import Expectation

_STEP = 0.5
_FADE = 0.8
_MARGIN = 1.25
_STRETCH = 2.0
_SHORT = 0.7
_LONE_WORD_S = 0.8
_CUT_S = 1.5
"""Who speaks so soon after the end of a turn had not finished: our answer has hardly begun by then."""


class Patience:
    """One caller's. With `adaptive = false` in the policy it never changes."""

    def __init__(self, policy: TurnPolicy) -> None:
        self._low, self._high = float(policy.min_silence_ms), float(policy.max_silence_ms)
        self._adaptive = policy.adaptive
        self._judge_s = policy.judge_ms / 1000
        self.usual_s = 0.0
        """The pause this caller makes and then speaks on; 0 while they make none."""
        self._paused = False
        self._expected = Expectation.ANYTHING
        self._dictating = False

    def resumed(self, pause_s: float) -> None:
        """The caller spoke on after a pause. A mere gap between words is none."""
        if pause_s >= self._judge_s:
            self._paused = True
            self.usual_s += _STEP * (pause_s - self.usual_s)

    def turn_began(self, gap_s: float | None) -> None:
        """The caller speaks, `gap_s` after the speech of their last turn. None: there was none."""
        if gap_s is not None and gap_s <= _CUT_S:
            self.usual_s = max(self.usual_s, gap_s)
            self._paused = True
            return
        if gap_s is not None and not self._paused:
            self.usual_s *= _FADE
        self._paused = False

    def turn_over(self) -> None:
        """The caller has finished, as far as we know."""
        self._dictating = False

    def expect(self, answer: Expectation) -> None:
        """What the agent has asked for; it holds until the agent says something else."""
        self._expected = answer

    def dictating(self, so_far: bool) -> None:
        """Whether the present turn, as far as it was understood, stops in the middle of a number."""
        self._dictating = so_far

    def bounds_ms(self, spoken_s: float) -> tuple[float, float]:
        """The shortest and the longest silence that end the turn, after so much speech."""
        low, high = self._low, self._high
        if not self._adaptive:
            return low, high
        if self._dictating or self._expected is Expectation.DICTATION:
            stretched = low * _STRETCH
        elif self._expected is Expectation.YES_OR_NO and spoken_s < _LONE_WORD_S:
            return low * _SHORT, min(high, low * 2)
        else:
            stretched = min(max(low, self.usual_s * 1000 * _MARGIN), low * _STRETCH)
        return stretched, high + stretched - low
