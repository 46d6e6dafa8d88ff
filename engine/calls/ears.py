"""The caller's side of one call: frames in, speech and pauses out.

Joins the echo guard, the voice detector and the endpointer, and keeps the last half minute of sound, so
that a turn can be cut out of it by its times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.config import TurnPolicy
from engine.media.echo import EchoGuard
from engine.media.frame import FRAME_S, Frame, Pcm, frame_bytes
from engine.playback.utterance import HeardSentence
from engine.turns.endpoint import Endpointer, TurnEvent
from engine.turns.expectation import Expectation, asked_for, dictates
from engine.turns.vad import SpeechDetector, Vad

KEEP_S = 40.0
_KEPT = round(KEEP_S / FRAME_S)
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
        self._silence = bytes(frame_bytes(rate))
        # A ring: at 300 calls half a million kept frames would each be looked at by every garbage collection.
        self._kept = np.zeros((_KEPT, frame_bytes(rate) // 2), dtype=np.int16)
        self._ended = np.full(_KEPT, -np.inf)
        """When each kept frame ended."""
        self._next = 0

    def sent(self, frame: Frame) -> None:
        """A frame of ours left for the line."""
        self._echo.sent(None if frame.pcm == self._silence else frame.samples())

    def hear(self, frame: Frame) -> Heard:
        """Take one frame of the caller's."""
        samples = frame.samples()
        self._kept[self._next] = samples
        self._ended[self._next] = frame.at
        self._next = (self._next + 1) % _KEPT
        likeness = self._echo.heard(samples)
        voiced = self._detector.hear(frame.at, self._vad.probability(samples))
        speech = voiced and likeness < ECHO
        onset = self._detector.onset if speech else None
        return Heard(speech, onset, likeness, self.endpointer.hear(frame.at, speech, onset))

    def asked(self, sentences: Sequence[HeardSentence]) -> None:
        """What the caller heard of the agent's reply: its last words tell what to expect."""
        for sentence in reversed(sentences):
            if sentence.started_at is not None:
                self.expect(asked_for(sentence.text, sentence.language))
                return

    def expect(self, answer: Expectation) -> None:
        self.endpointer.patience.expect(answer)

    def understood(self, words: str, language: str) -> None:
        """What the caller has said of the present turn, as far as it is known."""
        self.endpointer.patience.dictating(dictates(words, language))

    def cut(self, speech_from: float, speech_to: float) -> Pcm:
        """The sound of one utterance with its pre-roll and as much post-roll as there is."""
        first, last = speech_from - PRE_ROLL_S, speech_to + POST_ROLL_S
        wanted = (first < self._ended) & (self._ended <= last + FRAME_S / 2)
        # Oldest first.
        places = (np.flatnonzero(np.roll(wanted, -self._next)) + self._next) % _KEPT
        return Pcm(self._kept[places].reshape(-1), self._rate)
