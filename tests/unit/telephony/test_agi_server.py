"""A server of ours on a real loopback socket; the test plays Asterisk."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping

import pytest

from engine.telephony.agi_server import AgiRequest, AgiServer

ENVIRONMENT = (
    "agi_network: yes\n"
    "agi_network_script: route?agent=reception&note=\n"
    "agi_request: agi://127.0.0.1:4573/route?agent=reception&note=\n"
    "agi_channel: PJSIP/alice-00000001\n"
    "agi_uniqueid: 1700000000.1\n"
    "agi_callerid: +15550100\n"
    "agi_calleridname: Zoë\n"
    "agi_context: from-phone\n"
    "agi_extension: 230\n"
    "agi_arg_1: one\n"
    "agi_arg_2: two words\n"
    "\n"
).encode()

ERROR = b'SET VARIABLE "OFFHOOK_STATUS" "ERROR"\n'


class House:
    """The server and what its `route` was asked and answers."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.asked: list[AgiRequest] = []
        self.answer: Mapping[str, str] | Exception = {"OFFHOOK_UUID": "x", "OFFHOOK_STATUS": "OK"}
        self.wait_for: asyncio.Event | None = None
        self.server = AgiServer("127.0.0.1", 0, route=self._route, timeout_s=timeout_s)
        self._writers: list[asyncio.StreamWriter] = []

    async def _route(self, request: AgiRequest) -> Mapping[str, str]:
        self.asked.append(request)
        if self.wait_for:
            await self.wait_for.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self._writers.append(writer)
        return reader, writer

    async def call(
        self, environment: bytes = ENVIRONMENT, reply: bytes = b"200 result=1\n"
    ) -> list[bytes]:
        """Play Asterisk's part; the commands that came, until the server closes."""
        reader, writer = await self.dial()
        writer.write(environment)
        commands = []
        async with asyncio.timeout(5):
            while command := await reader.readline():
                commands.append(command)
                writer.write(reply)
        writer.close()
        return commands

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await self.server.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.server.start()
    yield house
    await house.close()


async def test_a_call_is_routed(house: House) -> None:
    assert await house.call() == [
        b'SET VARIABLE "OFFHOOK_UUID" "x"\n',
        b'SET VARIABLE "OFFHOOK_STATUS" "OK"\n',
    ]
    (request,) = house.asked
    assert (request.called, request.caller_id, request.caller_name) == ("230", "+15550100", "Zoë")
    assert (request.channel, request.unique_id) == ("PJSIP/alice-00000001", "1700000000.1")
    assert (request.context, request.script) == ("from-phone", "route")
    assert request.query == {"agent": "reception", "note": ""}
    assert request.arguments == ("one", "two words")
    assert request.raw["agi_network"] == "yes"


async def test_what_asterisk_does_not_know_is_empty(house: House) -> None:
    await house.call(b"agi_callerid: unknown\nagi_calleridname: unknown\n\n")
    (request,) = house.asked
    assert (request.called, request.caller_id, request.caller_name) == ("", "", "")
    assert request.query == {} and request.arguments == ()


async def test_bytes_that_are_no_text_do_no_harm(house: House) -> None:
    await house.call(b'agi_calleridname: \xff\xfe\x00\x07\nagi_callerid: "1\\\n\n')
    assert house.asked[0].caller_name == "\ufffd\ufffd\x00\x07"


async def test_in_crumbs(house: House) -> None:
    reader, writer = await house.dial()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in ENVIRONMENT:
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await reader.readline() == b'SET VARIABLE "OFFHOOK_UUID" "x"\n'
    writer.close()


async def test_a_route_that_fails_sends_the_caller_to_the_fallback(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.answer = RuntimeError("no database")
    assert await house.call() == [ERROR]
    assert "no database" in caplog.text


async def test_a_route_that_takes_too_long() -> None:
    house = House(timeout_s=0.05)
    house.wait_for = asyncio.Event()
    await house.server.start()
    assert await house.call() == [ERROR]
    await house.close()


async def test_an_answer_that_cannot_be_written_is_not_half_written(house: House) -> None:
    house.answer = {"OFFHOOK_UUID": "x", "CALLERID(name)": "y"}
    assert await house.call() == [ERROR]


@pytest.mark.parametrize("reply", [b"510 Invalid\n", b"520-Usage:\nmore\n520 End\n", b"511 Dead\n"])
async def test_a_command_that_asterisk_refuses(house: House, reply: bytes) -> None:
    assert await house.call(reply=reply) == [b'SET VARIABLE "OFFHOOK_UUID" "x"\n', ERROR]


async def test_a_hangup_among_the_replies(house: House) -> None:
    assert len(await house.call(reply=b"HANGUP\n200 result=1\n")) == 2


async def test_who_connects_and_leaves_does_no_harm(house: House) -> None:
    for _ in range(20):
        _, writer = await house.dial()
        writer.close()
        await writer.wait_closed()
    assert len(await house.call()) == 2
    assert len(house.asked) == 1


async def test_who_leaves_in_the_middle_or_by_reset(house: House) -> None:
    for wire in (ENVIRONMENT[:50], ENVIRONMENT):
        _, writer = await house.dial()
        writer.write(wire)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    assert len(await house.call()) == 2


@pytest.mark.parametrize(
    "wire",
    [b"GET / HTTP/1.1\r\n\r\n", b"x" * 20_000, b"agi_a: b\n" * 2, b"\n", b"\xff" * 50 + b"\n"],
)
async def test_garbage_ends_that_connection_alone(house: House, wire: bytes) -> None:
    assert await house.call(wire) == []
    assert house.asked == []
    assert len(await house.call()) == 2


async def test_an_address_with_too_many_parameters(house: House) -> None:
    fields = "&".join(f"a{n}=1" for n in range(200)).encode()
    assert await house.call(b"agi_network_script: route?" + fields + b"\n\n") == []
    assert house.asked == []


async def test_garbage_instead_of_a_reply(house: House) -> None:
    assert len(await house.call(reply=b"what?\n")) == 1


async def test_who_never_speaks_is_closed() -> None:
    house = House(timeout_s=0.05)
    await house.server.start()
    reader, _ = await house.dial()
    assert await reader.read() == b""
    await house.close()


async def test_who_never_answers_is_closed() -> None:
    house = House(timeout_s=0.05)
    await house.server.start()
    assert len(await house.call(reply=b"")) == 1
    await house.close()


async def test_who_never_closes_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.telephony.agi_server.FAREWELL_S", 0.05)
    house = House()
    await house.server.start()
    reader, writer = await house.dial()
    writer.write(ENVIRONMENT)
    for _ in range(2):
        await reader.readline()
        writer.write(b"200 result=1\n")
    assert await reader.read() == b""
    await house.server.close()
    await house.close()


async def test_closing_answers_what_is_under_way(house: House) -> None:
    house.wait_for = asyncio.Event()
    call = asyncio.create_task(house.call())
    while not house.asked:  # noqa: ASYNC110  # the list is all there is to look at
        await asyncio.sleep(0)
    closing = asyncio.create_task(house.server.close())
    await asyncio.sleep(0)
    house.wait_for.set()
    assert len(await call) == 2
    await closing
    await house.server.close()


async def test_closing_does_not_wait_for_ever(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.telephony.agi_server.GRACE_S", 0.05)
    house.wait_for = asyncio.Event()
    call = asyncio.create_task(house.call())
    while not house.asked:  # noqa: ASYNC110  # the list is all there is to look at
        await asyncio.sleep(0)
    await house.server.close()
    assert await call == []
