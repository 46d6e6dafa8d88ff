"""Is the caller speaking? A probability per frame, and a detector that turns it into runs of speech."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import webrtcvad

from engine.media.frame import FRAME_S, Samples, frame_bytes
from engine.media.resample import StreamResampler
from engine.turns.vad_batch import HALF_STEP, HALF_WINDOW, RATE, STEP, WINDOW, SileroBatch

_WEBRTC_SETTLES_FRAMES = 10


class Vad(Protocol):
    """One caller's voice detector; it remembers, so every call needs its own."""

    def probability(self, samples: Samples) -> float:
        """How likely this 20 ms frame, at the rate the detector was made for, is speech: 0..1."""
        ...


class SileroVad:
    """Silero VAD 6, which hears 32 ms of 16 kHz at a time.

    Between two of its windows the last answer stands, so an answer lags by 0 to 32 ms, and by one frame
    more where `batch` looks at many calls together.
    """

    def __init__(self, rate: int, batch: SileroBatch) -> None:
        self._batch = batch
        doubled = rate * 2 == RATE
        self._hearer = batch.join(doubled=doubled)
        self._resampler = None if doubled else StreamResampler(rate, RATE, low_delay=True)
        self._window, self._step = (HALF_WINDOW, HALF_STEP) if doubled else (WINDOW, STEP)
        self._sound = [np.zeros(self._window - self._step, dtype=np.int16)]
        self._missing = self._step

    def probability(self, samples: Samples) -> float:
        if self._resampler is not None:
            samples = self._resampler.push(samples)
        self._sound.append(samples)
        self._missing -= len(samples)
        if self._missing <= 0:
            self._hear(np.concatenate(self._sound))
        return self._hearer.probability

    def _hear(self, sound: Samples) -> None:
        while len(sound) >= self._window:
            self._batch.hear(self._hearer, sound[: self._window])
            sound = sound[self._step :]
        self._sound = [sound]
        self._missing = self._window - len(sound)


class WebRtcVad:
    """WebRTC's detector: 20 microseconds a frame, but it takes music and loud noise for speech.

    Rates 8, 16, 32 and 48 kHz. Raises ValueError for others.
    """

    def __init__(self, rate: int) -> None:
        if rate not in (8000, 16_000, 32_000, 48_000):
            raise ValueError(f"the WebRTC detector does not know {rate} Hz")
        self._rate = rate
        self._bytes = frame_bytes(rate)
        self._vad = webrtcvad.Vad(2)
        self._settling = _WEBRTC_SETTLES_FRAMES

    def probability(self, samples: Samples) -> float:
        if self._settling:
            # It has not met the line's noise yet and takes it for speech.
            self._settling -= 1
            self._vad.is_speech(samples.tobytes(), self._rate)
            return 0.0
        return 1.0 if self._vad.is_speech(samples.tobytes(), self._rate) else 0.0


def make_vad(name: Literal["silero", "webrtc"], rate: int, batch: SileroBatch | None = None) -> Vad:
    """A new detector for one call, at the rate of its leg. Without the process's `batch` it works alone.

    Raises WeightsError.
    """
    return SileroVad(rate, batch or SileroBatch()) if name == "silero" else WebRtcVad(rate)


class SpeechDetector:
    """Hysteresis: frames with a probability become a speech flag that does not flicker.

        probability   .1 .7 .2 .1 .6 .8 .9 .9 .4 .9 .3 .2
        speech         0  0  0  0  0  0  1  1  1  1  0  0
                                   ^     ^
                              onset      confirmed: `minimum_ms` of a run that began above `start`

    A run goes on while the probability stays at `stop` or above. `onset` is when it began, not when it
    was confirmed; whoever needs the sound should take 200 ms more in front, for a detector wakes up
    after the first soft consonant.
    """

    def __init__(self, *, start: float = 0.5, stop: float = 0.35, minimum_ms: int = 60) -> None:
        self._start = start
        self._stop = stop
        self._minimum_s = minimum_ms / 1000 - FRAME_S / 2
        self.onset: float | None = None
        """When the present run began, confirmed or not; None in silence."""
        self.speech = False

    def hear(self, at: float, probability: float) -> bool:
        """One frame that ended at `at`, in seconds. True while a confirmed run of speech goes on."""
        if probability < (self._stop if self.onset is not None else self._start):
            self.onset = None
            self.speech = False
        else:
            if self.onset is None:
                self.onset = at - FRAME_S
            self.speech = at - self.onset >= self._minimum_s
        return self.speech
