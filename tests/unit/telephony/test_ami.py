from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import AmiRefused, AmiUnavailable, LocalProtocolError
from engine.telephony.ami import AmiClient, OriginateResult
from engine.telephony.ami_wire import AmiWire, check_fields
from tests.peers.ami_server import Action, AmiServer, Link, message

T = TypeVar("T")
WAIT_S = 10.0


@pytest.fixture
async def server() -> AsyncIterator[AmiServer]:
    async with AmiServer() as server:
        yield server


@pytest.fixture
async def ami(server: AmiServer) -> AsyncIterator[AmiClient]:
    async with client(server) as ami:
        await ami.wait_connected(WAIT_S)
        yield ami


def client(server: AmiServer, *, ping_s: float = 60.0, timeout_s: float = 5.0) -> AmiClient:
    return AmiClient(
        "127.0.0.1", server.port, "engine", "s3cret", ping_s=ping_s, timeout_s=timeout_s
    )


def link_changes(ami: AmiClient) -> asyncio.Queue[bool]:
    changes: asyncio.Queue[bool] = asyncio.Queue()
    ami.on_link(changes.put_nowait)
    return changes


async def next_of(queue: asyncio.Queue[T]) -> T:
    return await asyncio.wait_for(queue.get(), WAIT_S)


# --- the faults of panoramisk 1.4, one by one (each was seen on a real Asterisk) -----------------


async def test_originate_is_always_asynchronous_and_a_queued_answer_keeps_the_link(
    server: AmiServer, ami: AmiClient
) -> None:
    async def queued(link: Link, action: Action) -> None:
        link.success(action, Message="Originate successfully queued")

    server.on("Originate", queued)
    server.on("Atxfer", queued)
    await ami.action("Originate", {"Channel": "PJSIP/7", "Application": "Echo"})
    await ami.action("Atxfer", {"Channel": "PJSIP/7", "Exten": "8"})
    assert (await server.received("Originate"))["Async"] == ["true"]
    await ami.action("Ping")
    assert ami.connected and server.logins == 1


async def test_a_failing_event_handler_hurts_neither_the_link_nor_the_next_handler(
    server: AmiServer, ami: AmiClient, caplog: pytest.LogCaptureFixture
) -> None:
    seen: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()

    def broken(event: Mapping[str, str]) -> None:
        raise ValueError("a bug of a subscriber")

    ami.on_event("Hangup", broken)
    ami.on_event("Hangup", seen.put_nowait)
    server.event("Hangup", Uniqueid="1.1", Cause="16")
    assert (await next_of(seen))["Cause"] == "16"
    await ami.action("Ping")
    assert server.logins == 1
    assert "AMI handler failed" in caplog.text


async def test_originate_response_is_an_event_for_handlers_and_not_part_of_the_answer(
    server: AmiServer, ami: AmiClient
) -> None:
    async def early(link: Link, action: Action) -> None:
        action_id = action["ActionID"][0]
        link.event("OriginateResponse", ActionID=action_id, Response="Failure", Reason="0")
        link.success(action, Message="Originate successfully queued")

    server.on("Originate", early)
    seen: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    ami.on_event("OriginateResponse", seen.put_nowait)
    answer = await ami.action("Originate", {"Channel": "PJSIP/7"})
    assert answer["Message"] == "Originate successfully queued"
    assert (await next_of(seen))["Response"] == "Failure"


async def test_an_action_that_lost_its_answer_is_never_sent_again(
    server: AmiServer, ami: AmiClient
) -> None:
    async def drop(link: Link, action: Action) -> None:
        link.drop()

    server.on("Originate", drop)
    changes = link_changes(ami)
    with pytest.raises(AmiUnavailable):
        await ami.originate("PJSIP/7", context="offhook-outbound", exten="7", variables={})
    assert await next_of(changes) is False
    assert await next_of(changes) is True
    await ami.action("Ping")  # whatever were replayed would have come before this
    assert server.logins == 2
    assert server.count()["Originate"] == 1


async def test_an_action_that_timed_out_is_never_sent_again(server: AmiServer) -> None:
    async def silent(link: Link, action: Action) -> None:
        pass

    server.on("Setvar", silent)
    async with client(server) as ami:
        await ami.wait_connected(WAIT_S)
        changes = link_changes(ami)
        with pytest.raises(AmiUnavailable, match="in time"):
            await ami.action("Setvar", {"Variable": "X", "Value": "1"}, timeout_s=0.01)
        server.drop()
        assert [await next_of(changes), await next_of(changes)] == [False, True]
        await ami.action("Ping")
        assert server.count()["Setvar"] == 1


async def test_a_frozen_asterisk_is_noticed_by_ping_and_left(server: AmiServer) -> None:
    async with client(server, ping_s=0.01, timeout_s=0.2) as ami:
        await ami.wait_connected(WAIT_S)
        changes = link_changes(ami)
        server.frozen = True
        assert await next_of(changes) is False
        assert not ami.connected
        server.frozen = False
        assert await next_of(changes) is True


async def test_a_refused_ping_makes_a_new_link(server: AmiServer) -> None:
    async def refuse(link: Link, action: Action) -> None:
        link.error(action, "Asterisk is shutting down")

    server.on("Ping", refuse)
    async with client(server, ping_s=0.01) as ami:
        await ami.wait_connected(WAIT_S)
        changes = link_changes(ami)
        assert [await next_of(changes), await next_of(changes)] == [False, True]


async def test_start_does_not_raise_while_asterisk_is_down_and_keeps_trying() -> None:
    server = AmiServer()
    await server.listen()
    await server.stop()
    async with client(server) as ami:
        with pytest.raises(AmiUnavailable, match="no AMI link to 127.0.0.1"):
            await ami.action("Ping")
        with pytest.raises(AmiUnavailable):
            await ami.wait_connected(0.05)
        await server.listen()
        await ami.wait_connected(WAIT_S)
        await ami.action("Ping")
    await server.stop()


async def test_link_is_made_again_after_asterisk_restarts(
    server: AmiServer, ami: AmiClient
) -> None:
    changes = link_changes(ami)
    await server.stop()
    assert await next_of(changes) is False
    await server.listen()
    assert await next_of(changes) is True
    await ami.action("Ping")


async def test_bytes_that_are_not_utf8_do_not_hurt_the_link(
    server: AmiServer, ami: AmiClient
) -> None:
    seen: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    ami.on_event("Newchannel", seen.put_nowait)
    server.send(b"Event: Newchannel\r\nCallerIDName: \xcf\xf0\xe8\r\nUniqueid: 1.1\r\n\r\n")
    event = await next_of(seen)
    assert event["Uniqueid"] == "1.1"
    assert set(event["CallerIDName"]) == {"\N{REPLACEMENT CHARACTER}"}
    await ami.action("Ping")


async def test_messages_survive_any_cut_into_chunks(server: AmiServer, ami: AmiClient) -> None:
    seen: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    ami.on_event("*", seen.put_nowait)
    await ami.action("Ping")
    while not seen.empty():
        seen.get_nowait()
    for byte in message({"Event": "Newchannel", "CallerIDName": "Олена \u0445\u00e0"}):
        server.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await next_of(seen))["CallerIDName"] == "Олена \u0445\u00e0"


async def test_an_empty_last_header_is_kept(server: AmiServer, ami: AmiClient) -> None:
    seen: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    ami.on_event("Newexten", seen.put_nowait)
    server.event("Newexten", Application="Answer", AppData="")
    assert await next_of(seen) == {"Event": "Newexten", "Application": "Answer", "AppData": ""}


async def test_a_repeated_message_header_does_not_hurt_the_link(
    server: AmiServer, ami: AmiClient
) -> None:
    async def twice(link: Link, action: Action) -> None:
        echo = f"ActionID: {action['ActionID'][0]}".encode()
        link.raw(b"Response: Success\r\n" + echo + b"\r\nMessage: one\r\nMessage: two\r\n\r\n")

    server.on("DBGet", twice)
    assert (await ami.action("DBGet"))["Message"] == "one\ntwo"
    await ami.action("Ping")
    assert server.logins == 1


async def test_panoramisk_writes_no_actions_to_the_log(
    server: AmiServer, ami: AmiClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def drop(link: Link, action: Action) -> None:
        link.drop()

    caplog.set_level(logging.DEBUG)
    server.on("Setvar", drop)
    await ami.action("Originate", {"Channel": "PJSIP/+15551234@trunk"})
    with pytest.raises(AmiUnavailable):
        await ami.action("Setvar", {"Variable": "X", "Value": "+15551234"})
    assert "15551234" not in caplog.text


# --- the client ----------------------------------------------------------------------------------


async def test_refusal_carries_asterisks_words(server: AmiServer, ami: AmiClient) -> None:
    async def refuse(link: Link, action: Action) -> None:
        link.error(action, "No such channel")

    server.on("Getvar", refuse)
    with pytest.raises(AmiRefused, match="No such channel"):
        await ami.get_variable("PJSIP/7-1", "OFFHOOK_NEXT")


async def test_wrong_secret_is_told_while_waiting(server: AmiServer) -> None:
    async with AmiClient("127.0.0.1", server.port, "engine", "wrong") as ami:
        await server.received("Login")
        with pytest.raises(AmiUnavailable, match="Authentication failed"):
            await ami.wait_connected(0.1)


async def test_helpers_send_what_asterisk_expects(server: AmiServer, ami: AmiClient) -> None:
    async def value(link: Link, action: Action) -> None:
        link.success(action, Variable=action["Variable"][0], Value="dial:600")

    async def output(link: Link, action: Action) -> None:
        echo = f"Response: Success\r\nActionID: {action['ActionID'][0]}\r\n"
        lines = "Message: Command output follows\r\nOutput: a: 1\r\nOutput: \r\nOutput:   b\r\n\r\n"
        link.raw((echo + lines).encode())

    server.on("Getvar", value)
    server.on("Command", output)
    await ami.set_variable("PJSIP/7-1", "OFFHOOK_NEXT", "dial:600")
    assert await ami.get_variable("PJSIP/7-1", "OFFHOOK_NEXT") == "dial:600"
    await ami.redirect("PJSIP/7-1", "from-internal", "600")
    await ami.hang_up("PJSIP/7-1", cause=17)
    assert await ami.command("core show version") == "a: 1\n\n  b"
    sent = {action["Action"][0]: action for action in server.actions}
    assert sent["Setvar"]["Value"] == ["dial:600"]
    assert (sent["Redirect"]["Context"], sent["Redirect"]["Priority"]) == (["from-internal"], ["1"])
    assert sent["Hangup"]["Cause"] == ["17"]


async def test_command_tells_what_the_console_says_about_a_failure(
    server: AmiServer, ami: AmiClient
) -> None:
    async def fail(link: Link, action: Action) -> None:
        if action["Command"] == ["module load x"]:
            link.error(action, "Command blacklisted")
            return
        echo = f"Response: Error\r\nActionID: {action['ActionID'][0]}\r\n"
        said = "Message: Command output follows\r\nOutput: There is no existence of 'x' context\r\n\r\n"
        link.raw((echo + said).encode())

    server.on("Command", fail)
    assert await ami.command("dialplan show x") == "There is no existence of 'x' context"
    with pytest.raises(AmiRefused, match="blacklisted"):
        await ami.command("module load x")


async def test_nothing_can_be_smuggled_into_an_action(server: AmiServer, ami: AmiClient) -> None:
    with pytest.raises(LocalProtocolError):
        await ami.set_variable("PJSIP/7", "X", "1\r\n\r\nAction: Originate\r\nChannel: PJSIP/8")
    with pytest.raises(LocalProtocolError):
        await ami.originate(
            "PJSIP/7", context="c", exten="1", variables={"A": "1\nAsync: false"}, caller_id="x"
        )
    with pytest.raises(LocalProtocolError):
        await ami.action("Setvar\r\nX: y")
    with pytest.raises(LocalProtocolError, match="1000"):
        await ami.set_variable("PJSIP/7", "X", "y" * 2000)  # Asterisk would drop it in silence
    await ami.action("Ping")
    assert set(server.count()) == {"Login", "Ping"}


async def test_unsubscribed_handlers_are_not_called(server: AmiServer, ami: AmiClient) -> None:
    first: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    second: asyncio.Queue[Mapping[str, str]] = asyncio.Queue()
    unsubscribe = ami.on_event("UserEvent", first.put_nowait)
    ami.on_event("userevent", second.put_nowait)
    unsubscribe()
    unsubscribe()
    server.event("UserEvent", UserEvent="OffhookMessage")
    await next_of(second)
    assert first.empty()


async def test_close_fails_actions_under_way(server: AmiServer, ami: AmiClient) -> None:
    async def silent(link: Link, action: Action) -> None:
        pass

    server.on("CoreStatus", silent)
    pending = asyncio.create_task(ami.action("CoreStatus"))
    await server.received("CoreStatus")
    await ami.close()
    with pytest.raises(AmiUnavailable):
        await pending
    assert not ami.connected
    await ami.close()


async def test_many_actions_at_once_get_their_own_answers(
    server: AmiServer, ami: AmiClient
) -> None:
    async def echo(link: Link, action: Action) -> None:
        link.success(action, Value=action["Variable"][0])

    server.on("Getvar", echo)
    names = [f"V{i}" for i in range(200)]
    assert await asyncio.gather(*(ami.get_variable("PJSIP/7", name) for name in names)) == names


# --- placing calls -------------------------------------------------------------------------------


def outcome(link: Link, action: Action, response: str, hangup: dict[str, str] | None) -> None:
    """What Asterisk 22 sends after an asynchronous Originate, `Reason` useless as ever."""
    ours = {"Uniqueid": action["ChannelId"][0]}
    link.success(action, Message="Originate successfully queued")
    if hangup is not None:
        link.event("Newchannel", Channel="PJSIP/7-00000001", **ours)
        link.event("Hangup", Channel="PJSIP/8-00000009", Uniqueid="17.1", Cause="16")
        link.event("Hangup", Channel="PJSIP/7-00000001", **ours, **hangup)
    action_id = action["ActionID"][0]
    link.event("OriginateResponse", ActionID=action_id, Response=response, Reason="0")


@pytest.mark.parametrize(
    ("hangup", "expected"),
    [
        ({"Cause": "17", "TechCause": "SIP 486 Busy here"}, (17, "SIP 486 Busy here")),
        ({"Cause": "19"}, (19, "")),
        (None, (0, "")),
    ],
)
async def test_the_cause_of_a_failed_call_comes_from_its_hangup(
    server: AmiServer,
    ami: AmiClient,
    hangup: dict[str, str] | None,
    expected: tuple[int, str],
) -> None:
    async def fail(link: Link, action: Action) -> None:
        outcome(link, action, "Failure", hangup)

    server.on("Originate", fail)
    result = await ami.originate("PJSIP/7", context="offhook-outbound", exten="7", variables={})
    assert not result.answered
    assert (result.cause, result.tech_cause) == expected


async def test_an_answered_call_and_what_was_sent_for_it(server: AmiServer, ami: AmiClient) -> None:
    async def answered(link: Link, action: Action) -> None:
        outcome(link, action, "Success", None)

    server.on("Originate", answered)
    result = await ami.originate(
        "PJSIP/7@trunk",
        context="offhook-outbound",
        exten="7",
        variables={"OFFHOOK_JOB": "42", "NOTE": 'a,b "c" \\d'},
        caller_id="Shop <100>",
        timeout_s=20,
    )
    sent = await server.received("Originate")
    assert result == OriginateResult(sent["ChannelId"][0], answered=True)
    assert sent["Variable"] == ["OFFHOOK_JOB=42", 'NOTE=a\\,b \\"c\\" \\\\d']
    assert (sent["Timeout"], sent["CallerID"]) == (["20000"], ["Shop <100>"])


async def test_cancelling_a_call_hangs_it_up(server: AmiServer, ami: AmiClient) -> None:
    call = asyncio.create_task(
        ami.originate("PJSIP/7", context="offhook-outbound", exten="7", variables={})
    )
    sent = await server.received("Originate")
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    hangup = await asyncio.wait_for(server.received("Hangup"), WAIT_S)
    assert hangup["Channel"] == sent["ChannelId"]


# --- arithmetic of the wire ----------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=60)


@given(
    values=st.lists(texts, min_size=1, max_size=5),
    cuts=st.lists(st.integers(min_value=0, max_value=600), max_size=20),
)
def test_any_text_comes_through_any_cut(values: list[str], cuts: list[int]) -> None:
    async def feed() -> list[Mapping[str, str]]:
        events: list[Mapping[str, str]] = []
        wire = AmiWire(events.append)
        wire.connection_made(asyncio.Transport())
        stream = b"Asterisk Call Manager/11.0.0\r\n" + b"".join(
            message({"Event": "E", "Text": value}) for value in values
        )
        borders = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
        for start, end in zip(borders, borders[1:], strict=False):
            wire.data_received(stream[start:end])
        return events

    assert [event["Text"] for event in asyncio.run(feed())] == values


@given(st.text(max_size=40))
def test_no_accepted_field_ever_makes_a_second_line(value: str) -> None:
    try:
        check_fields("Setvar", {"Value": value})
    except LocalProtocolError:
        return
    assert len(f"Value: {value}".encode().split(b"\n")) == 1
    assert b"\r" not in value.encode()
