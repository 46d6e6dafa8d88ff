"""How calls end: goodbye, transfer, silence, a broken model, a drained engine, and a caller who is gone."""

from __future__ import annotations

from typing import Any

import pytest

from engine.calls.state import Outcome
from engine.config import LimitSettings, SilencePolicy, TransferTarget
from engine.dialog.llm.base import ToolCall
from engine.dialog.phrases import phrases
from engine.errors import AmiUnavailable
from tests.calls.dialogue import (
    Dialogue,
    HangsUp,
    Happens,
    Presses,
    Says,
    Switch,
    receptionist,
)
from tests.calls.models import Speaking

HOUSE = phrases("en")
OPENING = "When do you open?"
STORY = "We have sold tyres in this town for thirty years now."  # 2.65 s
PERSON = "I want to speak to a person"
SPOKEN = 0.05
"""Seconds a character takes the agent."""


def soon(at: float) -> Any:
    return pytest.approx(at, abs=0.061)


def heard_whole(talk: Dialogue, text: str) -> bool:
    row = talk.book.transcripts[-1]
    return (row.text, row.status) == (text, "heard")


# --- Goodbye -----------------------------------------------------------------------------------


async def test_the_call_ends_when_the_farewell_was_heard_to_its_end() -> None:
    talk = Dialogue(Says(1.0, 1.6, "Goodbye"), stays_s=20)
    assert await talk.run() == Outcome("completed", "hangup", "the caller said goodbye")
    assert heard_whole(talk, HOUSE.farewell)
    assert talk.ended_at == soon(talk.line.heard()[1][1])
    assert talk.switch.told == [(talk.ended_at, "SIP/1", "OFFHOOK_NEXT", "hangup")]
    assert talk.book.finished is not None
    assert talk.book.finished[0] == "completed" and talk.book.finished[3] == "hangup"


async def test_a_caller_who_interrupts_the_farewell_is_answered() -> None:
    talk = Dialogue(
        Says(1.0, 1.6, "Goodbye"),
        Says(2.4, 3.4, f"wait {OPENING}"),
        answers={f"wait {OPENING}": ["We open at nine."]},
    )
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines[-2:] == [f"caller: wait {OPENING}", "agent: We open at nine."]


async def test_a_caller_who_speaks_before_the_farewell_sounds_is_answered() -> None:
    talk = Dialogue(
        Says(1.0, 1.6, "Goodbye"),
        Says(2.02, 3.0, f"wait {OPENING}"),
        answers={f"wait {OPENING}": ["We open at nine."]},
        voice=Speaking(takes_s=0.5),
    )
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines[-1] == "agent: We open at nine."


async def test_okay_does_not_keep_a_caller_who_says_goodbye() -> None:
    talk = Dialogue(Says(1.0, 1.6, "Goodbye"), Says(2.6, 2.9, "okay"), stays_s=20)
    assert (await talk.run()).result == "completed"
    assert heard_whole(talk, HOUSE.farewell)


# --- Transfer ----------------------------------------------------------------------------------


async def test_a_transfer_is_announced_to_the_end_whatever_the_caller_says() -> None:
    talk = Dialogue(Says(1.0, 2.0, PERSON), Says(2.8, 4.0, "thank you so very much"), stays_s=20)
    assert await talk.run() == Outcome("transferred", "dial:600", "asked for a person")
    assert heard_whole(talk, HOUSE.transferring)
    assert talk.line.heard()[1][1] == soon(talk.ended_at)
    assert [value for *_, value in talk.switch.told] == ["dial:600"]


async def test_a_transfer_the_model_decides_in_mid_sentence_cannot_be_cut_either() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, "I need the boss"),
        # The words begin before the tool has run, and go on.
        Says(3.0, 4.5, "yes please do that now"),
        answers={
            "I need the boss": [
                "I will put you through to the workshop. ",
                0.7,
                ToolCall("c1", "transfer_to_operator", {"target": "operator", "reason": "boss"}),
            ]
        },
        stays_s=20,
    )
    assert (await talk.run()).next_step == "dial:600"
    assert heard_whole(talk, "I will put you through to the workshop.")


async def test_words_before_the_announcement_sounds_do_not_swallow_it() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, PERSON),
        Says(2.42, 2.9, "please"),
        voice=Speaking(takes_s=0.5),
        stays_s=20,
    )
    assert (await talk.run()).result == "transferred"
    assert heard_whole(talk, HOUSE.transferring)


async def test_a_caller_who_hangs_up_during_the_announcement_was_not_transferred() -> None:
    talk = Dialogue(Says(1.0, 2.0, PERSON), HangsUp(3.5))
    assert (await talk.run()).result == "caller_hangup"
    assert talk.book.transcripts[-1].status == "cut"
    assert talk.switch.told == []


async def test_a_queue_keeps_its_name() -> None:
    desk = TransferTarget(name="desk", to="queue:sales")
    talk = Dialogue(Says(1.0, 2.0, PERSON), agent=receptionist(transfers=(desk,)), stays_s=20)
    assert (await talk.run()).next_step == "queue:sales"


# --- Silence -----------------------------------------------------------------------------------

PATIENCE = SilencePolicy(reprompt_s=5, still_there_s=4, goodbye_s=3)


async def test_silence_is_asked_about_twice_and_then_ends_the_call() -> None:
    talk = Dialogue(agent=receptionist(silence=PATIENCE), stays_s=60)
    assert await talk.run() == Outcome("silence", "hangup")
    assert talk.lines[1:] == [
        f"agent: {HOUSE.reprompt}",
        f"agent: {HOUSE.still_there}",
        f"agent: {HOUSE.goodbye}",
    ]
    first, again, there, bye = talk.line.heard()
    assert again[0] == soon(first[1] + 5.1)
    assert there[0] == soon(again[1] + 4.1)
    assert bye[0] == soon(there[1] + 3.1)
    assert talk.ended_at == soon(bye[1])


async def test_a_caller_who_speaks_starts_the_ladder_anew() -> None:
    talk = Dialogue(
        Says(6.0, 7.0, OPENING),
        answers={OPENING: ["We open at nine."]},
        agent=receptionist(silence=PATIENCE),
        stays_s=9,
    )
    await talk.run()
    assert talk.lines[-2:] == ["agent: We open at nine.", f"agent: {HOUSE.reprompt}"]


async def test_a_key_starts_the_ladder_anew() -> None:
    talk = Dialogue(Presses(5.0, "5"), agent=receptionist(silence=PATIENCE), stays_s=4)
    await talk.run()
    assert f"agent: {HOUSE.reprompt}" not in talk.lines


async def test_a_caller_who_interrupts_the_last_goodbye_is_there_after_all() -> None:
    talk = Dialogue(
        Says(18.0, 19.0, OPENING),
        answers={OPENING: ["We open at nine."]},
        agent=receptionist(silence=PATIENCE),
        stays_s=4,
    )
    assert (await talk.run()).result == "caller_hangup"
    assert talk.lines[3].endswith("…")
    assert talk.lines[4:] == [f"caller: {OPENING}", "agent: We open at nine."]


async def test_noise_over_the_last_goodbye_does_not_make_the_call_endless() -> None:
    talk = Dialogue(Says(18.0, 19.5), agent=receptionist(silence=PATIENCE), stays_s=60)
    assert (await talk.run()).result == "silence"
    assert talk.lines[-1] == f"agent: {HOUSE.goodbye}"
    assert talk.ended_at < 50


# --- From outside ------------------------------------------------------------------------------


async def test_a_call_that_lasts_too_long_is_ended_politely() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), limits=LimitSettings(call_s=5), stays_s=60)
    assert await talk.run() == Outcome("limit", "hangup")
    assert heard_whole(talk, HOUSE.farewell)
    assert talk.ended_at == soon(5.1 + len(HOUSE.farewell) * SPOKEN)


async def test_a_drained_engine_says_goodbye_and_is_not_talked_out_of_it() -> None:
    talk = Dialogue(
        Happens(3.0, lambda talk: talk.session.end_politely("drained")),
        Says(3.5, 4.5, "one more question"),
        stays_s=60,
    )
    assert await talk.run() == Outcome("drained", "hangup")
    assert heard_whole(talk, HOUSE.farewell)


async def test_a_promised_transfer_is_kept_when_the_engine_drains() -> None:
    talk = Dialogue(
        Says(1.0, 2.0, PERSON),
        Happens(3.5, lambda talk: talk.session.end_politely("drained")),
        stays_s=60,
    )
    assert (await talk.run()).next_step == "dial:600"


# --- Hanging up --------------------------------------------------------------------------------

BUSY_CALL = (
    Says(1.0, 1.6, "When do"),
    Says(1.9, 2.6, "you open?"),
    Says(4.0, 4.4, "mhm"),
    Says(5.0, 6.5, "Please order one"),
    Presses(8.0, "12"),
    Says(12.0, 13.0, PERSON),
)


@pytest.mark.parametrize("at", [round(0.01 + n * 0.23, 2) for n in range(70)])
async def test_whenever_the_caller_hangs_up_nothing_is_left(at: float) -> None:
    talk = Dialogue(
        *(item for item in BUSY_CALL),
        HangsUp(at),
        answers={
            OPENING: [STORY],
            "Please order one": [ToolCall("c1", "collect_digits", {"prompt": "Which one?"})],
        },
    )
    outcome = await talk.run()
    assert talk.book.finished is not None and talk.book.finished[0] == outcome.result
    assert talk.llm.forgotten == [talk.session.call_id]
    statuses = {entry["status"] for entry in talk.session.ledger.to_json() if "status" in entry}
    assert statuses <= {"played", "cut", "unheard", "resumed"}


async def test_closing_twice_is_harmless() -> None:
    talk = Dialogue(Says(1.0, 2.0, OPENING), HangsUp(2.9), answers={OPENING: [STORY]})
    await talk.run()
    turns = list(talk.book.turns)
    await talk.session._talk.close()
    assert talk.book.turns == turns


async def test_nothing_begins_while_the_dialplan_is_being_told() -> None:
    # AMI is slow; the caller goes on talking on a line that is about to close.
    talk = Dialogue(
        Says(1.0, 2.0, PERSON),
        Says(5.0, 6.0, OPENING),
        Happens(5.5, lambda talk: talk.session.end_politely("drained")),
        Presses(5.2, "1#"),
        switch=Switch(takes_s=4.0),
        stays_s=30,
    )
    assert (await talk.run()).result == "transferred"
    assert talk.llm.asked == [] and talk.lines[-1] == f"agent: {HOUSE.transferring}"


async def test_without_ami_the_call_ends_all_the_same() -> None:
    talk = Dialogue(Says(1.0, 2.0, PERSON), switch=Switch(error=AmiUnavailable("down")), stays_s=20)
    assert (await talk.run()).result == "transferred"
    assert talk.book.finished is not None and talk.book.finished[3] == "dial:600"
