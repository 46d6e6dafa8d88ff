from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialog.history import Ledger, heard_part
from engine.dialog.llm.base import Message, ToolCall


@dataclass
class Sentence:
    text: str
    status: Literal["queued", "playing", "played", "cut", "unheard"] = "played"
    heard_ms: int = 0
    total_ms: int = 1000
    resumed: bool = False
    started_at: float | None = 100.5
    language: str = "en"


def ledger() -> Ledger:
    return Ledger(origin=100.0)


def speak(book: Ledger, *sentences: Sentence) -> None:
    book.agent(lambda: sentences)


def test_only_what_was_heard_becomes_context() -> None:
    book = ledger()
    cut = Sentence("From nine to six every single day", "cut", heard_ms=500)
    speak(book, Sentence("Good day."), Sentence("How can I help?"))
    book.caller("Your hours?", "en", 0.9, started_at=101.0, ended_at=102.0)
    speak(book, Sentence("We are open."), cut, Sentence("On Sunday we rest.", "unheard"))
    book.caller("And the price?", "en", 0.9, started_at=103.0, ended_at=104.0)
    assert book.messages(20) == [
        Message("assistant", "Good day. How can I help?"),
        Message("user", "Your hours?"),
        Message("assistant", "We are open. From nine to six— [interrupted]"),
        Message("user", "And the price?"),
    ]
    assert [entry["status"] for entry in book.to_json() if entry["who"] == "agent"] == [
        "played", "played", "played", "cut", "unheard",
    ]  # fmt: skip


def test_a_sentence_is_read_as_it_is_when_the_ledger_is_read() -> None:
    book = ledger()
    sentence = Sentence("We are open every day", "queued", total_ms=0)
    speak(book, sentence)
    assert len(book.entries) == 1 and book.messages(20) == []
    sentence.status, sentence.heard_ms, sentence.total_ms = "playing", 400, 1000
    assert book.messages(20) == [Message("assistant", "We are— [interrupted]")]
    sentence.status = "played"
    assert book.messages(20) == [Message("assistant", "We are open every day")]


def test_a_resumed_sentence_says_so() -> None:
    book = ledger()
    speak(book, Sentence("All of it.", resumed=True))
    assert book.to_json()[0] == {
        "who": "agent",
        "text": "All of it.",
        "heard": "All of it.",
        "language": "en",
        "status": "resumed",
        "heard_ms": 0,
        "total_ms": 1000,
        "start_ms": 500,
    }


def test_turns_whose_answer_was_not_heard_become_one() -> None:
    book = ledger()
    book.caller("What does it cost", "en", 0.9, started_at=101, ended_at=102)
    speak(book, Sentence("Sixty euros.", "unheard"))
    book.caller("for four wheels?", "en", 0.9, started_at=103, ended_at=104)
    assert book.messages(20) == [Message("user", "What does it cost for four wheels?")]


def test_a_tool_without_an_answer_is_not_context_and_one_with_it_is() -> None:
    book = ledger()
    call = ToolCall("c1", "price", {"wheels": 4})
    book.caller("Price?", "en", 0.9, started_at=101, ended_at=102)
    speak(book, Sentence("One moment."))
    book.tool_started(call, at=102.5)
    assert book.messages(20)[-1] == Message("assistant", "One moment.")
    book.tool_finished("c1", ok=True, result="60 euros", took_ms=12.0)
    assert book.messages(20)[1:] == [
        Message("assistant", "One moment.", tool_calls=(call,)),
        Message("tool", "60 euros", tool_call_id="c1"),
    ]
    assert book.to_json()[-1]["start_ms"] == 2500
    with pytest.raises(KeyError):
        book.tool_finished("nobody", ok=True, result="", took_ms=0)


def test_the_window_moves_in_steps_so_that_the_prompt_keeps_its_beginning() -> None:
    book = ledger()
    starts = []
    for turn in range(40):
        book.caller(f"question {turn}", "en", 0.9, started_at=101, ended_at=102)
        speak(book, Sentence(f"answer {turn}"))
        messages = book.messages(20)
        assert 16 <= len(messages) <= 20 or turn < 8
        starts.append(messages[0].content)
    # 80 messages, a limit of 20 and steps of five: the first window, and twelve later ones.
    assert len(set(starts)) == 13


def test_a_window_never_starts_with_a_tools_answer() -> None:
    book = ledger()
    for turn in range(40):
        call = ToolCall(f"c{turn}", "look", {})
        book.caller(f"question {turn}", "en", 0.9, started_at=101, ended_at=102)
        book.tool_started(call, at=102)
        book.tool_finished(call.id, ok=True, result="found", took_ms=1)
        assert all(book.messages(limit)[0].role != "tool" for limit in range(2, 41))


@pytest.mark.parametrize(
    ("heard_ms", "part"),
    [
        (0, ""),
        (100, ""),
        (300, "one"),
        (500, "one two"),
        (999, "one two three"),
        (1000, "one two three four"),
    ],
)
def test_the_cut_falls_between_words(heard_ms: int, part: str) -> None:
    assert heard_part("one two three four", heard_ms, 1000) == part


@given(st.text(), st.integers(-5, 2000), st.integers(-5, 2000))
def test_the_heard_part_is_a_beginning(text: str, heard_ms: int, total_ms: int) -> None:
    assert text.strip().startswith(heard_part(text, heard_ms, total_ms))
