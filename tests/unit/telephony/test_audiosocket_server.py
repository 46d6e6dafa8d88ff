"""A server of ours on a real loopback socket; the test plays Asterisk."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from engine.aio import Channel
from engine.errors import LegClosed, LocalProtocolError
from engine.media.frame import Digit, Frame, silent_frame
from engine.telephony.admission import Admission
from engine.telephony.audiosocket_server import AudioSocketLeg, AudioSocketServer
from engine.telephony.leg import Leg

SPEECH = b"\x01\x02" * 160
BYE = b"\x00\x00\x00"


def audio(pcm: bytes = SPEECH, kind: int = 0x10) -> bytes:
    return struct.pack(">BH", kind, len(pcm)) + pcm


def hello(call_id: str) -> bytes:
    return b"\x01\x00\x10" + uuid.UUID(call_id).bytes


class House:
    """A server, the tickets it accepts and the legs it has handed out."""

    def __init__(self, identify_timeout_s: float = 2.0) -> None:
        self.tickets: Admission[str] = Admission()
        self.arrived: Channel[AudioSocketLeg] = Channel(100)
        self.on_leg: Callable[[AudioSocketLeg], Awaitable[None]] | None = None
        self.server: AudioSocketServer[str] = AudioSocketServer(
            "127.0.0.1",
            0,
            claim=self.tickets.claim,
            on_leg=self._serve,
            identify_timeout_s=identify_timeout_s,
        )
        self._stay = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, leg: AudioSocketLeg, ticket: str) -> None:
        assert ticket == "alice"
        self.arrived.offer(leg)
        await (self.on_leg(leg) if self.on_leg else self._stay.wait())

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._stay.set()
        await self.server.close()

    async def call(self, call_id: str | None = None) -> Asterisk:
        reader, writer = await self.dial()
        call_id = call_id or self.tickets.mint("alice")
        writer.write(hello(call_id))
        return Asterisk(reader, writer, call_id)

    async def connected(self) -> tuple[Asterisk, AudioSocketLeg]:
        asterisk = await self.call()
        return asterisk, await self.arrived.receive()


class Asterisk:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call_id: str
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.call_id = call_id

    def reset(self) -> None:
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    async def said(self) -> bytes:
        """All it is told until the end of the file."""
        async with asyncio.timeout(5):
            return await self.reader.read()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.server.start()
    yield house
    await house.close()


async def speech(leg: AudioSocketLeg, count: int = 1) -> list[Frame | Digit]:
    """What the caller did, without the silence around it."""
    heard: list[Frame | Digit] = []
    async with asyncio.timeout(5):
        async for item in leg.receive():
            if isinstance(item, Digit) or any(item.pcm):
                heard.append(item)
            if len(heard) == count:
                break
    return heard


async def ended(leg: AudioSocketLeg) -> None:
    async with asyncio.timeout(5):
        async for _ in leg.receive():
            pass


async def test_a_call(house: House) -> None:
    asterisk, leg = await house.connected()
    line: Leg = leg
    assert (line.call_id, line.rate, line.lead_frames) == (asterisk.call_id, 8000, 0)
    asterisk.writer.write(audio() + b"\x03\x00\x01#")
    frame, key = await speech(leg, 2)
    assert isinstance(frame, Frame) and (frame.pcm, frame.rate) == (SPEECH, 8000)
    assert isinstance(key, Digit) and key.key == "#"
    await leg.send(frame)
    assert await asterisk.reader.readexactly(323) == audio()
    await leg.flush()
    assert house.server.legs == {leg}
    await asterisk.close()
    await ended(leg)
    await leg.hang_up()
    assert leg.end_reason == "caller"
    assert not house.server.legs
    with pytest.raises(LegClosed):
        await leg.send(frame)


async def test_uuid_and_sound_in_crumbs(house: House) -> None:
    reader, writer = await house.dial()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in hello(house.tickets.mint("alice")) + audio(SPEECH[:160]) + audio(SPEECH[160:]):
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    leg = await house.arrived.receive()
    (frame,) = await speech(leg)
    assert isinstance(frame, Frame) and frame.pcm == SPEECH
    writer.close()


@pytest.mark.parametrize("size", [160, 480, 640, 960])
async def test_any_packet_size_becomes_20_ms(house: House, size: int) -> None:
    asterisk, leg = await house.connected()
    for _ in range(1920 // size):
        asterisk.writer.write(audio(b"\x05\x01" * (size // 2)))
    heard = await speech(leg, 6)
    assert [len(frame.pcm) for frame in heard if isinstance(frame, Frame)] == [320] * 6
    await asterisk.close()


async def test_64_kib_of_sound_at_once_keeps_the_newest_second(house: House) -> None:
    asterisk, leg = await house.connected()
    # 65534 bytes are 204 frames and some; the key tells when they were read.
    asterisk.writer.write(audio(b"\x05\x01" * 32767) + b"\x03\x00\x011")
    while not leg.dropped_in:  # noqa: ASYNC110  # there is nothing to wait for in a counter
        await asyncio.sleep(0)
    heard = await speech(leg, 50)
    assert leg.dropped_in == 204 + 1 - 50
    assert isinstance(heard[-1], Digit)
    await asterisk.close()


async def test_silence_is_made_while_asterisk_says_nothing(house: House) -> None:
    asterisk, leg = await house.connected()
    heard = []
    async for item in leg.receive():
        assert isinstance(item, Frame)
        heard.append(item)
        if len(heard) == 6:
            break
    assert all(frame.pcm == bytes(320) for frame in heard)
    steps = [after.at - before.at for before, after in zip(heard, heard[1:], strict=False)]
    assert steps == pytest.approx([0.02] * 5)
    await asterisk.close()


async def test_sound_at_another_rate_is_resampled(house: House) -> None:
    asterisk, leg = await house.connected()
    for _ in range(12):
        asterisk.writer.write(audio(b"\x00\x10" * 320, kind=0x12))
    heard = await speech(leg, 5)
    assert all(
        isinstance(item, Frame) and (item.rate, len(item.pcm)) == (8000, 320) for item in heard
    )
    await asterisk.close()


async def test_hanging_up_says_goodbye_and_waits_for_the_end(house: House) -> None:
    asterisk, leg = await house.connected()
    await leg.send(Frame(SPEECH, 8000, 0.0))
    hanging_up = asyncio.create_task(leg.hang_up())
    assert await asterisk.reader.readexactly(326) == audio() + BYE
    # Asterisk goes on talking for a moment; it is read and not answered, and nobody closes yet.
    for _ in range(200):
        asterisk.writer.write(audio())
    await asterisk.writer.drain()
    await ended(leg)
    assert not hanging_up.done() and not asterisk.reader.at_eof()
    with pytest.raises(LegClosed):
        await leg.send(Frame(SPEECH, 8000, 0.0))
    asterisk.writer.write_eof()
    assert await asterisk.said() == b""  # an end of file, not a reset
    await hanging_up
    await leg.hang_up()
    assert leg.end_reason == "engine"
    await asterisk.close()


async def test_who_does_not_close_after_goodbye_is_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.telephony.audiosocket_server.FAREWELL_S", 0.05)
    asterisk, leg = await house.connected()
    await leg.hang_up()
    assert await asterisk.said() == BYE
    await asterisk.close()


async def test_a_reset_is_a_normal_end(house: House, caplog: pytest.LogCaptureFixture) -> None:
    asterisk, leg = await house.connected()
    asterisk.reset()
    await ended(leg)
    assert leg.end_reason == "caller"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_asterisk_saying_goodbye_is_the_caller(house: House) -> None:
    asterisk, leg = await house.connected()
    asterisk.writer.write(BYE)
    await ended(leg)
    assert leg.end_reason == "caller"
    assert await asterisk.reader.readexactly(3) == BYE
    await asterisk.close()


@pytest.mark.parametrize(
    "garbage",
    [b"\x55", audio(b""), audio(bytes(321)), b"\x01\x00\x10" + bytes(16), b"\xff\x00\x01\x02"],
)
async def test_garbage_ends_that_leg_alone(house: House, garbage: bytes) -> None:
    good, good_leg = await house.connected()
    bad, bad_leg = await house.connected()
    bad.writer.write(garbage)
    await ended(bad_leg)
    assert bad_leg.end_reason == "protocol"
    bad.writer.write_eof()
    assert await bad.said() == BYE  # politely: a reset would drop the caller
    good.writer.write(audio())
    assert len(await speech(good_leg)) == 1
    for asterisk in (good, bad):
        await asterisk.close()


async def test_two_sockets_with_one_uuid(house: House) -> None:
    first, leg = await house.connected()
    second = await house.call(first.call_id)
    assert await second.reader.readexactly(3) == BYE
    second.writer.write_eof()
    assert await second.said() == b""
    assert house.server.refused == {"repeated": 1}
    first.writer.write(audio())
    assert len(await speech(leg)) == 1
    for asterisk in (first, second):
        await asterisk.close()


async def test_an_unknown_uuid_is_refused_politely(house: House) -> None:
    asterisk = await house.call(str(uuid.uuid4()))
    asterisk.writer.write(audio() * 20)
    assert await asterisk.reader.readexactly(3) == BYE
    asterisk.writer.write_eof()
    assert await asterisk.said() == b""
    assert house.server.refused == {"unknown": 1} and not house.server.legs
    await asterisk.close()


async def test_a_claim_that_fails_is_a_refusal() -> None:
    def claim(call_id: str) -> str:
        raise RuntimeError(call_id)

    async def on_leg(leg: AudioSocketLeg, ticket: str) -> None:
        raise AssertionError

    server = AudioSocketServer("127.0.0.1", 0, claim=claim, on_leg=on_leg)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(hello(str(uuid.uuid4())))
    assert await reader.readexactly(3) == BYE
    writer.close()
    await server.close()
    assert server.refused == {"error": 1}


async def test_garbage_instead_of_a_uuid(house: House) -> None:
    reader, writer = await house.dial()
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    assert await reader.readexactly(3) == BYE
    writer.close()
    assert house.server.refused == {"protocol": 1}


async def test_a_socket_that_never_speaks_is_closed() -> None:
    house = House(identify_timeout_s=0.05)
    await house.server.start()
    reader, writer = await house.dial()
    assert await reader.read() == b""
    assert house.server.refused == {"silent": 1}
    await house.close()


async def test_an_unanswered_channel_leaves_without_a_word(house: House) -> None:
    _, writer = await house.dial()
    writer.close()
    await writer.wait_closed()
    asterisk, _ = await house.connected()
    assert not house.server.refused
    await asterisk.close()


async def test_who_never_reads_costs_nothing_and_stalls_nobody(house: House) -> None:
    deaf, deaf_leg = await house.connected()
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line = deaf_leg._line
    # First the buffers on the way fill, then frames are dropped.
    while deaf_leg.dropped_out < 1000:
        await deaf_leg.send(Frame(SPEECH, 8000, 0.0))
        if line._transport.get_write_buffer_size():
            await asyncio.sleep(0)
    assert line._transport.get_write_buffer_size() < 20_000
    good, good_leg = await house.connected()
    await good_leg.send(Frame(SPEECH, 8000, 0.0))
    assert await good.reader.readexactly(323) == audio()
    deaf.reset()
    await ended(deaf_leg)
    await good.close()


async def test_who_left_without_reading_does_not_linger(house: House) -> None:
    asterisk, leg = await house.connected()
    asterisk.writer.transport.pause_reading()  # type: ignore[attr-defined]
    while not leg._line._transport.get_write_buffer_size():
        await leg.send(Frame(SPEECH, 8000, 0.0))
    asterisk.writer.write_eof()
    async with asyncio.timeout(5):
        await leg._line.gone.wait()
    assert leg.end_reason == "caller"
    asterisk.reset()


@pytest.mark.parametrize(
    "frame", [Frame(b"", 8000, 0), Frame(bytes(321), 8000, 0), silent_frame(16000, 0)]
)
async def test_a_frame_that_is_not_20_ms_is_our_fault(house: House, frame: Frame) -> None:
    asterisk, leg = await house.connected()
    with pytest.raises(LocalProtocolError):
        await leg.send(frame)
    await asterisk.close()


async def test_a_failing_call_is_logged_and_hung_up(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(leg: AudioSocketLeg) -> None:
        raise RuntimeError("no mind")

    house.on_leg = fail
    asterisk = await house.call()
    assert await asterisk.reader.readexactly(3) == BYE
    asterisk.writer.write_eof()
    await asterisk.said()
    assert "no mind" in caplog.text
    await asterisk.close()


async def test_a_call_that_is_served_is_hung_up(house: House) -> None:
    async def serve(leg: AudioSocketLeg) -> None:
        await leg.send(Frame(SPEECH, 8000, 0.0))

    house.on_leg = serve
    asterisk = await house.call()
    assert await asterisk.reader.readexactly(326) == audio() + BYE
    await asterisk.close()


async def test_closing_hangs_up_and_waits() -> None:
    house = House()
    done = []

    async def serve(leg: AudioSocketLeg) -> None:
        await ended(leg)
        await asyncio.sleep(0.01)
        done.append(leg.end_reason)

    house.on_leg = serve
    await house.server.start()
    asterisk, _ = await house.connected()
    unidentified, writer = await house.dial()
    port = house.server.port
    closing = asyncio.create_task(house.server.close())
    assert await asterisk.reader.readexactly(3) == BYE
    await asterisk.close()
    assert await unidentified.readexactly(3) == BYE
    writer.close()
    await closing
    await house.server.close()
    assert done == ["engine"]
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_closing_cancels_who_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.telephony.reception.GRACE_S", 0.05)
    house = House()
    await house.server.start()
    asterisk, leg = await house.connected()
    closing = asyncio.create_task(house.server.close())
    assert await asterisk.reader.readexactly(3) == BYE
    await asterisk.close()
    await closing
    assert leg.end_reason == "engine" and not house.server.legs


async def test_fifty_calls_come_and_go(house: House) -> None:
    async def echo(leg: AudioSocketLeg) -> None:
        (frame,) = await speech(leg)
        assert isinstance(frame, Frame)
        await leg.send(frame)

    house.on_leg = echo

    async def one() -> bytes:
        asterisk = await house.call()
        asterisk.writer.write(audio())
        heard = await asterisk.reader.readexactly(326)
        await asterisk.close()
        return heard

    assert set(await asyncio.gather(*(one() for _ in range(50)))) == {audio() + BYE}
