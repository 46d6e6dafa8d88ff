from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.config import SilencePolicy, TurnPolicy
from engine.turns.bargein import Action, BargeIn, Interrupt, PauseAgent, ResumeAgent
from engine.turns.endpoint import (
    Endpointer,
    Paused,
    PauseHeld,
    SpeechResumed,
    SpeechStarted,
    TurnEvent,
    TurnOver,
)
from engine.turns.expectation import Expectation
from engine.turns.silence import SilenceLadder, Step
from tests.calls.script import Speaks, frames

POLICY = TurnPolicy(
    barge_in_ms=180,
    speculate_ms=100,
    judge_ms=200,
    min_silence_ms=350,
    max_silence_ms=1200,
    complete_probability=0.5,
)


def turns(
    script: Sequence[Speaks],
    until: float,
    *,
    model: float | None = None,
    model_takes: float = 0.06,
) -> list[TurnEvent]:
    """The caller follows the script; the turn model answers each pause with `model`."""
    endpointer = Endpointer(POLICY)
    events: list[TurnEvent] = []
    answers: list[tuple[float, int]] = []
    for at, speech, _ in frames(script, until):
        for due, pause_id in [*answers]:
            if due <= at and model is not None:
                answers.remove((due, pause_id))
                events += endpointer.judge(at, model, pause_id=pause_id)
        new = endpointer.hear(at, speech)
        answers += [(at + model_takes, e.pause_id) for e in new if isinstance(e, PauseHeld)]
        events += new
    return events


def only_turn(events: list[TurnEvent]) -> TurnOver:
    (over,) = [event for event in events if isinstance(event, TurnOver)]
    return over


def test_a_finished_sentence_ends_after_the_shortest_silence() -> None:
    events = turns([Speaks(0.2, 1.4)], 4, model=0.9)
    assert events == [
        SpeechStarted(pytest.approx(0.2)),
        Paused(1.5, 1, pytest.approx(0.2), 1.4),
        PauseHeld(1.6, 1, pytest.approx(0.2), 1.4),
        TurnOver(1.76, pytest.approx(0.2), 1.4, 360, forced=False),
    ]


def test_a_single_yes_is_as_fast_as_any_sentence() -> None:
    assert only_turn(turns([Speaks(0.2, 0.5)], 3, model=0.9)).silence_ms == 360


@pytest.mark.parametrize(
    ("probability", "silence_ms"), [(0.0, 1200), (0.25, 780), (0.49, 380), (0.5, 360), (1.0, 360)]
)
def test_the_silence_needed_shrinks_as_the_model_grows_sure(
    probability: float, silence_ms: int
) -> None:
    over = only_turn(turns([Speaks(0.2, 1.4)], 5, model=probability))
    assert over.silence_ms == silence_ms
    assert over.forced == (probability < 0.5)


def test_without_a_judgement_the_wait_is_halfway_and_forced() -> None:
    over = only_turn(turns([Speaks(0.2, 1.4)], 5))
    assert (over.silence_ms, over.forced) == (780, True)


def test_a_judgement_later_than_the_shortest_silence_ends_the_turn_at_once() -> None:
    over = only_turn(turns([Speaks(0.2, 1.4)], 5, model=0.9, model_takes=0.4))
    assert (over.silence_ms, over.forced) == (600, False)


def test_going_on_after_a_pause_throws_the_speculation_away() -> None:
    events = turns([Speaks(0.2, 1.0), Speaks(1.3, 2.0)], 5, model=0.9)
    assert [type(event) for event in events] == [
        SpeechStarted,
        Paused,
        PauseHeld,
        SpeechResumed,
        Paused,
        PauseHeld,
        TurnOver,
    ]
    assert events[3] == SpeechResumed(pytest.approx(1.3), 1)
    over = only_turn(events)
    assert (over.speech_from, over.speech_to) == (pytest.approx(0.2), 2.0)


def test_a_stale_judgement_is_ignored() -> None:
    endpointer = Endpointer(POLICY)
    script = [Speaks(0.2, 1.0), Speaks(1.3, 2.0)]
    events = [e for at, speech, _ in frames(script, 2.38) for e in endpointer.hear(at, speech)]
    assert [e.pause_id for e in events if isinstance(e, Paused)] == [1, 2]
    assert endpointer.judge(2.38, 0.99, pause_id=1) == []
    assert [type(e) for e in endpointer.judge(2.38, 0.99, pause_id=2)] == [TurnOver]


def test_a_click_is_no_turn_and_does_not_prolong_a_pause() -> None:
    assert turns([Speaks(0.2, 0.24)], 3, model=0.9) == []
    events = turns([Speaks(0.2, 1.4), Speaks(1.64, 1.68)], 4, model=0.9)
    assert not [event for event in events if isinstance(event, SpeechResumed)]
    assert only_turn(events).silence_ms == 360


def test_a_line_that_never_falls_silent_is_cut() -> None:
    over = only_turn(turns([Speaks(0.2, 40)], 40))
    assert over.forced and over.silence_ms == 0
    assert over.at - over.speech_from == pytest.approx(28, abs=0.03)


def test_an_onset_confirmed_late_by_the_detector_counts() -> None:
    endpointer = Endpointer(POLICY)
    assert endpointer.hear(1.06, True, onset=1.0) == [SpeechStarted(1.0)]


def barge(
    script: Sequence[Speaks],
    until: float,
    *,
    words: Sequence[tuple[float, str, bool]] = (),
    policy: TurnPolicy = POLICY,
) -> list[Action]:
    """The caller speaks over the agent, who talks the whole time; `words` are (at, text, final)."""
    bargein = BargeIn(policy, ("en", "ru", "uk"))
    bargein.agent_started()
    waiting = list(words)
    actions: list[Action | None] = []
    for at, speech, echo in frames(script, until):
        actions.append(bargein.hear(at, speech, echo))
        while waiting and waiting[0][0] <= at:
            _, text, final = waiting.pop(0)
            actions.append(bargein.words(at, text, final))
    return [action for action in actions if action is not None]


def test_speech_over_the_agent_pauses_it_then_takes_the_floor() -> None:
    pause, interrupt = barge([Speaks(1.0, 3.0)], 4)
    assert pause == PauseAgent(1.18, pytest.approx(1.0))
    assert interrupt == Interrupt(1.7, pytest.approx(1.0))


def test_a_cough_is_resumed_when_nothing_was_understood() -> None:
    assert barge([Speaks(1.0, 1.3)], 3, words=[(1.7, "", True)]) == [
        PauseAgent(1.18, pytest.approx(1.0)),
        ResumeAgent(1.7),
    ]


def test_silence_without_words_resumes() -> None:
    assert barge([Speaks(1.0, 1.3)], 4)[-1] == ResumeAgent(2.3)


@pytest.mark.parametrize(
    "said",
    [
        "Uh-huh.",
        "Yeah, yeah",
        "OK, got it.",
        "Угу",
        "да-да",
        "Так, так.",
        "ага, понятно",
        "Mm-hmm!",
    ],
)
def test_a_backchannel_does_not_interrupt(said: str) -> None:
    actions = barge([Speaks(1.0, 1.4)], 3, words=[(1.8, said, True)])
    assert [type(action) for action in actions] == [PauseAgent, ResumeAgent]


@pytest.mark.parametrize("said", ["No.", "yeah but wait", "Стоп", "так, зачекайте", "ok stop"])
def test_other_words_interrupt(said: str) -> None:
    actions = barge([Speaks(1.0, 1.4)], 3, words=[(1.8, said, False)])
    assert actions == [PauseAgent(1.18, pytest.approx(1.0)), Interrupt(1.8, pytest.approx(1.0))]


def test_a_word_too_short_to_pause_the_agent_still_interrupts() -> None:
    assert [type(a) for a in barge([Speaks(1.0, 1.14)], 3, words=[(1.6, "no", True)])] == [
        Interrupt
    ]


def test_an_interim_backchannel_decides_nothing_and_neither_does_one_in_mid_speech() -> None:
    actions = barge([Speaks(1.0, 1.6)], 2.0, words=[(1.3, "yeah", False), (1.5, "yeah", True)])
    assert [type(action) for action in actions] == [PauseAgent]


def test_words_that_come_after_a_resume_still_interrupt() -> None:
    actions = barge([Speaks(1.0, 1.3)], 4, words=[(2.6, "stop it", True)])
    assert [type(action) for action in actions] == [PauseAgent, ResumeAgent, Interrupt]


def test_our_own_echo_never_interrupts_and_double_talk_does() -> None:
    assert barge([Speaks(1.0, 4.0, echo=0.9)], 5) == []
    actions = barge([Speaks(1.0, 2.0, echo=0.9), Speaks(2.0, 4.0, echo=0.1)], 5)
    assert actions[0] == PauseAgent(2.18, pytest.approx(2.0))


def test_an_onset_inside_our_echo_is_moved_to_where_the_echo_ended() -> None:
    bargein = BargeIn(POLICY, ("en",))
    bargein.agent_started()
    assert bargein.hear(1.0, True, 0.9, onset=0.2) is None
    assert bargein.hear(1.02, True, 0.1, onset=0.2) is None


def test_a_late_transcript_of_the_turn_before_does_not_interrupt() -> None:
    assert barge([], 2, words=[(1.0, "what time is it", True)]) == []


def test_a_digit_interrupts_only_while_the_agent_speaks() -> None:
    bargein = BargeIn(POLICY, ("en",))
    assert bargein.digit(0.5) is None
    bargein.agent_started()
    assert bargein.digit(1.0) == Interrupt(1.0, 1.0)
    assert bargein.digit(1.1) is None


def test_the_policy_is_idle_when_the_agent_is_silent_or_may_not_be_interrupted() -> None:
    bargein = BargeIn(POLICY, ("en",))
    assert [bargein.hear(at, True) for at, _, _ in frames([], 2)] == [None] * 100
    assert barge([Speaks(1, 3)], 4, policy=TurnPolicy(barge_in=False)) == []


def test_the_agents_own_backchannels_are_known() -> None:
    policy = TurnPolicy(backchannels=("roger that",))
    actions = barge([Speaks(1.0, 1.4)], 3, words=[(1.8, "Roger that!", True)], policy=policy)
    assert isinstance(actions[-1], ResumeAgent)


def ladder_steps(agent: Sequence[Speaks], caller: Sequence[Speaks], until: float) -> list[object]:
    ladder = SilenceLadder(SilencePolicy(reprompt_s=10, still_there_s=5, goodbye_s=3))
    steps: list[object] = []
    pairs = zip(frames(agent, until), frames(caller, until), strict=True)
    for (at, speaking, _), (_, caller_speaking, _) in pairs:
        if caller_speaking:
            ladder.activity(at)
        step = ladder.tick(
            at, agent_speaking=speaking, caller_speaking=caller_speaking, thinking=False
        )
        if step is not None:
            steps.append((pytest.approx(at, abs=0.03), step))
    return steps


def test_silence_climbs_the_ladder_from_the_end_of_the_agents_speech() -> None:
    agent = [Speaks(0, 2), Speaks(12.1, 14), Speaks(19.1, 20)]
    assert ladder_steps(agent, [], 40) == [
        (12.0, Step.REPROMPT),
        (19.0, Step.STILL_THERE),
        (23.0, Step.GOODBYE),
    ]


def test_the_callers_words_go_back_to_the_first_step() -> None:
    assert ladder_steps([Speaks(0, 2)], [Speaks(13, 14)], 25) == [
        (12.0, Step.REPROMPT),
        (24.0, Step.REPROMPT),
    ]


def test_thinking_holds_the_timer() -> None:
    ladder = SilenceLadder(SilencePolicy())
    quiet = {"agent_speaking": False, "caller_speaking": False}
    assert ladder.tick(0, thinking=False, **quiet) is None
    assert ladder.tick(15, thinking=True, **quiet) is None
    assert ladder.tick(24.9, thinking=False, **quiet) is None
    assert ladder.tick(25, thinking=False, **quiet) is Step.REPROMPT


def test_a_speech_cut_for_its_length_goes_on_as_a_turn_from_the_cut() -> None:
    endpointer = Endpointer(POLICY)
    events: list[TurnEvent] = []
    for at, speech, _ in frames([Speaks(0.2, 40)], 45):
        # The detector's run has not been broken, so its onset is far behind the cut.
        events += endpointer.hear(at, speech, 0.2 if speech else None)
    first, second = [event for event in events if isinstance(event, TurnOver)]
    assert (first.forced, first.silence_ms) == (True, 0)
    assert second.speech_from == first.speech_to == pytest.approx(28.2, abs=0.03)
    assert second.speech_to == 40.0
    assert [e.at for e in events if isinstance(e, SpeechStarted)] == [0.2, first.at]


@pytest.mark.parametrize(("said", "resumed"), [("Yes.", False), ("mhm", False), ("", True)])
def test_a_backchannel_may_answer_what_is_nearly_over(said: str, resumed: bool) -> None:
    bargein = BargeIn(POLICY, ("en",))
    bargein.agent_started()
    for at, speech, _ in frames([Speaks(1.0, 1.3)], 1.6):
        bargein.hear(at, speech)
    action = bargein.words(1.6, said, final=True, answers=True)
    assert isinstance(action, ResumeAgent if resumed else Interrupt)


def test_an_interim_backchannel_is_no_answer_yet() -> None:
    bargein = BargeIn(POLICY, ("en",))
    bargein.agent_started()
    for at, speech, _ in frames([Speaks(1.0, 1.3)], 1.6):
        bargein.hear(at, speech)
    assert bargein.words(1.6, "yes", final=False, answers=True) is None


def test_a_caller_who_was_cut_off_is_given_more_time() -> None:
    endpointer = Endpointer(POLICY)
    script = [Speaks(0.2 + 2 * n, 1.2 + 2 * n) for n in range(4)]
    script += [Speaks(1.8, 2.2), Speaks(3.8, 4.2), Speaks(5.8, 6.2)]
    waits: list[int] = []
    for at, speech, _ in frames(script, 10):
        events = endpointer.hear(at, speech)
        waits += [e.silence_ms for e in events if isinstance(e, TurnOver)]
        for held in [e for e in events if isinstance(e, PauseHeld)]:
            judged = endpointer.judge(at, 0.9, pause_id=held.pause_id)
            waits += [e.silence_ms for e in judged if isinstance(e, TurnOver)]
    # Pauses of 0.6 s: the first cuts the caller off, no other does.
    assert waits == [360, 700]


def test_who_speaks_long_after_the_end_of_a_turn_was_not_cut_off() -> None:
    endpointer = Endpointer(POLICY)
    for at, speech, _ in frames([Speaks(0.2, 1.2), Speaks(5.0, 6.0)], 5.5):
        endpointer.hear(at, speech)
    assert endpointer.patience.usual_s == 0


def test_a_yes_that_was_asked_for_ends_sooner_and_a_dictated_number_later() -> None:
    def silence_ms(expected: Expectation) -> int:
        endpointer = Endpointer(POLICY)
        endpointer.patience.expect(expected)
        for at, speech, _ in frames([Speaks(0.2, 0.6)], 4):
            for event in endpointer.hear(at, speech):
                if isinstance(event, PauseHeld):
                    endpointer.judge(at, 0.9, pause_id=event.pause_id)
                if isinstance(event, TurnOver):
                    return event.silence_ms
        raise AssertionError("the turn did not end")

    assert [silence_ms(expected) for expected in Expectation] == [360, 700, 240]
