"""G.711 µ-law (ITU-T G.711, tables 2a and 2b) by table: one lookup per sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.media.frame import Samples

RATE = 8000
SILENCE = 0xFF
"""The code word of amplitude +0."""

_BIAS = 132
_CLIP = 32635


def _decode_table() -> Samples:
    inverted = ~np.arange(256, dtype=np.uint8)
    exponent = (inverted >> 4 & 0x07).astype(np.int32)
    mantissa = (inverted & 0x0F).astype(np.int32)
    magnitude = (((mantissa << 3) + _BIAS) << exponent) - _BIAS
    return np.where(inverted & 0x80, -magnitude, magnitude).astype(np.int16)


def _encode_table() -> npt.NDArray[np.uint8]:
    # Indexed by the sample's two's complement bits, so that int16 arrays index without arithmetic.
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(sample), _CLIP) + _BIAS
    exponent = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32) - 8
    mantissa = magnitude >> (exponent + 3) & 0x0F
    sign = np.where(sample < 0, 0x80, 0)
    word: npt.NDArray[np.int32] = ~(sign | exponent << 4 | mantissa) & 0xFF
    return word.astype(np.uint8)


_DECODE = _decode_table()
_ENCODE = _encode_table()


def encode(samples: Samples) -> bytes:
    """int16 samples -> one µ-law byte each."""
    return _ENCODE[np.ascontiguousarray(samples, dtype=np.int16).view(np.uint16)].tobytes()


def decode(payload: bytes) -> Samples:
    """µ-law bytes -> int16 samples."""
    return _DECODE[np.frombuffer(payload, dtype=np.uint8)]
