from __future__ import annotations

import logging

import pytest

from engine.calls.handoff import Handoff
from engine.calls.state import Outcome
from engine.errors import AmiRefused, AmiUnavailable


class Ami:
    def __init__(self, error: Exception | None = None) -> None:
        self.set: list[tuple[str, str, str]] = []
        self._error = error

    async def set_variable(self, channel: str, name: str, value: str) -> None:
        if self._error is not None:
            raise self._error
        self.set.append((channel, name, value))


@pytest.mark.parametrize("result", ["completed", "transferred", "silence", "limit", "failed"])
async def test_the_dialplan_is_told_its_next_step(result: str) -> None:
    ami = Ami()
    assert await Handoff(ami).decide("SIP/1", Outcome(result, "dial:600"))
    assert ami.set == [("SIP/1", "OFFHOOK_NEXT", "dial:600")]


async def test_there_is_nothing_to_tell_when_the_caller_is_gone() -> None:
    ami = Ami()
    assert not await Handoff(ami).decide("SIP/1", Outcome("caller_hangup"))
    assert not await Handoff(ami).decide("", Outcome("completed"))
    assert not await Handoff(None).decide("SIP/1", Outcome("completed"))
    assert ami.set == []


@pytest.mark.parametrize("error", [AmiUnavailable("down"), AmiRefused("no such channel")])
async def test_without_asterisk_the_fallback_stands(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert not await Handoff(Ami(error)).decide("SIP/1", Outcome("completed"))
    assert "could not be told its next step" in caplog.text
