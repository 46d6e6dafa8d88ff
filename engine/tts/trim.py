"""The caller waits for the first audible sound, and hears a pause at every seam: both are cut short."""

from __future__ import annotations

import numpy as np

from engine.media.frame import Samples

_KEEP_S = 0.04
_AUDIBLE = 130
"""About −48 dB below full scale: the breath before a word passes, a model's noise floor does not."""


class LeadingSilence:
    """Leaves at most 40 ms of silence before the first sound of a stream of chunks."""

    def __init__(self, rate: int) -> None:
        self._keep = round(_KEEP_S * rate)
        self._silence: Samples = np.zeros(0, dtype=np.int16)
        self._heard = False

    def push(self, samples: Samples) -> Samples:
        """What of the stream is to be played now; empty while all is silence."""
        if self._heard:
            return samples
        joined = np.concatenate([self._silence, samples])
        # int32, since the absolute value of −32768 does not fit the sample's own type.
        audible = np.flatnonzero(np.abs(joined.astype(np.int32)) > _AUDIBLE)
        if len(audible) == 0:
            self._silence = joined[-self._keep :]
            return joined[:0]
        self._heard = True
        return joined[max(0, int(audible[0]) - self._keep) :]


def cut_tail(samples: Samples, rate: int, keep_s: float) -> Samples:
    """The samples with at most `keep_s` seconds of silence at their end."""
    audible = np.flatnonzero(np.abs(samples.astype(np.int32)) > _AUDIBLE)
    if len(audible) == 0:
        return samples[: round(keep_s * rate)]
    return samples[: int(audible[-1]) + 1 + round(keep_s * rate)]
