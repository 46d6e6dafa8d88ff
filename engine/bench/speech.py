"""Recorded human telephone speech for the benches: Asterisk's prompts, trimmed to the voice."""

from __future__ import annotations

import numpy as np

from engine.lab.timeline import LOUD, RATE, rms
from engine.lab.voice import prompt
from engine.media.frame import Samples

# Sentences one could say to a receptionist; several have a natural pause in the middle.
QUESTIONS = (
    "agent-newlocation",
    "invalid",
    "cannot-complete-as-dialed",
    "conf-onlyperson",
    "confbridge-pin",
    "privacy-prompt",
    "vm-enter-num-to-call",
    "vm-whichbox",
    "vm-tempgreetactive",
    "speed-dial-empty",
    "vm-nobodyavail",
    "feature-not-avail-line",
    "vm-mismatch",
    "check-number-dial-again",
    "demo-nomatch",
    "agent-pass",
    "conf-invalid",
    "vm-tocallback",
)


def questions(language: str = "en") -> list[Samples]:
    return [trimmed(prompt(name, language).samples) for name in QUESTIONS]


def trimmed(samples: Samples) -> Samples:
    """Without the silence around the voice, so that the last sample is the last sound."""
    frame = RATE // 50
    whole = len(samples) // frame * frame
    loud = [i for i, piece in enumerate(samples[:whole].reshape(-1, frame)) if rms(piece) > LOUD]
    if not loud:
        return np.zeros(0, np.int16)
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]
