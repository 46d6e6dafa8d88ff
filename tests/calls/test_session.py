"""One call, top to bottom: the record it leaves, and what the dialplan is told."""

from __future__ import annotations

import asyncio
import logging
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.calls.state import CallState, Outcome
from engine.errors import StorageError
from engine.media.frame import Digit, Frame
from tests.calls.dialogue import (
    CALL_ID,
    Book,
    Dialogue,
    HangsUp,
    Happens,
    Says,
    Switch,
    receptionist,
)
from tests.calls.models import Hearing, Speaking

OPENING = "When do you open?"
NOTICE = "This call is recorded."  # 1.1 s


def recorded(**changes: object) -> dict[str, object]:
    return {
        "agent": receptionist(record=True, record_notice=NOTICE, **changes),
        "ticket": {"record": True},
    }


async def test_the_record_is_opened_before_a_word_and_closed_with_the_outcome() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), ticket={"caller_name": "Ann"})
    await talk.run()
    opened = talk.book.started
    assert opened is not None
    assert (opened.id, opened.direction, opened.state) == (CALL_ID, "inbound", "starting")
    assert (opened.from_number, opened.to_number) == ("+15550100", "700")
    assert (opened.agent, opened.language, opened.channel) == ("reception", "en", "SIP/1")
    assert opened.agent_version == talk.agent.version
    assert talk.book.finished is not None
    outcome, reason, ended_at, next_step = talk.book.finished
    assert (outcome, reason, next_step) == ("caller_hangup", "", "hangup")
    assert ended_at >= opened.started_at
    assert talk.events[0].type == "call.started" and talk.events[-1].type == "call.finished"
    assert talk.llm.forgotten == [CALL_ID]
    assert talk.switch.told == [], "who hung up has no next step"


async def test_an_outbound_call_says_so() -> None:
    talk = Dialogue(ticket={"direction": "outbound"}, stays_s=1.0)
    await talk.run()
    assert talk.book.started is not None and talk.book.started.direction == "outbound"


async def test_a_record_book_that_does_not_answer_keeps_nobody_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    talk = Dialogue(book=Book(late=StorageError("down")), stays_s=2.0)
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines == ["agent: Hello."] and talk.book.finished is not None
    assert "the call's record is late" in caplog.text


async def test_a_call_without_a_record_book_is_a_call() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING))
    talk.session._store = talk.session._journal._store = None
    await talk.run()
    assert talk.lines[-1] == "agent: All right."


async def test_the_panel_is_told_who_talks_to_whom() -> None:
    seen: list[dict[str, object]] = []
    talk = Dialogue(Happens(0.5, lambda talk: seen.append(talk.session.snapshot())))
    await talk.run()
    assert seen == [
        {
            "id": CALL_ID,
            "agent": "reception",
            "called": "700",
            "caller": "+15550100",
            "direction": "inbound",
            "state": CallState.LISTENING.value,
            "since_ms": 500,
        }
    ]


async def test_a_call_is_logged_with_its_id_and_without_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "engine")
    await Dialogue(Says(1.0, 2.0, OPENING)).run()
    assert "open" not in caplog.text and "15550100" not in caplog.text


# --- Recording ---------------------------------------------------------------------------------


async def test_both_sides_are_recorded_and_the_file_is_whole(tmp_path: Path) -> None:
    talk = Dialogue(Says(2.0, 3.0, OPENING), recordings=tmp_path, **recorded())
    await talk.run()
    path = tmp_path / f"{CALL_ID}.wav"
    assert talk.session.recording == path and talk.book.recording == str(path)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, 8000)
        assert file.getnframes() / 8000 == pytest.approx(9.0, abs=0.1)


async def test_without_consent_to_record_there_is_no_file(tmp_path: Path) -> None:
    talk = Dialogue(recordings=tmp_path, agent=recorded()["agent"], stays_s=2.0)
    await talk.run()
    assert list(tmp_path.iterdir()) == [] and talk.session.recording is None
    assert talk.lines == ["agent: Hello."]


async def test_the_notice_is_heard_whatever_the_caller_says(tmp_path: Path) -> None:
    talk = Dialogue(
        Says(0.2, 0.9, "Hello hello"),
        Says(4.0, 5.0, OPENING),
        recordings=tmp_path,
        **recorded(greeting="Good day, how can I help you?"),
    )
    await talk.run()
    notice = talk.book.transcripts[0]
    assert (notice.text, notice.status) == (NOTICE, "heard")
    assert talk.lines[:3] == [
        f"agent: {NOTICE}",
        "agent: Good day, how can I help you?",
        f"caller: {OPENING}",
    ]


async def test_a_caller_who_speaks_before_the_notice_does_not_silence_it(tmp_path: Path) -> None:
    talk = Dialogue(
        Says(0.0, 0.3, "Hello?"),
        recordings=tmp_path,
        voice=Speaking(takes_s=0.8),
        **recorded(),
    )
    await talk.run()
    assert talk.lines[:2] == [f"agent: {NOTICE}", "agent: Hello."]


async def test_after_the_notice_the_greeting_can_be_interrupted(tmp_path: Path) -> None:
    talk = Dialogue(
        Says(2.0, 3.0, OPENING),
        recordings=tmp_path,
        **recorded(greeting="Good day, how can I help you today, sir or madam?"),
    )
    await talk.run()
    assert [row.status for row in talk.book.transcripts[:2]] == ["heard", "cut"]


# --- What breaks -------------------------------------------------------------------------------


async def test_a_line_that_breaks_is_a_failed_call() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING))

    async def receive() -> AsyncIterator[Frame | Digit]:
        await asyncio.sleep(0.5)
        raise ValueError("bug")
        yield

    talk.line.receive = receive  # type: ignore[method-assign]
    assert await talk.run() == Outcome("failed", "menu", "ValueError")
    assert [data["code"] for _, name, data in talk.book.events if name == "call.error"] == [
        "ValueError"
    ]
    assert [value for *_, value in talk.switch.told] == ["menu"]


@pytest.mark.parametrize("at", [0.3, 2.5, 3.5])
async def test_a_cancelled_call_still_tells_the_dialplan_and_closes_its_record(at: float) -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), switch=Switch(takes_s=1.0))
    before = asyncio.all_tasks()
    call = asyncio.create_task(talk.session.run())
    await asyncio.sleep(at)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [value for *_, value in talk.switch.told] == ["menu"]
    assert talk.book.finished is not None and talk.book.finished[:2] == ("failed", "CANCELLED")
    assert asyncio.all_tasks() == before


async def test_a_call_cancelled_while_it_ends_keeps_its_outcome() -> None:
    talk = Dialogue(Says(1.0, 1.6, "Goodbye"), switch=Switch(takes_s=2.0), stays_s=20)
    before = asyncio.all_tasks()
    call = asyncio.create_task(talk.session.run())
    await asyncio.sleep(4.5)
    assert talk.book.finished is None and talk.session.snapshot()["state"] == "ending"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert [value for *_, value in talk.switch.told] == ["hangup"]
    assert talk.book.finished is not None and talk.book.finished[0] == "completed"
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("at", [round(1.9 + n * 0.17, 2) for n in range(12)])
async def test_hanging_up_on_a_recogniser_that_is_still_at_work_leaves_nothing(at: float) -> None:
    talk = Dialogue(
        Says(1.0, 1.5, "When do"),
        Says(1.8, 2.4, "you open?"),
        HangsUp(at),
        stt=lambda words: Hearing(words, takes_s=1.5),
    )
    assert (await talk.run()).result == "caller_hangup"
