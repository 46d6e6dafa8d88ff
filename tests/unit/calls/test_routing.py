from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.calls.desk import Desk
from engine.calls.routing import Router
from engine.calls.state import CallTicket
from engine.config import Agent, RouteSettings, Settings
from engine.telephony.admission import Admission, Refused
from engine.telephony.agi_server import AgiRequest

AUDIO = "127.0.0.1:9092"


def agent(name: str, **changes: Any) -> Agent:
    values: dict[str, Any] = {"name": name, "languages": ("en",), "greeting": "Hi", "prompt": "x"}
    return Agent(id=name, **(values | changes))


def request(called: str = "700", *arguments: str, script: str = "") -> AgiRequest:
    raw = {
        "agi_network_script": script,
        "agi_extension": called,
        "agi_callerid": "+15550100",
        "agi_calleridname": "Ann",
        "agi_channel": "SIP/1",
    }
    raw |= {f"agi_arg_{n}": value for n, value in enumerate(arguments, 1)}
    return AgiRequest.from_environment(raw)


class House:
    """A router with its own clock; `lines` calls fit."""

    def __init__(self, *agents: Agent, lines: int = 2, **rules: RouteSettings) -> None:
        self.now = 0.0
        self.admission: Admission[CallTicket] = Admission(10.0, clock=lambda: self.now)
        self.desk = Desk(lines)
        self.router = Router(
            Settings(routes=tuple(rules.values())),
            {item.id: item for item in agents},
            self.admission,
            self.desk,
            AUDIO,
        )

    async def ask(
        self, called: str = "700", *arguments: str, script: str = ""
    ) -> Mapping[str, str]:
        return await self.router.route(request(called, *arguments, script=script))


def rule(number: str, agent: str, **changes: Any) -> RouteSettings:
    return RouteSettings(number=number, agent=agent, **changes)


async def test_a_call_gets_a_key_that_opens_once() -> None:
    house = House(agent("reception", fallback="queue:help"))
    told = await house.ask()
    assert list(told) == ["OFFHOOK_UUID", "OFFHOOK_AUDIO", "OFFHOOK_NEXT", "OFFHOOK_STATUS"]
    assert (told["OFFHOOK_STATUS"], told["OFFHOOK_AUDIO"]) == ("OK", AUDIO)
    assert told["OFFHOOK_NEXT"] == "queue:help"
    ticket = house.admission.claim(told["OFFHOOK_UUID"])
    assert ticket.agent.id == "reception" and ticket.fallback == "queue:help"
    assert (ticket.called, ticket.caller_id, ticket.caller_name) == ("700", "+15550100", "Ann")
    assert (ticket.channel, ticket.direction, ticket.record) == ("SIP/1", "inbound", False)
    with pytest.raises(Refused, match="repeated"):
        house.admission.claim(told["OFFHOOK_UUID"])


async def test_a_number_nobody_answers_is_unknown() -> None:
    house = House(agent("a"), agent("b"))
    assert await house.ask() == {"OFFHOOK_STATUS": "UNKNOWN", "OFFHOOK_NEXT": "menu"}
    house = House(agent("a"), only=rule("800", "a"))
    assert (await house.ask())["OFFHOOK_STATUS"] == "UNKNOWN"
    assert house.admission.pending == 0


async def test_the_exact_number_wins_over_the_longest_prefix() -> None:
    rules = {
        "any": rule("*", "d"),
        "seven": rule("7*", "a"),
        "exact": rule("700", "c"),
        "seventy": rule("70*", "b"),
    }
    house = House(*map(agent, "abcd"), lines=10, **rules)
    for called, wanted in (("700", "c"), ("701", "b"), ("71", "a"), ("70", "b"), ("1", "d")):
        told = await house.ask(called)
        assert house.admission.claim(told["OFFHOOK_UUID"]).agent.id == wanted


async def test_promised_calls_take_room_until_their_time_is_over() -> None:
    house = House(agent("a"), only=rule("700", "a", when_full="queue:wait"))
    assert [(await house.ask())["OFFHOOK_STATUS"] for _ in range(3)] == ["OK", "OK", "FULL"]
    assert await house.ask() == {"OFFHOOK_STATUS": "FULL", "OFFHOOK_NEXT": "queue:wait"}
    house.now = 10.1
    assert (await house.ask())["OFFHOOK_STATUS"] == "OK"


async def test_a_draining_engine_takes_nobody() -> None:
    house = House(agent("a"))
    house.desk.open = False
    assert await house.ask() == {"OFFHOOK_STATUS": "CLOSED", "OFFHOOK_NEXT": "menu"}


async def test_an_answered_call_of_ours_names_its_agent() -> None:
    house = House(agent("a"), agent("b", fallback="queue:help"))
    told = await house.ask("700", "agent=b", script="outbound")
    ticket = house.admission.claim(told["OFFHOOK_UUID"])
    assert (ticket.agent.id, ticket.direction) == ("b", "outbound")
    assert ticket.fallback == told["OFFHOOK_NEXT"] == "hangup", "who was called wants no menu"
    for arguments in ((), ("agent=",), ("agent=nobody",)):
        assert (await house.ask("700", *arguments, script="outbound"))[
            "OFFHOOK_STATUS"
        ] == "UNKNOWN"


@pytest.mark.parametrize(
    ("own", "by_rule", "notice", "recorded"),
    [
        (False, None, "", False),
        (True, None, "Recorded.", True),
        (True, False, "Recorded.", False),
        (False, True, "Recorded.", True),
        (False, True, "", False),
    ],
)
async def test_nobody_is_recorded_without_a_notice(
    own: bool, by_rule: bool | None, notice: str, recorded: bool
) -> None:
    house = House(
        agent("a", record=own, record_notice=notice), only=rule("700", "a", record=by_rule)
    )
    told = await house.ask()
    assert house.admission.claim(told["OFFHOOK_UUID"]).record is recorded
