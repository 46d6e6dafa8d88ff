from __future__ import annotations

import uuid
from typing import Any

import pytest

from engine.telephony import admission
from engine.telephony.admission import Admission, Refused


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reason(tickets: Admission[Any], call_id: str) -> str:
    with pytest.raises(Refused) as refused:
        tickets.claim(call_id)
    return refused.value.reason


def test_a_minted_uuid_opens_once(clock: Clock) -> None:
    tickets: Admission[str] = Admission(clock=clock)
    call_id = tickets.mint("alice")
    assert str(uuid.UUID(call_id)) == call_id and uuid.UUID(call_id).version == 4
    assert tickets.claim(call_id.upper()) == "alice"
    assert reason(tickets, call_id) == "repeated"
    assert tickets.refused == {"repeated": 1}


def test_a_stranger(clock: Clock) -> None:
    tickets: Admission[str] = Admission(clock=clock)
    assert reason(tickets, str(uuid.uuid4())) == "unknown"
    assert reason(tickets, "") == "unknown"
    assert tickets.refused["unknown"] == 2


def test_too_late_before_and_after_it_was_reported(clock: Clock) -> None:
    tickets: Admission[str] = Admission(ttl_s=10, clock=clock)
    call_id = tickets.mint("alice")
    clock.now += 10
    assert tickets.abandoned() == []
    clock.now += 0.1
    assert reason(tickets, call_id) == "late"
    assert tickets.abandoned() == [(call_id, "alice")]
    assert tickets.abandoned() == []
    assert reason(tickets, call_id) == "late"


def test_a_claimed_ticket_is_not_abandoned(clock: Clock) -> None:
    tickets: Admission[str] = Admission(ttl_s=10, clock=clock)
    tickets.claim(tickets.mint("alice"))
    clock.now += 100
    assert tickets.abandoned() == []


def test_spent_uuids_are_forgotten(clock: Clock) -> None:
    tickets: Admission[str] = Admission(clock=clock)
    call_id = tickets.mint("alice")
    tickets.claim(call_id)
    clock.now += admission.REMEMBER_S
    assert reason(tickets, call_id) == "unknown"


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LIMIT", 3)
    tickets: Admission[int] = Admission(clock=clock)
    minted = [tickets.mint(number) for number in range(5)]
    assert [reason(tickets, call_id) for call_id in minted[:2]] == ["late", "late"]
    assert [tickets.claim(call_id) for call_id in minted[2:]] == [2, 3, 4]
    # The limit holds for what is remembered, too: the oldest two are no longer known.
    assert reason(tickets, minted[0]) == "unknown"
    assert reason(tickets, minted[4]) == "repeated"
