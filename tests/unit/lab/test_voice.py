import numpy as np
import pytest

from engine.lab.voice import joined, parse_transcripts
from engine.media.frame import Pcm


def test_transcripts_leave_comments_noises_and_nothing_out() -> None:
    text = (
        "; Core Asterisk Sounds\n\n"
        "agent-pass: Please enter your  password: then pound.\n"
        "beep: [this is a simple beep tone]\n"
        "digits/7: seven\n"
        "is:\n"
        "no colon\n"
    )
    assert parse_transcripts(text) == {
        "agent-pass": "Please enter your password: then pound.",
        "digits/7": "seven",
    }


def test_joined_with_silence_between() -> None:
    one = Pcm(np.full(80, 1, np.int16), 8000)
    two = Pcm(np.full(40, 2, np.int16), 8000)
    both = joined([one, two], gap_s=0.01)
    assert both.samples.tolist() == [1] * 80 + [0] * 80 + [2] * 40
    assert both.rate == 8000


def test_parts_of_different_rates_are_not_joined() -> None:
    with pytest.raises(ValueError, match="one rate"):
        joined([Pcm.silence(1, 8000), Pcm.silence(1, 16000)])
    with pytest.raises(ValueError, match="one rate"):
        joined([])
