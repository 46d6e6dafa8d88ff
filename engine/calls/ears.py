"""The caller's side of one call: frames in, speech and pauses out.

Joins the echo guard, the voice detector and the endpointer, and keeps the last half minute of sound, so
that a turn can be cut out of it by its times.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from engine.config import TurnPolicy
from engine.media.echo import EchoGuard
from engine.media.frame import FRAME_S, Frame, Pcm
from engine.turns.endpoint import Endpointer, TurnEvent
from engine.turns.vad import SpeechDetector, Vad

KEEP_S = 40.0
PRE_ROLL_S = 0.30
"""Sound before the detected onset that belongs to the utterance: soft consonants start below threshold."""
POST_ROLL_S = 0.12
ECHO = 0.5
"""A frame at least so like our own sound is not the caller's."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one frame brought. `onset` is when the present run of speech began."""

    speech: bool
    onset: float | None
    echo_likeness: float
    events: list[TurnEvent]


class Ears:
    def __init__(self, rate: int, policy: TurnPolicy, vad: Vad) -> None:
        self.endpointer = Endpointer(policy)
        self._rate = rate
        self._vad = vad
        self._detector = SpeechDetector()
        self._echo = EchoGuard(rate)
        self._kept: deque[Frame] = deque(maxlen=round(KEEP_S / FRAME_S))

    def sent(self, frame: Frame) -> None:
        """A frame of ours left for the line."""
        self._echo.sent(frame.samples())

    def hear(self, frame: Frame) -> Heard:
        """Take one frame of the caller's."""
        self._kept.append(frame)
        samples = frame.samples()
        likeness = self._echo.heard(samples).echo_likeness
        voiced = self._detector.hear(frame.at, self._vad.probability(samples))
        speech = voiced and likeness < ECHO
        onset = self._detector.onset if speech else None
        return Heard(speech, onset, likeness, self.endpointer.hear(frame.at, speech, onset))

    def cut(self, speech_from: float, speech_to: float) -> Pcm:
        """The sound of one utterance with its pre-roll and as much post-roll as there is."""
        first, last = speech_from - PRE_ROLL_S, speech_to + POST_ROLL_S
        frames = [frame.samples() for frame in self._kept if first < frame.at <= last + FRAME_S / 2]
        return Pcm(np.concatenate(frames) if frames else np.zeros(0, np.int16), self._rate)
