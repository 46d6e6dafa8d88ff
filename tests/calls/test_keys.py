"""Keys: collected by a tool, or words like any other."""

from __future__ import annotations

from typing import Any

import pytest

from engine.config import TurnPolicy
from engine.dialog.llm.base import ToolCall
from tests.calls.dialogue import Dialogue, Presses, Says, receptionist

ORDER = "Where is my order?"
ASK = "Please key in your order number."  # 1.6 s
STORY = "We have sold tyres in this town for thirty years now."  # 2.65 s


def collects(answer: str, **arguments: Any) -> dict[str, Any]:
    """The tool's prompt sounds from 2.6 to 4.2."""
    return {
        ORDER: [ToolCall("c1", "collect_digits", {"prompt": ASK, **arguments})],
        f"The caller pressed: {answer}": ["It is on its way."],
        "The caller pressed no keys.": ["Never mind."],
    }


def collected(talk: Dialogue) -> list[tuple[bool, Any]]:
    return [(row.ok, row.result) for row in talk.book.tools]


async def test_keys_are_collected_up_to_the_terminator() -> None:
    talk = Dialogue(Says(1.0, 2.0, ORDER), Presses(5.0, "123#"), answers=collects("1 2 3"))
    await talk.run()
    assert collected(talk) == [(True, "The caller pressed: 1 2 3")]
    assert talk.lines[1:] == [f"caller: {ORDER}", f"agent: {ASK}", "agent: It is on its way."]


async def test_enough_keys_need_no_terminator() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, ORDER), Presses(5.0, "1234"), answers=collects("1 2 3", max_digits=3)
    )
    await talk.run()
    assert collected(talk) == [(True, "The caller pressed: 1 2 3")]


async def test_keys_pressed_over_the_prompt_silence_it_and_all_of_them_count() -> None:
    talk = Dialogue(Says(1.0, 2.0, ORDER), Presses(3.4, "123#"), answers=collects("1 2 3"))
    await talk.run()
    assert collected(talk) == [(True, "The caller pressed: 1 2 3")]
    assert talk.line.heard()[1] == (pytest.approx(2.6, abs=0.05), pytest.approx(3.42, abs=0.05))
    assert talk.lines[1:] == [
        f"caller: {ORDER}",
        "agent: Please key in …",
        "agent: It is on its way.",
    ]
    (turn,) = talk.book.turns
    assert not turn.barge_in


async def test_a_key_after_a_cough_over_the_prompt_counts() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, ORDER), Says(3.0, 3.3), Presses(3.35, "123#"), answers=collects("1 2 3")
    )
    await talk.run()
    assert collected(talk) == [(True, "The caller pressed: 1 2 3")]
    assert talk.lines[-1] == "agent: It is on its way."


async def test_no_keys_is_an_answer_too() -> None:
    talk = Dialogue(Says(1.0, 2.0, ORDER), answers=collects(""), stays_s=25)
    await talk.run()
    assert collected(talk) == [(False, "The caller pressed no keys.")]
    assert talk.lines[-1] == "agent: Never mind."


async def test_patience_counts_from_the_end_of_the_prompt() -> None:
    slow = "Please key in the number that stands at the top of the yellow paper in your box."
    talk = Dialogue(
        Says(1.0, 2.0, ORDER),
        Presses(18.5, "1#"),  # 15.9 s after the prompt began, 11.9 s after its end
        answers={
            ORDER: [ToolCall("c1", "collect_digits", {"prompt": slow})],
            "The caller pressed: 1": ["It is on its way."],
        },
    )
    await talk.run()
    assert collected(talk) == [(True, "The caller pressed: 1")]


async def test_a_caller_who_speaks_instead_is_heard() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, ORDER),
        Says(6.0, 7.5, "I do not have it here"),
        answers=collects("") | {"I do not have it here": ["Then tell me your name."]},
    )
    await talk.run()
    assert talk.lines[-2:] == ["caller: I do not have it here", "agent: Then tell me your name."]
    assert collected(talk) == []


async def test_keys_nobody_collects_are_words() -> None:
    talk = Dialogue(Presses(1.0, "42"), answers={"[keys] 42": ["Forty two."]})
    await talk.run()
    assert talk.lines[1:] == ["caller: [keys] 42", "agent: Forty two."]
    (turn,) = talk.book.turns
    assert turn.offset_ms == 1200 and turn.endpoint_ms == pytest.approx(1500, abs=41)


async def test_the_hash_ends_an_entry_at_once_and_means_nothing_alone() -> None:
    talk = Dialogue(Presses(1.0, "42#"), Presses(4.0, "#"), answers={"[keys] 42": ["Yes."]})
    await talk.run()
    assert talk.lines[1:] == ["caller: [keys] 42", "agent: Yes."]
    assert talk.line.heard()[1][0] == pytest.approx(1.72, abs=0.05)


async def test_a_key_cuts_the_agent() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, "Tell me about the shop."),
        Presses(4.0, "0"),
        answers={"Tell me about the shop.": [STORY], "[keys] 0": ["Yes?"]},
    )
    await talk.run()
    assert talk.line.heard()[1][1] == pytest.approx(4.01, abs=0.03)
    assert talk.lines[2:] == [
        "agent: We have sold tyres in this …",
        "caller: [keys] 0",
        "agent: Yes?",
    ]
    assert talk.book.turns[0].barge_in


async def test_a_key_pressed_while_the_agent_thinks_is_not_lost() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, "Tell me about the shop."),
        Presses(2.45, "0"),
        answers={
            "Tell me about the shop.": [STORY],
            "Tell me about the shop. [keys] 0": ["Yes?"],
            "[keys] 0": ["Yes?"],
        },
    )
    await talk.run()
    assert talk.lines[-2:] == ["caller: [keys] 0", "agent: Yes?"]


@pytest.mark.parametrize("keys", ["0", "0#"])
async def test_where_nothing_may_interrupt_keys_wait(keys: str) -> None:
    talk = Dialogue(
        Says(1.0, 2.0, "Tell me about the shop."),
        Presses(3.0, keys),
        answers={"Tell me about the shop.": [STORY], "[keys] 0": ["Yes?"]},
        agent=receptionist(turns=TurnPolicy(barge_in=False)),
    )
    await talk.run()
    assert talk.lines[2:] == [f"agent: {STORY}", "caller: [keys] 0", "agent: Yes?"]
