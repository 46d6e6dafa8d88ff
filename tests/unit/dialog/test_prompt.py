from datetime import datetime

from engine.config import Agent
from engine.dialog.llm.base import Message
from engine.dialog.prompt import build, system_prefix

NOW = datetime(2025, 11, 21, 14, 5)


def agent(*languages: str) -> Agent:
    return Agent(name="A", languages=languages, greeting="Hi.", prompt="You sell tyres.")  # type: ignore[arg-type]


def test_what_changes_least_stands_first() -> None:
    one = build(agent("en"), [Message("assistant", "Hi.")], "Hello", "en", now=NOW)
    two = build(
        agent("en"),
        [Message("assistant", "Hi."), Message("user", "Hello"), Message("assistant", "Yes?")],
        "Price?",
        "en",
        now=NOW,
    )
    assert one[:2] == [
        *system_prefix(agent("en")),
        Message("system", "Now it is Friday, 21 November 2025, 14:05."),
    ]
    assert two[: len(one)] == one
    assert two[-1] == Message("user", "Price?")


def test_the_rules_are_in_the_agents_language() -> None:
    text = system_prefix(agent("ru"))[0].content
    assert "Говори по-русски." in text and "You are on the telephone" not in text
    several = system_prefix(agent("uk", "ru"))[0].content
    assert "українська, російська" in several
    assert (
        "п'ятниця, 21 листопада 2025, 14:05"
        in build(agent("uk"), [], "Так", "uk", now=NOW)[1].content
    )


def test_another_language_is_asked_for_beside_the_words_that_brought_it() -> None:
    messages = build(agent("en", "ru"), [], "Сколько стоит?", "ru", now=NOW)
    assert messages[-1].content == "Сколько стоит? (Говори по-русски.)"


def test_a_turn_whose_answer_was_not_heard_goes_on() -> None:
    messages = build(agent("en"), [Message("user", "What does it")], "cost?", "en", now=NOW)
    assert messages[-1] == Message("user", "What does it cost?")


def test_long_messages_are_cut_where_it_hurts_least() -> None:
    history = [Message("assistant", "", ()), Message("tool", "a" * 5000, tool_call_id="1")]
    messages = build(agent("en"), history, "b" * 5000 + "end", "en", now=NOW, message_chars=4000)
    assert len(messages[-2].content) == 4000 and messages[-2].tool_call_id == "1"
    assert len(messages[-1].content) == 4000 and messages[-1].content.endswith("end")
