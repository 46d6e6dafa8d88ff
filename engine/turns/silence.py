"""Nobody speaks: ask again, ask whether anyone is there, say goodbye. Pure; times are handed in.

    agent speaks |####|          |####|            |####|           |####|
                      |<------->|     |<--------->|     |<-------->|
                      reprompt_s      still_there_s     goodbye_s
                                REPROMPT          STILL_THERE      GOODBYE

The timer counts from the end of the agent's speech. The caller's sound and the agent's thinking hold it;
only something the caller really did, told by `activity`, goes back to the first step.
"""

from __future__ import annotations

from enum import Enum, auto

from engine.config import SilencePolicy


class Step(Enum):
    REPROMPT = auto()
    STILL_THERE = auto()
    GOODBYE = auto()


class SilenceLadder:
    """One call's patience. Tick it every frame, or at least several times a second."""

    def __init__(self, policy: SilencePolicy) -> None:
        self._rungs = (
            (policy.reprompt_s, Step.REPROMPT),
            (policy.still_there_s, Step.STILL_THERE),
            (policy.goodbye_s, Step.GOODBYE),
        )
        self._rung = 0
        self._since: float | None = None

    def activity(self, at: float) -> None:
        """The caller said something or pressed a key."""
        self._rung = 0
        self._since = at

    def tick(
        self, at: float, *, agent_speaking: bool, caller_speaking: bool, thinking: bool
    ) -> Step | None:
        """The step that is due now, each once; after GOODBYE nothing more comes."""
        if agent_speaking or caller_speaking or thinking or self._since is None:
            self._since = at
            return None
        if self._rung >= len(self._rungs):
            return None
        wait_s, step = self._rungs[self._rung]
        if at - self._since < wait_s:
            return None
        self._rung += 1
        self._since = at
        return step
