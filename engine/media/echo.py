"""Is what we hear only ourselves coming back? We know every sample we sent, so we can tell.

                     delay (line, jitter buffer, the caller's loudspeaker)
    sent      ....|====================|..........
    heard     ..........|--------------------|....     an echo: the same shape, later and weaker
                              |%%%%%%%%%|               the caller: a shape we never sent

1. The cross-correlation of the last 240 ms heard with the last 0.7 s sent (both at 4 kHz, by FFT) peaks
   at the delay. A peak that is high enough, at the same place twice, locks it.
2. While locked, each frame is compared with what was sent one delay ago: the squared correlation is the
   part of its energy that is echo. Where that is nearly all, the ratio of energies gives the return loss.
3. A loudspeaker's distortion or a packet lost hides the shape but not the loudness: a frame no louder
   than the return loss predicts is an echo too.

Both streams are counted in frames and not in arrival times, so network jitter does not move the delay.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from engine.media.frame import FRAME_MS, Samples

_Floats = npt.NDArray[np.float32]

_RATE = 4000
_FRAME = _RATE * FRAME_MS // 1000
_SENT = 36 * _FRAME
"""0.72 s of what was sent."""
_HEARD = 12 * _FRAME
"""0.24 s of what was heard."""
_LAGS = _SENT - _HEARD - _FRAME
"""Delays up to 0.46 s are looked for."""
_SLIP_FRAMES = 5
_LOCK = 0.45
_HOPE = 50
"""After so many searches in vain, two seconds of both sides sounding, this line hardly has an echo."""
_QUIET = 30.0**2
"""Mean square of a frame at -61 dBFS: below it there is nothing to tell."""


class EchoGuard:
    """One call's echo guard. Give it every frame sent and every frame heard, in the order they happen.

    `rate` is the leg's, a multiple of 4 kHz. While nothing was sent for 0.7 s, and between two searches for
    an echo, a frame is only put aside.
    """

    def __init__(self, rate: int) -> None:
        if rate % _RATE:
            raise ValueError(f"{rate} Hz is not a multiple of {_RATE} Hz")
        step = rate // _RATE
        self._mean = np.full(step, 1 / step, dtype=np.float32)
        self._sent = np.zeros(_SENT, dtype=np.float32)
        self._heard = np.zeros(_HEARD, dtype=np.float32)
        # The newest frames, which are worked into the two tracks when somebody looks at these.
        self._sent_aside: deque[Samples] = deque(maxlen=_SENT // _FRAME)
        self._heard_aside: deque[Samples] = deque(maxlen=_HEARD // _FRAME)
        self._silence: Samples = np.zeros(_FRAME * step, dtype=np.int16)
        self._sent_quiet = _SENT // _FRAME
        """How many of the newest frames sent were silent."""
        self._ahead = 0
        """Frames sent minus frames heard, against where the count began."""
        self._started = False
        self._until_search = 0
        self._candidate: int | None = None
        self._delay: int | None = None
        self._in_vain = 0
        """Searches in a row that found nothing."""
        self._gain: float | None = None
        """Energy that comes back over energy sent."""

    @property
    def delay_ms(self) -> float | None:
        """How late our sound comes back; None while no echo has been found."""
        return None if self._delay is None else self._delay * 1000 / _RATE

    @property
    def return_loss_db(self) -> float | None:
        """How much weaker it comes back; None while no echo has been found."""
        return None if self._gain is None else -10 * math.log10(max(self._gain, 1e-9))

    def sent(self, samples: Samples | None) -> None:
        """Note one 20 ms frame sent; None is silence."""
        self._ahead += 1
        self._sent_quiet = self._sent_quiet + 1 if samples is None else 0
        self._sent_aside.append(self._silence if samples is None else samples)

    def heard(self, samples: Samples) -> float:
        """How much of one 20 ms frame heard is ourselves: 0, nothing of ours, to 1, nothing but ours."""
        self._ahead -= 1
        self._count()
        self._heard_aside.append(samples)
        if self._sent_quiet >= _SENT // _FRAME:
            return 0.0
        self._until_search -= 1
        due = self._until_search <= 0
        if self._delay is None and not due:
            return 0.0
        self._take(self._sent_aside, self._sent)
        self._take(self._heard_aside, self._heard)
        if due:
            settled = self._delay is not None or self._in_vain > _HOPE
            self._until_search = 6 if settled else 2
        now = self._heard[-_FRAME:]
        energy = float(np.dot(now, now)) / _FRAME
        if energy < _QUIET:
            return 0.0
        if due:
            self._search()
        return self._likeness(energy) if self._delay is not None else 0.0

    def _take(self, aside: deque[Samples], track: _Floats) -> None:
        if aside:
            new = self._decimate(np.concatenate(aside))
            aside.clear()
            track[: -len(new)] = track[len(new) :]
            track[-len(new) :] = new

    def _decimate(self, samples: Samples) -> _Floats:
        out: _Floats = samples.astype(np.float32).reshape(-1, len(self._mean)) @ self._mean
        return out

    def _count(self) -> None:
        # The count may wobble by a few frames, for the two clocks tick side by side. More than that means
        # that one of the streams stalled, and the delay has to be found again.
        if not self._started or abs(self._ahead) > _SLIP_FRAMES:
            self._started = True
            self._ahead = 0
            self._delay = None
            self._candidate = None

    def _search(self) -> None:
        self._in_vain += 1
        heard_energy = float(np.dot(self._heard, self._heard))
        if heard_energy < _QUIET * _HEARD / 4:
            return
        # A circle of _SENT samples is enough: what we look at lies before anything wraps around.
        spectrum = np.fft.rfft(self._sent) * np.conj(np.fft.rfft(self._heard, _SENT))
        product = np.fft.irfft(spectrum, _SENT)[: _SENT - _HEARD + 1]
        total = np.concatenate(([0.0], np.cumsum(self._sent.astype(np.float64) ** 2)))
        energies = total[_HEARD:] - total[:-_HEARD]
        # Index i compares with what was sent _SENT - _HEARD - i samples before the newest; the floor
        # keeps near-silence, where the ratio means nothing, from winning.
        score = np.abs(product) / np.sqrt(heard_energy * np.maximum(energies, _QUIET * _HEARD))
        best = int(np.argmax(score))
        lag = len(score) - 1 - best - self._ahead * _FRAME
        sure = float(score[best]) >= _LOCK and 0 <= lag <= _LAGS
        if sure and self._candidate is not None and abs(lag - self._candidate) <= 3:
            if self._delay is None or abs(lag - self._delay) > 3:
                self._gain = None
            self._delay = lag
        self._candidate = lag if sure else None
        if sure:
            self._in_vain = 0

    def _likeness(self, energy: float) -> float:
        """The part of the newest frame's energy that is echo, 0..1."""
        assert self._delay is not None
        window = 3 * _FRAME
        end = _SENT - self._delay - self._ahead * _FRAME
        heard = self._heard[-window:]
        # A few samples around the delay: a line's filter smears, and sample clocks drift.
        last, first = min(end + 4, _SENT), end - 4 - window
        if first < 0 or last - first < window:
            return 0.0
        sent = self._sent[first:last]
        products = np.correlate(sent, heard, "valid")
        squares = np.cumsum(np.concatenate(([0.0], sent * sent)))
        energies = squares[window:] - squares[:-window]
        heard_energy = float(np.dot(heard, heard))
        best = int(np.argmax(products * products / np.maximum(energies, _QUIET)))
        coherence = float(
            products[best] ** 2 / (max(energies[best], _QUIET) * max(heard_energy, _QUIET))
        )
        if coherence > 0.7 and energies[best] > 0:
            gain = heard_energy / float(energies[best])
            self._gain = gain if self._gain is None else 0.8 * self._gain + 0.2 * gain
        if self._gain is None:
            return min(coherence, 1.0)
        # Reverberation: what was sent shortly before rings on, so the loudest of the last frames counts.
        tail = self._sent[max(0, end - 4 * _FRAME) : end].reshape(-1, _FRAME)
        loudest = float((tail * tail).mean(axis=1).max()) if len(tail) else 0.0
        predicted = 2 * self._gain * loudest / energy
        # What the return loss explains counts in full only when nothing is left over.
        by_level = 1.0 if predicted >= 1 else predicted / 2
        return min(max(coherence, by_level), 1.0)
