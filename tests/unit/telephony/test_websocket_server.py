"""A server of ours on a real loopback socket; the test plays Asterisk's chan_websocket."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from engine.aio import Channel
from engine.errors import LegClosed, LocalProtocolError
from engine.media.frame import Digit, Frame, silent_frame
from engine.telephony.admission import Admission
from engine.telephony.leg import Leg
from engine.telephony.websocket_server import WebSocketLeg, WebSocketServer

SPEECH = b"\x01\x02" * 320
START = "MEDIA_START connection_id:c channel:WebSocket/offhook-1 channel_id:1.1 format:slin16 optimal_frame_size:640 ptime:20"


class House:
    """A server, the tickets it accepts, the legs it has handed out, and a client to call it with."""

    def __init__(self, identify_timeout_s: float = 2.0) -> None:
        self.tickets: Admission[str] = Admission()
        self.arrived: Channel[WebSocketLeg] = Channel(100)
        self.on_leg: Callable[[WebSocketLeg], Awaitable[None]] | None = None
        self.server: WebSocketServer[str] = WebSocketServer(
            "127.0.0.1",
            0,
            claim=self.tickets.claim,
            on_leg=self._serve,
            identify_timeout_s=identify_timeout_s,
        )
        self._stay = asyncio.Event()
        self._client: ClientSession

    async def _serve(self, leg: WebSocketLeg, ticket: str) -> None:
        assert ticket == "alice"
        self.arrived.offer(leg)
        await (self.on_leg(leg) if self.on_leg else self._stay.wait())

    async def start(self) -> None:
        await self.server.start()
        self._client = ClientSession()

    async def close(self) -> None:
        self._stay.set()
        await self._client.close()
        await self.server.close()

    async def dial(self, sid: str | None = None) -> ClientWebSocketResponse:
        query = f"?sid={sid}" if sid else ""
        return await self._client.ws_connect(
            f"http://127.0.0.1:{self.server.port}/media{query}",
            protocols=("media",),
            autoclose=False,
        )

    async def connected(self) -> tuple[ClientWebSocketResponse, WebSocketLeg]:
        asterisk = await self.dial(self.tickets.mint("alice"))
        await asterisk.send_str(START)
        return asterisk, await self.arrived.receive()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.start()
    yield house
    await house.close()


async def speech(leg: WebSocketLeg, count: int = 1) -> list[Frame | Digit]:
    """What the caller did, without the silence around it."""
    heard: list[Frame | Digit] = []
    async with asyncio.timeout(5):
        async for item in leg.receive():
            if isinstance(item, Digit) or any(item.pcm):
                heard.append(item)
            if len(heard) == count:
                break
    return heard


async def ended(leg: WebSocketLeg) -> None:
    async with asyncio.timeout(5):
        async for _ in leg.receive():
            pass


async def test_a_call(house: House) -> None:
    call_id = house.tickets.mint("alice")
    asterisk = await house.dial(call_id.upper())
    assert asterisk.protocol == "media"
    await asterisk.send_str(START)
    leg = await house.arrived.receive()
    line: Leg = leg
    assert (line.call_id, line.rate, line.lead_frames) == (call_id, 16000, 3)
    await asterisk.send_bytes(SPEECH)
    await asterisk.send_str("DTMF_END digit:5 channel_id:1.1")
    frame, key = await speech(leg, 2)
    assert isinstance(frame, Frame) and (frame.pcm, frame.rate) == (SPEECH, 16000)
    assert isinstance(key, Digit) and key.key == "5"
    await leg.send(frame)
    assert await asterisk.receive_bytes(timeout=5) == SPEECH
    await leg.flush()
    assert await asterisk.receive_str(timeout=5) == "FLUSH_MEDIA"
    assert house.server.legs == {leg}
    await asterisk.close()
    await ended(leg)
    await leg.hang_up()
    assert leg.end_reason == "caller"
    assert not house.server.legs
    with pytest.raises(LegClosed):
        await leg.send(frame)
    with pytest.raises(LegClosed):
        await leg.flush()


async def test_json_and_a_channel_variable(house: House) -> None:
    call_id = house.tickets.mint("alice")
    asterisk = await house.dial()
    variables = {"_OFFHOOK_UUID": call_id}
    await asterisk.send_str(
        json.dumps({"event": "MEDIA_START", "format": "slin", "channel_variables": variables})
    )
    leg = await house.arrived.receive()
    assert (leg.call_id, leg.rate) == (call_id, 8000)
    await leg.flush()
    assert await asterisk.receive_json(timeout=5) == {"command": "FLUSH_MEDIA"}
    await asterisk.close()


async def test_hanging_up_waits_for_asterisk(house: House) -> None:
    asterisk, leg = await house.connected()
    hanging_up = asyncio.create_task(leg.hang_up())
    assert await asterisk.receive_str(timeout=5) == "HANGUP"
    await asterisk.send_bytes(SPEECH)
    await asterisk.send_bytes(b"odd")
    await ended(leg)
    assert not hanging_up.done()
    await asterisk.close()
    await hanging_up
    await leg.hang_up()
    assert leg.end_reason == "engine"


async def test_who_does_not_close_after_goodbye_is_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.telephony.websocket_server.FAREWELL_S", 0.05)
    asterisk, leg = await house.connected()
    await leg.hang_up()
    assert leg.end_reason == "engine"
    await asterisk.close()


async def test_a_torn_connection_is_a_normal_end(house: House) -> None:
    asterisk, leg = await house.connected()
    connection = asterisk._response.connection
    assert connection is not None and connection.transport is not None
    connection.transport.abort()
    await ended(leg)
    await leg.hang_up()
    assert leg.end_reason == "caller"


async def test_xoff_drops_and_xon_resumes(house: House) -> None:
    asterisk, leg = await house.connected()
    await asterisk.send_str("MEDIA_XOFF")
    await asterisk.send_str("DTMF_END digit:1")  # tells when the first was read
    await speech(leg)
    for _ in range(3):
        await leg.send(Frame(SPEECH, 16000, 0.0))
    assert leg.dropped_out == 3
    await asterisk.send_str("MEDIA_XON")
    await asterisk.send_str("DTMF_END digit:2")
    await speech(leg)
    await leg.send(Frame(bytes(640), 16000, 0.0))
    assert await asterisk.receive_bytes(timeout=5) == bytes(640)
    assert leg.dropped_out == 3
    await asterisk.close()


async def test_two_connections_with_one_uuid(house: House) -> None:
    first, leg = await house.connected()
    second = await house.dial(leg.call_id)
    await second.send_str(START)
    assert await second.receive_str(timeout=5) == "HANGUP"
    await second.close()
    assert house.server.refused == {"repeated": 1}
    await first.send_bytes(SPEECH)
    assert len(await speech(leg)) == 1
    await first.close()


@pytest.mark.parametrize("sid", [None, str(uuid.uuid4()), "nonsense"])
async def test_strangers_are_refused_politely(house: House, sid: str | None) -> None:
    asterisk = await house.dial(sid)
    await asterisk.send_str(START)
    assert await asterisk.receive_str(timeout=5) == "HANGUP"
    await asterisk.close()
    assert house.server.refused == {"unknown": 1}
    assert not house.server.legs


async def test_who_never_speaks_is_closed() -> None:
    house = House(identify_timeout_s=0.05)
    await house.start()
    asterisk = await house.dial(house.tickets.mint("alice"))
    assert (await asterisk.receive(timeout=5)).type is WSMsgType.CLOSE
    assert house.server.refused == {"silent": 1}
    await asterisk.close()
    await house.close()


async def test_who_leaves_without_a_word(house: House) -> None:
    asterisk = await house.dial(house.tickets.mint("alice"))
    await asterisk.close()
    assert not house.server.refused


@pytest.mark.parametrize("message", [SPEECH, "hello", "{", "MEDIA_START format:ulaw"])
async def test_garbage_instead_of_media_start(house: House, message: str | bytes) -> None:
    asterisk = await house.dial(house.tickets.mint("alice"))
    await (asterisk.send_str(message) if isinstance(message, str) else asterisk.send_bytes(message))
    said = await asterisk.receive_str(timeout=5)
    assert "HANGUP" in said
    await asterisk.close()
    assert house.server.refused == {"protocol": 1}


@pytest.mark.parametrize("message", [b"odd", b"", START, "DTMF_END"])
async def test_garbage_ends_that_leg_alone(house: House, message: str | bytes) -> None:
    good, good_leg = await house.connected()
    bad, bad_leg = await house.connected()
    await (bad.send_str(message) if isinstance(message, str) else bad.send_bytes(message))
    await ended(bad_leg)
    assert bad_leg.end_reason == "protocol"
    assert await bad.receive_str(timeout=5) == "HANGUP"
    await good.send_bytes(SPEECH)
    assert len(await speech(good_leg)) == 1
    await bad.close()
    await good.close()


async def test_a_message_too_big_ends_the_leg(house: House) -> None:
    asterisk, leg = await house.connected()
    await asterisk.send_bytes(bytes(100_000))
    await ended(leg)
    assert leg.end_reason == "protocol"
    await asterisk.close()


async def test_who_never_reads_costs_nothing(house: House) -> None:
    deaf, leg = await house.connected()
    connection = deaf._response.connection
    assert connection is not None and connection.transport is not None
    connection.transport.pause_reading()
    frame = Frame(SPEECH, 16000, 0.0)
    transport = leg._line._transport
    async with asyncio.timeout(10):
        while leg.dropped_out < 1000:
            await leg.send(frame)
            if transport.get_write_buffer_size():
                await asyncio.sleep(0)
    assert transport.get_write_buffer_size() < 20_000
    connection.transport.abort()
    await ended(leg)


@pytest.mark.parametrize("frame", [Frame(bytes(641), 16000, 0), silent_frame(8000, 0)])
async def test_a_frame_that_is_not_20_ms_is_our_fault(house: House, frame: Frame) -> None:
    asterisk, leg = await house.connected()
    with pytest.raises(LocalProtocolError):
        await leg.send(frame)
    await asterisk.close()


async def test_a_failing_call_is_hung_up(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(leg: WebSocketLeg) -> None:
        raise RuntimeError("no mind")

    house.on_leg = fail
    asterisk = await house.dial(house.tickets.mint("alice"))
    await asterisk.send_str(START)
    assert await asterisk.receive_str(timeout=5) == "HANGUP"
    assert "no mind" in caplog.text
    await asterisk.close()


async def test_closing_hangs_up_and_waits() -> None:
    house = House()
    done = []

    async def serve(leg: WebSocketLeg) -> None:
        await ended(leg)
        done.append(leg.end_reason)

    house.on_leg = serve
    await house.start()
    asterisk, _ = await house.connected()
    unidentified = await house.dial()
    closing = asyncio.create_task(house.server.close())
    assert await asterisk.receive_str(timeout=5) == "HANGUP"
    await asterisk.close()
    assert await unidentified.receive_str(timeout=5) == "HANGUP"
    await unidentified.close()
    await closing
    await house.server.close()
    assert done == ["engine"]
    await house.close()


async def test_a_plain_request_is_an_error_of_http(house: House) -> None:
    async with ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{house.server.port}/media") as response:
            assert response.status == 400
        async with client.get(f"http://127.0.0.1:{house.server.port}/") as response:
            assert response.status == 404
