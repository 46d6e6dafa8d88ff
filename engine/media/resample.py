"""Sample-rate conversion, streaming and whole, on libsoxr.

A sentence arrives in chunks of any size. Resampling each alone clicks at every seam and loses the
filter's tail, which is the last syllable; one stream per sentence does neither.
"""

from __future__ import annotations

import numpy as np
import soxr

from engine.media.frame import Pcm, Samples

_NOTHING: Samples = np.zeros(0, dtype=np.int16)


class StreamResampler:
    """One continuous stretch of mono sound, from `in_rate` to `out_rate` samples per second.

    High quality gives its first output only after about 100 ms of input: right for sound that is made
    faster than it is played. `low_delay` interpolates with half a millisecond of delay and weaker
    filtering: right for live sound that only a detector will hear.
    """

    def __init__(self, in_rate: int, out_rate: int, *, low_delay: bool = False) -> None:
        self.in_rate = in_rate
        self.out_rate = out_rate
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(
                in_rate, out_rate, 1, dtype="int16", quality="QQ" if low_delay else "HQ"
            )
        )
        self._finished = False

    def push(self, samples: Samples) -> Samples:
        """Give a one-dimensional int16 array of any length; get what can be told so far, maybe nothing.

        Raises ValueError after `finish`.
        """
        if self._finished:
            raise ValueError("the stream is finished")
        if self._stream is None or not len(samples):
            return samples
        out: Samples = self._stream.resample_chunk(samples)
        return out

    def finish(self) -> Samples:
        """The tail that the filter still holds. Safe to call twice; the second gives nothing."""
        if self._finished or self._stream is None:
            self._finished = True
            return _NOTHING
        self._finished = True
        out: Samples = self._stream.resample_chunk(_NOTHING, last=True)
        return out


def resample(pcm: Pcm, rate: int) -> Pcm:
    """The whole of `pcm` at `rate`; the same object when it already is."""
    if pcm.rate == rate:
        return pcm
    samples: Samples = soxr.resample(pcm.samples, pcm.rate, rate)
    return Pcm(samples, rate)
