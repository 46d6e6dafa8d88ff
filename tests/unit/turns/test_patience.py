from __future__ import annotations

import pytest

from engine.config import TurnPolicy
from engine.turns.expectation import Expectation
from engine.turns.patience import Patience

POLICY = TurnPolicy(judge_ms=200, min_silence_ms=400, max_silence_ms=1200)


def test_a_stranger_is_waited_for_as_the_policy_says() -> None:
    assert Patience(POLICY).bounds_ms(2.0) == (400, 1200)


def test_pauses_the_caller_spoke_on_after_stretch_both_waits_and_no_further_than_twice() -> None:
    patience = Patience(POLICY)
    patience.resumed(0.8)
    assert patience.bounds_ms(2.0) == (pytest.approx(500), pytest.approx(1300))
    for _ in range(10):
        patience.resumed(1.1)
    assert patience.bounds_ms(2.0) == (800, 1600)


def test_a_pause_we_took_for_the_end_counts_at_once() -> None:
    patience = Patience(POLICY)
    patience.turn_began(0.6)
    assert patience.bounds_ms(2.0) == (pytest.approx(750), pytest.approx(1550))


def test_gaps_between_words_teach_nothing() -> None:
    patience = Patience(POLICY)
    patience.resumed(0.8)
    for _ in range(10):
        patience.resumed(0.15)
    assert patience.usual_s == pytest.approx(0.4)


def test_turns_without_a_pause_take_it_back() -> None:
    patience = Patience(POLICY)
    patience.resumed(0.8)
    patience.turn_began(5.0)
    assert patience.usual_s == pytest.approx(0.4)
    for _ in range(3):
        patience.turn_began(5.0)
    assert patience.bounds_ms(2.0) == (400, 1200)


def test_dictation_doubles_the_shortest_wait() -> None:
    patience = Patience(POLICY)
    patience.expect(Expectation.DICTATION)
    assert patience.bounds_ms(0.5) == (800, 1600)
    patience.expect(Expectation.ANYTHING)
    patience.dictating(True)
    assert patience.bounds_ms(0.5) == (800, 1600)
    patience.turn_over()
    assert patience.bounds_ms(0.5) == (400, 1200)


def test_a_lone_word_after_a_yes_or_no_question_is_answered_sooner() -> None:
    patience = Patience(POLICY)
    patience.expect(Expectation.YES_OR_NO)
    assert patience.bounds_ms(0.4) == (pytest.approx(280), 800)
    assert patience.bounds_ms(1.5) == (400, 1200)


def test_a_policy_that_does_not_adapt_stays() -> None:
    patience = Patience(POLICY.model_copy(update={"adaptive": False}))
    patience.expect(Expectation.DICTATION)
    patience.resumed(1.0)
    assert patience.bounds_ms(0.4) == (400, 1200)
