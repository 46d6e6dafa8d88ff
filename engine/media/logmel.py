"""Whisper's log-mel spectrogram, which both the recogniser and the end-of-turn model read.

25 ms windows (400 samples) every 10 ms (160 samples) at 16 kHz, Slaney mel filters, log10 clipped 8
below the loudest bin, then (x + 4) / 4.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import soxr

from engine.media.frame import Pcm

RATE = 16_000
HOP = 160
_WINDOW = 400

Floats = npt.NDArray[np.float32]


def waveform(audio: Pcm) -> Floats:
    """Samples as floats in -1..1 at 16 kHz."""
    samples = audio.samples.astype(np.float32) / 32768.0
    if audio.rate == RATE:
        return samples
    resampled: Floats = soxr.resample(samples, audio.rate, RATE, quality="HQ")
    return resampled


def log_mel(wave: Floats, *, mels: int = 80) -> Floats:
    """[mels, len(wave) // 160] of a 16 kHz waveform of at least 201 samples."""
    padded = np.pad(wave, _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    frames = frames[: len(wave) // HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    logs = np.log10(np.maximum(_filters(mels) @ power.T, 1e-10))
    logs = np.maximum(logs, logs.max() - 8.0)
    return np.ascontiguousarray((logs + 4.0) / 4.0, dtype=np.float32)


@lru_cache(maxsize=1)
def _hann() -> Floats:
    window: Floats = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
    return window


@lru_cache(maxsize=4)
def _filters(mels: int) -> Floats:
    """[mels, 201]: Slaney's scale, linear below 1 kHz and logarithmic above, each filter of area 1."""
    bins = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    step = np.log(6.4) / 27.0
    top = 15.0 + np.log(RATE / 2 / 1000.0) / step
    scale = np.linspace(0.0, top, mels + 2)
    edges = np.where(scale < 15.0, scale * 200.0 / 3, 1000.0 * np.exp(step * (scale - 15.0)))
    widths = np.diff(edges)
    ramps = edges[:, None] - bins[None, :]
    rising = -ramps[:-2] / widths[:-1, None]
    falling = ramps[2:] / widths[1:, None]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    filters: Floats = (weights * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return filters
