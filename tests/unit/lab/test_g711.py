import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lab import g711

# ITU-T G.711 table 2a/2b, scaled from 14 to 16 bits: decision value to code word to quantised value.
KNOWN = [
    (0, 0xFF, 0),
    (-1, 0x7F, 0),
    (8, 0xFE, 8),
    (-8, 0x7E, -8),
    (132, 0xEF, 132),
    (-132, 0x6F, -132),
    (1000, 0xCE, 988),
    (-1000, 0x4E, -988),
    (8316, 0x9F, 8316),
    (32767, 0x80, 32124),
    (-32768, 0x00, -32124),
]


@pytest.mark.parametrize(("sample", "word", "value"), KNOWN)
def test_known_values(sample: int, word: int, value: int) -> None:
    encoded = g711.encode(np.array([sample], np.int16))
    assert encoded == bytes([word])
    assert g711.decode(encoded)[0] == value


def test_every_code_word_survives_a_round_trip() -> None:
    words = bytes(range(256))
    again = g711.encode(g711.decode(words))
    # Minus zero comes back as plus zero: int16 has one zero.
    assert again == words.replace(b"\x7f", b"\xff")


def test_decoding_is_antisymmetric() -> None:
    negative = g711.decode(bytes(range(0x80)))
    positive = g711.decode(bytes(range(0x80, 0x100)))
    assert (negative == -positive).all()


@given(st.integers(-32124, 32124))
def test_error_is_at_most_half_a_step(sample: int) -> None:
    value = int(g711.decode(g711.encode(np.array([sample], np.int16)))[0])
    # Steps are 8 wide at zero and double with each of the eight segments.
    step = 8 << max(0, (abs(sample) + 132).bit_length() - 8)
    assert abs(value - sample) <= step // 2


def test_silence_is_the_word_of_zero() -> None:
    assert g711.encode(np.zeros(3, np.int16)) == bytes([g711.SILENCE]) * 3


def test_any_stride_and_empty() -> None:
    samples = np.arange(0, 1000, dtype=np.int16)[::10]
    assert g711.encode(samples) == g711.encode(samples.copy())
    assert g711.encode(np.zeros(0, np.int16)) == b""
    assert len(g711.decode(b"")) == 0
