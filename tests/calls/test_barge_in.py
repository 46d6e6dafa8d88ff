"""The caller speaks over the agent: it is cut, it goes on, or it has its answer.

As in test_conversation.py, the answer to what is said until 2.0 sounds from 2.6 on.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.config import TurnPolicy
from tests.calls.dialogue import Dialogue, Says, receptionist

OPENING = "When do you open?"
LONG = "Tell me about the shop."
STORY = "We have sold tyres in this town for thirty years now."  # 2.65 s


def soon(at: float) -> Any:
    return pytest.approx(at, abs=0.041)


# --- Barge-in ----------------------------------------------------------------------------------


async def test_the_caller_cuts_the_agent_and_only_what_was_heard_is_remembered() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),
        Says(4.0, 5.0, "How much is one?"),
        answers={LONG: [STORY], "How much is one?": ["Sixty euros."]},
    )
    await talk.run()
    cut = next(row for row in talk.book.transcripts if row.text == STORY)
    assert (cut.status, cut.heard_ms) == ("cut", pytest.approx(1520, abs=61))
    assert talk.line.heard()[1] == (soon(2.6), soon(4.12))
    assert talk.lines[2:] == [
        "agent: We have sold tyres in this …",
        "caller: How much is one?",
        "agent: Sixty euros.",
    ]
    assert talk.llm.talk()[-2:] == [
        ("assistant", "We have sold tyres in this— [interrupted]"),
        ("user", "How much is one?"),
    ]
    first, second = talk.book.turns
    assert first.barge_in and first.barge_in_stop_ms == 120
    assert not second.barge_in and second.barge_in_stop_ms is None
    assert len(talk.noted("agent.interrupted")) == 1


@pytest.mark.parametrize("words", ["mhm", "Uh-huh.", "да-да", "ok"])
async def test_a_backchannel_pauses_and_the_agent_goes_on(words: str) -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),
        Says(3.2, 3.5, words),
        answers={LONG: [STORY]},
        agent=receptionist(languages=("en", "ru")),
    )
    await talk.run()
    assert talk.lines[1:] == [f"caller: {LONG}", f"agent: {STORY}"]
    _, before, after = talk.line.heard()
    assert before == (soon(2.6), soon(3.32)) and after[0] == soon(3.82)
    assert talk.session.ledger.to_json()[-1]["status"] == "resumed"
    assert len(talk.llm.asked) == 1 and len(talk.book.turns) == 1
    assert [name for _, name, _ in talk.book.events if name.startswith("agent")] == [
        "agent.resumed"
    ]


async def test_a_cough_pauses_and_the_agent_goes_on() -> None:
    talk = Dialogue(Says(1.0, 2.0, LONG), Says(3.2, 3.5), answers={LONG: [STORY]})
    await talk.run()
    assert talk.lines[1:] == [f"caller: {LONG}", f"agent: {STORY}"]
    assert talk.line.heard()[2][0] == soon(3.82), "as soon as it is known to be nothing"


async def test_after_a_cough_the_caller_is_heard_as_fast_as_before() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG), Says(3.2, 3.5), Says(4.2, 5.0, OPENING), answers={LONG: [STORY]}
    )
    await talk.run()
    assert talk.line.heard()[2][1] == soon(4.32)
    assert talk.book.turns[0].barge_in_stop_ms == 120


async def test_an_agent_that_may_not_be_interrupted_is_not() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),
        Says(3.2, 4.2, "How much is one?"),
        answers={LONG: [STORY]},
        agent=receptionist(turns=TurnPolicy(barge_in=False)),
    )
    await talk.run()
    assert talk.lines[1:] == [f"caller: {LONG}", f"agent: {STORY}"]
    assert talk.line.heard()[1] == (soon(2.6), soon(5.25))


# --- An answer over the end of the question ----------------------------------------------------

ASKS = "Is it for a car?"  # 0.8 s
OFFER = "We have winter tyres."


@pytest.mark.parametrize("start", [2.9, 3.1, 3.2, 3.3, 3.38, 3.5])
async def test_yes_over_the_end_of_a_question_is_an_answer(start: float) -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),  # the question sounds from 2.6 to 3.4
        Says(start, start + 0.34, "Yes."),
        answers={LONG: [ASKS], "Yes.": [OFFER]},
    )
    await talk.run()
    assert talk.lines[-2:] == ["caller: Yes.", f"agent: {OFFER}"]
    assert talk.llm.talk()[-1] == ("user", "Yes.")


async def test_a_very_short_yes_over_the_end_of_a_question_is_an_answer() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG), Says(3.0, 3.1, "Yes."), answers={LONG: [ASKS], "Yes.": [OFFER]}
    )
    await talk.run()
    assert talk.lines[-2:] == ["caller: Yes.", f"agent: {OFFER}"]


async def test_okay_over_the_end_of_a_statement_is_a_turn_too() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),
        Says(4.8, 5.1, "okay"),  # the story sounds from 2.6 to 5.25
        answers={LONG: [STORY], "okay": ["Anything else?"]},
    )
    await talk.run()
    assert talk.lines[-2:] == ["caller: okay", "agent: Anything else?"]


async def test_okay_before_the_last_sentence_is_a_backchannel() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, LONG),
        Says(2.9, 3.2, "okay"),
        answers={LONG: [ASKS, " ", STORY]},
    )
    await talk.run()
    assert talk.lines[2:] == [f"agent: {ASKS}", f"agent: {STORY}"]


async def test_a_cough_over_the_end_of_a_question_is_no_answer() -> None:
    talk = Dialogue(Says(1.0, 2.0, LONG), Says(3.1, 3.4), answers={LONG: [ASKS]})
    await talk.run()
    assert talk.lines[1:] == [f"caller: {LONG}", f"agent: {ASKS}"]


async def test_okay_over_the_end_of_a_goodbye_does_not_keep_the_caller() -> None:
    talk = Dialogue(Says(1.0, 2.0, "Goodbye"), Says(3.6, 3.9, "okay"))
    assert (await talk.run()).result == "completed"
    assert talk.lines[-1] == "agent: Thank you for calling. Goodbye!"
