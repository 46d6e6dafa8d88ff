"""The bench's own arithmetic, on utterances that are drawn instead of spoken."""

from __future__ import annotations

import numpy as np
import pytest

from engine.bench.endpoint import (
    Listened,
    Said,
    as_one_caller,
    breaking_point,
    broken,
    dips,
    replay,
    told,
    whole,
)
from engine.config import TurnPolicy
from engine.media.frame import Samples
from tests.calls.script import Speaks, frames

POLICY = TurnPolicy(
    min_silence_ms=350, max_silence_ms=1200, complete_probability=0.5, adaptive=False
)


def loud(*lengths: int) -> Samples:
    """Frames, by turns loud and silent."""
    return np.concatenate(
        [np.full(n * 160, 3000 * (i % 2 == 0), np.int16) for i, n in enumerate(lengths)]
    )


def listened(script: list[Speaks], judged: dict[float, float], pause_ms: int = 0) -> Listened:
    heard = [
        (at, speech, at - 0.02 if speech and (not before) else None)
        for (at, speech, _), before in zip(
            frames(script, 6), [False, *(s for _, s, _ in frames(script, 6))], strict=False
        )
    ]
    said = Said("en", "thinking", pause_ms, np.zeros(0, np.int16))
    return Listened(said, heard, {at: (p, 0.05) for at, p in judged.items()}, script[-1].end)


def test_dips_are_runs_of_quiet_frames() -> None:
    assert dips(loud(10, 12, 10, 3, 10), 4) == [(10, 22)]


def test_a_sentence_is_broken_where_it_is_quiet_well_inside() -> None:
    samples = loud(20, 4, 20)
    place = breaking_point(samples)
    assert place == 22 * 160
    assert len(broken(samples, place, 300)) == len(samples) + 2400
    assert breaking_point(loud(5, 4, 40)) is None


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        ("Please hold the line.", True),
        ("Press 1 for", False),
        ("To leave the conference...", False),
        ("has joined the conference.", False),
    ],
)
def test_only_whole_sentences_end_a_turn(text: str, is_whole: bool) -> None:
    assert whole(text) == is_whole


def test_a_pause_the_model_takes_for_the_end_is_a_cut_and_others_are_not() -> None:
    script = [Speaks(0.2, 1.2), Speaks(1.8, 2.6)]
    sure = listened(script, {1.4: 0.9, 2.8: 0.9})
    unsure = listened(script, {1.4: 0.1, 2.8: 0.9})
    first, second = replay([sure, unsure], POLICY)
    assert (first.cut, second.cut) == (True, False)
    assert second.wait_ms == pytest.approx(360, abs=1)
    assert told([first, second])["en"] == {
        "cut_rate": 0.5,
        "wait_p50_ms": pytest.approx(360, abs=1),
        "wait_p95_ms": pytest.approx(360, abs=1),
    }


def test_one_caller_is_learnt_where_many_are_not() -> None:
    said = [listened([Speaks(0.2, 1.2), Speaks(1.8, 2.6)], {1.4: 0.9, 2.8: 0.9}, 600)] * 4
    policy = POLICY.model_copy(update={"adaptive": True})
    assert [v.cut for v in replay(said, policy)] == [True] * 4
    assert [v.cut for v in as_one_caller(said, policy)] == [True, False, False, False]
