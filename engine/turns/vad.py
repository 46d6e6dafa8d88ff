"""Is the caller speaking? A probability per frame, and a detector that turns it into runs of speech."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime
import webrtcvad

from engine.errors import WeightsError
from engine.media.frame import FRAME_S, Samples, frame_bytes
from engine.media.resample import StreamResampler

_Floats = npt.NDArray[np.float32]

_SILERO_RATE = 16_000
_SILERO_SAMPLES = 512
_SILERO_CONTEXT = 64
_SILERO_FILE = "assets/silero_vad_v6.onnx"
_WEBRTC_SETTLES_FRAMES = 10


class Vad(Protocol):
    """One caller's voice detector; it remembers, so every call needs its own."""

    def probability(self, samples: Samples) -> float:
        """How likely this 20 ms frame, at the rate the detector was made for, is speech: 0..1."""
        ...


class SileroVad:
    """Silero VAD 6, which hears 32 ms (512 samples) of 16 kHz at a time.

    Between two of its windows the last answer stands, so an answer lags by 0 to 32 ms. A window takes
    60 microseconds on ONNX Runtime. The weights are the ones that faster-whisper brings along.
    Raises WeightsError where it does not.
    """

    def __init__(self, rate: int) -> None:
        self._model = _OnnxSilero(_onnx_session())
        self._resampler = StreamResampler(rate, _SILERO_RATE, low_delay=True)
        self._waiting: Samples = np.zeros(0, dtype=np.int16)
        self._last = 0.0

    def probability(self, samples: Samples) -> float:
        self._waiting = np.concatenate((self._waiting, self._resampler.push(samples)))
        while len(self._waiting) >= _SILERO_SAMPLES:
            window = self._waiting[:_SILERO_SAMPLES].astype(np.float32) / np.float32(32768)
            self._waiting = self._waiting[_SILERO_SAMPLES:]
            self._last = self._model.window(window)
        return self._last


class _OnnxSilero:
    """The network with its memory kept outside, so that all calls share one session."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = np.zeros((1, _SILERO_CONTEXT + _SILERO_SAMPLES), dtype=np.float32)
        self._h = np.zeros((1, 1, 128), dtype=np.float32)
        self._c = np.zeros((1, 1, 128), dtype=np.float32)

    def window(self, window: _Floats) -> float:
        # Each window is preceded by the end of the one before it.
        self._input[:, :_SILERO_CONTEXT] = self._input[:, -_SILERO_CONTEXT:]
        self._input[:, _SILERO_CONTEXT:] = window
        inputs = {"input": self._input, "h": self._h, "c": self._c}
        probability, self._h, self._c = self._session.run(None, inputs)
        return float(probability[0])


@functools.cache
def _onnx_session() -> onnxruntime.InferenceSession:
    package = importlib.util.find_spec("faster_whisper")
    weights = Path(package.origin if package and package.origin else ".").parent / _SILERO_FILE
    if not weights.is_file():
        raise WeightsError(
            "faster-whisper brings no Silero weights",
            how_to_fix=["install the pinned faster-whisper, or set models.vad to webrtc"],
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


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


def make_vad(name: Literal["silero", "webrtc"], rate: int) -> Vad:
    """A new detector for one call, at the rate of its leg."""
    return SileroVad(rate) if name == "silero" else WebRtcVad(rate)


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
