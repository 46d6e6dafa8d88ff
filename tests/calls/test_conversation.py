"""Conversations as a caller lives them: who says what when, and what is remembered of it.

The models take their time alike everywhere: 0.2 s to hear, 0.2 s to think, 0.1 s to speak. After a
caller's last word there are 0.1 s before the models start, so an answer sounds 0.6 s after it.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from engine.calls.state import CallState, Outcome
from engine.config import TurnPolicy
from engine.dialog.llm.base import ToolCall
from engine.dialog.tools.registry import ToolContext, ToolResult, tool
from engine.dialog.tools.telephony import agent_registry
from tests.calls.dialogue import Dialogue, Happens, Says, receptionist
from tests.calls.models import Hearing, TurnSense

OPENING = "When do you open?"
LONG = "Tell me about the shop."
STORY = "We have sold tyres in this town for thirty years now."  # 2.65 s
HANGS_UP = Outcome("caller_hangup", "hangup")


def soon(at: float) -> Any:
    return pytest.approx(at, abs=0.041)


# --- A turn ------------------------------------------------------------------------------------


async def test_an_answer_is_spoken_when_the_caller_has_finished() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), answers={OPENING: ["We open at nine."]})
    assert await talk.run() == HANGS_UP
    assert talk.lines == ["agent: Hello.", f"caller: {OPENING}", "agent: We open at nine."]
    assert talk.line.heard() == [(soon(0.1), soon(0.4)), (soon(2.6), soon(3.4))]
    hello, asked, told = talk.book.transcripts
    assert (asked.role, asked.text, asked.start_ms, asked.end_ms) == ("caller", OPENING, 1000, 2000)
    assert (asked.confidence, asked.language, asked.status) == (0.95, "en", "heard")
    assert (told.role, told.text, told.status, told.heard_ms) == (
        "agent",
        "We open at nine.",
        "heard",
        800,
    )
    assert (hello.start_ms, told.start_ms) == (
        pytest.approx(100, abs=41),
        pytest.approx(2600, abs=41),
    )
    (turn,) = talk.book.turns
    assert (turn.number, turn.offset_ms, turn.endpoint_ms) == (1, 2000, 360)
    assert (turn.stt_ms, turn.llm_first_sentence_ms, turn.tts_first_frame_ms) == (200, 200, 100)
    assert turn.gap_ms == pytest.approx(600, abs=41)
    assert turn.speculated and not turn.barge_in and turn.barge_in_stop_ms is None


@pytest.mark.parametrize(("spare", "guesses"), [(True, 2), (False, 1)])
async def test_without_time_to_spare_a_guess_waits_until_the_pause_has_held(
    spare: bool, guesses: int
) -> None:
    talk = Dialogue(
        Says(1.0, 1.6, "When do you"),
        Says(1.72, 2.3, "open?"),
        stt=Hearing,
        spare=lambda: spare,
    )
    await talk.run()
    assert talk.lines[1] == "caller: When do you open?"
    assert talk.parts.stt.asked == guesses  # type: ignore[attr-defined]


async def test_the_model_is_told_the_conversation_so_far() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        Says(5.0, 6.0, "And on Sunday?"),
        answers={OPENING: ["We open at nine."], "And on Sunday?": ["We are closed."]},
    )
    await talk.run()
    assert talk.llm.talk() == [
        ("assistant", "Hello."),
        ("user", OPENING),
        ("assistant", "We open at nine."),
        ("user", "And on Sunday?"),
    ]
    assert [turn.number for turn in talk.book.turns] == [1, 2]


async def test_what_was_thought_too_early_leaves_no_trace() -> None:
    ran: list[str] = []
    talk = Dialogue(
        Says(1.0, 1.6, "Please order it"),
        Says(1.9, 2.6, "no, wait"),
        answers={
            "Please order it": ["Very well. ", ToolCall("c1", "order", {})],
            "Please order it no, wait": ["I am waiting."],
        },
    )
    with_tool(talk, ran)
    await talk.run()
    assert len(talk.llm.asked) == 2
    assert ran == [] and talk.book.tools == []
    assert talk.lines == [
        "agent: Hello.",
        "caller: Please order it no, wait",
        "agent: I am waiting.",
    ]
    assert [row.text for row in talk.book.transcripts] == [
        "Hello.",
        "Please order it no, wait",
        "I am waiting.",
    ]
    assert [name for _, name, _ in talk.book.events] == ["call.finished"]


async def test_a_tool_runs_once_the_turn_is_over_and_is_written_down() -> None:
    ran: list[str] = []
    talk = Dialogue(
        Says(1.0, 2.0, "Please order it"),
        answers={
            "Please order it": [ToolCall("c1", "order", {})],
            "ordered": ["It is ordered."],
        },
    )
    with_tool(talk, ran)
    await talk.run()
    assert ran == ["order"]
    assert talk.lines == [
        "agent: Hello.",
        "caller: Please order it",
        "agent: It is ordered.",
    ]
    (row,) = talk.book.tools
    assert (row.name, row.ok, row.result, row.trace_id) == ("order", True, "ordered", "c1")
    assert [name for _, name, _ in talk.book.events][:2] == ["tool.started", "tool.finished"]


class Nothing(BaseModel):
    pass


def with_tool(talk: Dialogue, ran: list[str]) -> None:
    """One more tool, with side effects."""

    async def run(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        ran.append("order")
        return ToolResult("ordered")

    order = tool("order", "Order it.", Nothing, run)
    agent = talk.agent.model_copy(update={"tools": (*talk.agent.tools, "order")})
    talk.session._talk._mind._tools = agent_registry(agent, order)


async def test_a_turn_the_model_is_not_sure_of_takes_patience() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        answers={OPENING: ["We open at nine."]},
        turn_model=TurnSense(says=0.0),
    )
    await talk.run()
    assert talk.line.heard()[1] == (soon(3.22), soon(4.02))
    assert talk.book.turns[0].endpoint_ms == 1200


async def test_without_the_turn_model_silence_decides() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        answers={OPENING: ["We open at nine."]},
        turn_model=TurnSense(fails=True),
    )
    assert await talk.run() == HANGS_UP
    assert talk.book.turns[0].endpoint_ms == 780


async def test_a_noise_is_no_turn() -> None:
    talk = Dialogue(Says(1.0, 1.5))
    await talk.run()
    assert talk.lines == ["agent: Hello."] and talk.llm.asked == []
    assert len(talk.noted("caller.ignored")) == 1


async def test_the_language_of_the_answer_follows_the_caller() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, "Сколько стоит шина скажите пожалуйста"),
        agent=receptionist(languages=("en", "ru")),
    )
    await talk.run()
    assert [row.language for row in talk.book.transcripts] == ["en", "ru", "ru"]
    assert talk.session._talk.language == "ru"


async def test_the_panel_sees_where_the_call_stands() -> None:
    seen: list[str] = []

    def look(talk: Dialogue) -> None:
        seen.append(talk.session.snapshot()["state"])

    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        *(Happens(at, look) for at in (0.05, 0.3, 1.5, 2.5, 3.0, 4.0)),
        Says(5.0, 6.0, "Goodbye"),
        Happens(6.5, look),
        Happens(7.0, look),
        answers={OPENING: ["We open at nine."]},
    )
    await talk.run()
    assert seen == [
        CallState.GREETING.value,
        CallState.GREETING.value,
        CallState.LISTENING.value,
        CallState.THINKING.value,
        CallState.SPEAKING.value,
        CallState.LISTENING.value,
        CallState.ENDING.value,
        CallState.ENDING.value,
    ]


# --- The caller goes on ------------------------------------------------------------------------


async def test_words_said_while_the_agent_thinks_belong_to_the_question() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        Says(2.45, 3.2, "On Sunday I mean."),
        answers={
            OPENING: [1.0, "We open at nine."],
            f"{OPENING} On Sunday I mean.": ["We are closed."],
        },
    )
    await talk.run()
    assert talk.lines[1:] == [
        f"caller: {OPENING}",
        "(agent: We open at nine.)",
        "caller: On Sunday I mean.",
        "agent: We are closed.",
    ]
    assert talk.llm.talk()[1:] == [("user", f"{OPENING} On Sunday I mean.")]
    assert [(turn.number, turn.gap_ms) for turn in talk.book.turns] == [
        (1, None),
        (2, pytest.approx(600, abs=41)),
    ]


async def test_a_cough_while_the_agent_thinks_only_holds_the_answer() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING), Says(2.45, 2.6), answers={OPENING: [0.5, "We open at nine."]}
    )
    await talk.run()
    assert talk.lines[1:] == [f"caller: {OPENING}", "agent: We open at nine."]
    assert talk.line.heard()[1][0] > 2.6 + 0.35


async def test_a_slow_recogniser_does_not_make_the_agent_talk_over_the_caller() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        Says(2.5, 4.5, "On Sunday I mean or on Monday"),
        answers={
            OPENING: ["We open at nine."],
            f"{OPENING} On Sunday I mean or on Monday": ["We are closed."],
        },
        stt=lambda words: Hearing(words, takes_s=0.8),
    )
    await talk.run()
    assert talk.line.heard()[1:] == [(soon(5.7), soon(6.4))]
    assert talk.llm.talk()[1:] == [("user", f"{OPENING} On Sunday I mean or on Monday")]


async def test_words_understood_only_after_the_agent_began_are_not_lost() -> None:
    # The second sentence was over before the agent's answer to the first began to sound.
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        Says(2.4, 2.6, "On Sunday"),
        answers={OPENING: [STORY], "On Sunday": ["We are closed."]},
        stt=lambda words: Hearing(words, takes_s=1.0),
        # Else the caller, who was cut off once, is given more time, and both sentences are one.
        agent=receptionist(turns=TurnPolicy(adaptive=False)),
    )
    await talk.run()
    assert "caller: On Sunday" in talk.lines
    assert talk.lines[-1] == "agent: We are closed."


async def test_a_speech_without_end_is_answered_and_no_word_of_it_is_lost() -> None:
    words = " ".join(f"w{number}" for number in range(1, 71))
    talk = Dialogue(Says(1.0, 36.0, words), stays_s=8.0)
    await talk.run()
    said = " ".join(line.removeprefix("caller: ") for line in talk.lines if "caller" in line)
    heard = said.split()
    assert list(dict.fromkeys(heard)) == words.split()
    assert len(heard) <= 71, "at most the word at the cut is heard twice"
    assert len(talk.line.heard()) == 2, "the agent waits for the end"
    assert [turn.speculated for turn in talk.book.turns] == [False, True]
    assert talk.line.heard()[1][0] == soon(36.6)


@pytest.mark.parametrize(
    ("question", "answer", "endpoint_ms"),
    [
        ("What is your number?", "It is mine", 700),
        ("Is that right?", "Yes please", 240),
        ("We open at nine.", "Thank you", 360),
        ("We open at nine.", "five five five", 700),
    ],
)
async def test_what_was_asked_and_what_is_being_said_decide_how_long_the_caller_is_waited_for(
    question: str, answer: str, endpoint_ms: int
) -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        Says(6.0, 6.6, answer),
        answers={OPENING: [question], answer: ["Good."]},
    )
    await talk.run()
    assert [turn.endpoint_ms for turn in talk.book.turns] == [
        360,
        pytest.approx(endpoint_ms, abs=41),
    ]
