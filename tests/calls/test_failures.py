"""The caller is not understood, or a model is broken: nobody is left in silence."""

from __future__ import annotations

from typing import Any

import pytest

from engine.calls.state import Outcome
from engine.config import LimitSettings
from engine.dialog.llm.base import ToolCall
from engine.dialog.phrases import phrases
from engine.errors import ModelError, ModelTimeout
from tests.calls.dialogue import Dialogue, Happens, Item, Says, receptionist
from tests.calls.models import Hearing, Speaking, Thinking

HOUSE = phrases("en")
OPENING = "When do you open?"

# --- Not understood ----------------------------------------------------------------------------


def mumbles(*starts: float) -> list[Item]:
    return [Says(start, start + 1, "mumble", confidence=0.1) for start in starts]


async def test_who_is_not_understood_is_asked_twice_and_then_given_to_a_person() -> None:
    talk = Dialogue(*mumbles(1.0, 6.0, 12.0), stays_s=30)
    assert await talk.run() == Outcome("transferred", "dial:600", "the caller was not understood")
    said = [line for line in talk.lines if line.startswith("agent")]
    assert said[1:] == [f"agent: {text}" for text in (*HOUSE.repeat, HOUSE.not_understood)]
    assert talk.llm.asked == []


async def test_a_turn_that_is_understood_forgives_the_others() -> None:
    talk = Dialogue(*mumbles(1.0, 6.0), Says(12.0, 13.0, OPENING), *mumbles(16.0), stays_s=8)
    await talk.run()
    assert talk.lines[-1] == f"agent: {HOUSE.repeat[0]}"


async def test_with_nobody_to_transfer_to_the_agent_keeps_asking() -> None:
    talk = Dialogue(*mumbles(1.0, 6.0, 12.0), agent=receptionist(transfers=()), stays_s=8)
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines[-1] == f"agent: {HOUSE.repeat[0]}"


async def test_a_guess_that_is_thrown_away_is_not_counted_as_unclear() -> None:
    talk = Dialogue(
        Says(1.0, 1.6, "mumble", confidence=0.1),
        Says(1.9, 2.6, "mumble", confidence=0.1),
        *mumbles(7.0),
        stays_s=8,
    )
    await talk.run()
    said = [line for line in talk.lines if line.startswith("agent")]
    assert said[1:] == [f"agent: {text}" for text in HOUSE.repeat]


# --- Broken models -----------------------------------------------------------------------------


def why(talk: Dialogue) -> list[Any]:
    return [data["code"] for _, name, data in talk.book.events if name == "call.error"]


async def test_a_recogniser_that_fails_gives_the_call_to_the_fallback() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        stt=lambda words: Hearing(words, fails=ModelTimeout("slow")),
        ticket={"fallback": "queue:help"},
    )
    assert await talk.run() == Outcome("failed", "queue:help", "MODEL_TIMEOUT")
    assert talk.lines[-1] == f"agent: {HOUSE.trouble_leaving}"
    assert why(talk) == ["MODEL_TIMEOUT"]
    assert [value for *_, value in talk.switch.told] == ["queue:help"]


async def test_a_recogniser_that_never_comes_back_is_not_waited_for() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING), stt=lambda words: Hearing(words, takes_s=900), stays_s=60
    )
    assert await talk.run() == Outcome("failed", "menu", "MODEL_TIMEOUT")
    assert talk.lines[-1] == f"agent: {HOUSE.trouble_leaving}"


async def test_a_voice_that_never_comes_back_is_not_waited_for() -> None:
    talk = Dialogue(voice=Speaking(takes_s=900), stays_s=60)
    assert await talk.run() == Outcome("failed", "menu", "MODEL_TIMEOUT")
    assert why(talk) == ["MODEL_TIMEOUT", "MODEL_TIMEOUT"]


async def test_a_recogniser_that_fails_on_a_pause_that_was_none_does_no_harm() -> None:
    hearing: list[Hearing] = []

    def stt(words: Any) -> Hearing:
        hearing.append(Hearing(words, fails=ModelError("oom")))
        return hearing[0]

    def recovers(talk: Dialogue) -> None:
        hearing[0].fails = None

    talk = Dialogue(
        Says(1.0, 1.6, "When do"),
        Says(1.9, 2.6, "you open?"),
        Happens(2.0, recovers),
        answers={OPENING: ["We open at nine."]},
        stt=stt,
    )
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines[-1] == "agent: We open at nine."


async def test_a_language_model_that_fails_before_a_word_gives_the_call_to_a_person() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), answers={OPENING: [ModelError("oom")]}, stays_s=30)
    assert await talk.run() == Outcome("transferred", "dial:600", "technical trouble")
    assert talk.lines[-1] == f"agent: {HOUSE.trouble}"
    assert len(talk.llm.asked) == LimitSettings().llm_attempts


async def test_a_language_model_that_fails_in_mid_answer_too() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        answers={OPENING: ["We open at nine. And on ", ModelError("oom")]},
        stays_s=30,
    )
    assert (await talk.run()).result == "transferred"
    assert talk.lines[2:] == ["agent: We open at nine.", f"agent: {HOUSE.trouble}"]


async def test_a_model_that_fails_ahead_of_time_does_no_harm() -> None:
    llm = Thinking({OPENING: ["We open at nine."]}, fails_ahead=ModelError("oom"))
    talk = Dialogue(Says(1.0, 2.0, OPENING), llm=llm)
    await talk.run()
    assert talk.lines[-1] == "agent: We open at nine."


async def test_a_voice_that_fails_gives_the_call_to_the_fallback() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        answers={OPENING: ["We open at nine. We close at six."]},
        voice=Speaking(fails={"We close at six.": ModelError("no breath")}),
    )
    assert await talk.run() == Outcome("failed", "menu", "MODEL_FAILED")
    assert why(talk) == ["MODEL_FAILED"]
    assert [row.text for row in talk.book.transcripts][:3] == [
        "Hello.",
        OPENING,
        "We open at nine.",
    ]
    assert talk.book.transcripts[2].heard_ms is not None
    assert len(talk.book.turns) == 1


async def test_a_voice_that_cannot_greet_gives_the_call_to_the_fallback() -> None:
    talk = Dialogue(voice=Speaking(fails={"Hello.": ModelError("no breath")}))
    assert await talk.run() == Outcome("failed", "menu", "MODEL_FAILED")


@pytest.mark.parametrize("broken", ["stt", "llm", "voice"])
async def test_a_bug_ends_the_call_instead_of_leaving_it_in_silence(
    broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    bug = KeyError("bug")
    talk = Dialogue(
        Says(1.0, 2.0, OPENING),
        answers={OPENING: [bug if broken == "llm" else "We open at nine."]},
        stt=lambda words: Hearing(words, fails=bug if broken == "stt" else None),
        voice=Speaking(fails={"We open at nine.": bug} if broken == "voice" else {}),
        stays_s=30,
    )
    assert await talk.run() == Outcome("failed", "menu", "KeyError")
    assert why(talk) == ["KeyError"]
    assert "bug" in caplog.text and "never retrieved" not in caplog.text


async def test_a_promised_transfer_is_kept_though_it_cannot_be_announced() -> None:
    transfer = ToolCall("c1", "transfer_to_operator", {"target": "operator", "reason": "boss"})
    talk = Dialogue(
        Says(1.0, 2.0, "I need the boss"),
        answers={"I need the boss": [transfer]},
        voice=Speaking(fails={HOUSE.transferring: ModelError("no breath")}),
        stays_s=20,
    )
    assert await talk.run() == Outcome("transferred", "dial:600", "boss")
    assert why(talk) == ["MODEL_FAILED"]
