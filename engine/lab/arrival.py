"""Did the sound that was sent arrive? For voices that no recogniser here can read back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.media.frame import Samples

PIECE_S = 1.0
LATE_S = 3.0
ALIKE = 0.7
"""The correlation that a piece keeps through A-law; two different pieces of speech stay under 0.3."""
_LOUD = 150.0


def arrived(sent: Samples, heard: Samples, rate: int) -> float:
    """The share of the voice in `sent` that is in `heard`, at the same time or up to LATE_S later.

    Both are mono at `rate` and begin together. 0 where nothing was sent.
    """
    size = round(PIECE_S * rate)
    there = voiced = 0
    for start in range(0, len(sent) - size + 1, size):
        piece = sent[start : start + size].astype(np.float64)
        if np.sqrt(np.mean(piece**2)) < _LOUD:
            continue
        voiced += 1
        first = max(0, start - rate)
        window = heard[first : start + size + round(LATE_S * rate)].astype(np.float64)
        there += _likeness(piece, window) >= ALIKE
    return there / voiced if voiced else 0.0


def _likeness(piece: npt.NDArray[np.float64], window: npt.NDArray[np.float64]) -> float:
    """The greatest correlation coefficient of the piece with any place of the window."""
    if len(window) < len(piece):
        return 0.0
    size = len(piece) + len(window)
    product = np.fft.irfft(np.fft.rfft(window, size) * np.conj(np.fft.rfft(piece, size)), size)
    product = product[: len(window) - len(piece) + 1]
    power = np.concatenate(([0.0], np.cumsum(window**2)))
    energy = power[len(piece) :] - power[: -len(piece)]
    scale = np.sqrt(np.maximum(energy, 1.0) * max(1.0, float(np.sum(piece**2))))
    return float(np.max(product / scale))
