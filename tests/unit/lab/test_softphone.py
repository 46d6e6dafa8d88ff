"""Two phones call each other over real sockets, without an exchange in between."""

import asyncio

import numpy as np
import pytest

from engine.errors import LegClosed
from engine.lab import sip
from engine.lab.ports import free_media_port
from engine.lab.sip import Request
from engine.lab.softphone import CallFailed, PhoneCall, Softphone
from engine.lab.transactions import Address, SipTransport


def tone(seconds: float, hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * 8000)) / 8000
    return (8000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)


async def connected(caller: Softphone, callee: Softphone) -> tuple[PhoneCall, PhoneCall]:
    there = await caller.call(callee.contact)
    return there, await callee.incoming()


async def test_speech_goes_both_ways_and_times_agree() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here, there = await connected(anna, boris)
        played, _ = await asyncio.gather(here.play(tone(0.2)), there.play(tone(0.1, 1000)))
        await there.wait_for_silence(60)
        # Twenty-millisecond packets: the first and the last of ten.
        assert played.last_at > played.first_at
        assert len(there.heard_between(played.first_at, played.first_at + 0.2)) == 1600
        assert there.first_sound_after(played.first_at - 0.1) == pytest.approx(
            played.first_at, abs=0.1
        )
        assert here.first_sound_after(here.answered_at) is not None
        await here.hang_up()
        await there.ended.wait()
        assert (here.end_cause, there.end_cause) == ("local", "remote")
        assert len(here.heard()) == len(here.sent())


async def test_what_is_sent_is_what_is_heard() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here, there = await connected(anna, boris)
        await here.play(tone(0.3))
        await there.wait_for_silence(60)
        sent = np.concatenate([samples for _, samples in here.stream.sent.packets])
        heard = np.concatenate([samples for _, samples in there.stream.heard.packets])
        assert heard[: len(sent)].tolist() == sent[: len(heard)].tolist()
        assert abs(int(heard.max())) > 7000


async def test_keys_arrive_once_each_and_in_order() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here, there = await connected(anna, boris)
        await here.send_dtmf("0*7#7", press_ms=40)
        assert [digit.key for digit in there.digits] == ["0", "*", "7", "#", "7"]


async def test_a_muted_phone_sends_only_what_it_plays() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here = await anna.call(boris.contact, muted_rtp=True)
        there = await boris.incoming()
        await there.play(tone(0.1))
        assert there.stream.heard.packets == []
        await here.play(tone(0.06))
        await there.wait_for_silence(40)
        assert len(there.stream.heard.packets) == 3


async def test_the_callee_hangs_up_while_the_caller_speaks() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here, there = await connected(anna, boris)
        speaking = asyncio.create_task(here.play(tone(10)))
        await there.wait_for_sound()
        await there.hang_up()
        with pytest.raises(LegClosed):
            await speaking
        assert here.end_cause == "remote"
        with pytest.raises(LegClosed):
            await here.play(tone(0.1))
        with pytest.raises(LegClosed):
            await here.wait_for_sound()
        await here.hang_up()


async def test_a_cancelled_sound_stops() -> None:
    async with Softphone("anna") as anna, Softphone("boris", auto_answer=True) as boris:
        here, there = await connected(anna, boris)
        speaking = asyncio.create_task(here.play(tone(10)))
        await there.wait_for_sound()
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        silent_since = await there.wait_for_silence(100, timeout=5)
        assert there.last_sound_between(there.answered_at, silent_since) is not None


@pytest.mark.parametrize("status", [486, 480, 603])
async def test_a_refused_call(status: int) -> None:
    async with Softphone("anna") as anna, Softphone("boris") as boris:
        calling = asyncio.create_task(anna.call(boris.contact))
        ringing = await boris.incoming()
        ringing.refuse(status)
        with pytest.raises(CallFailed) as caught:
            await calling
        assert caught.value.status == status
        assert ringing.end_cause == "refused"


async def test_a_call_that_rings_is_answered() -> None:
    async with Softphone("anna") as anna, Softphone("boris") as boris:
        calling = asyncio.create_task(anna.call(boris.contact))
        ringing = await boris.incoming()
        assert ringing.answered_at == 0
        assert "<sip:anna@" in ringing.remote
        ringing.answer()
        call = await calling
        await ringing.hang_up()
        await call.ended.wait()


async def test_the_caller_gives_up() -> None:
    async with Softphone("anna") as anna, Softphone("boris") as boris:
        calling = asyncio.create_task(anna.call(boris.contact))
        ringing = await boris.incoming()
        calling.cancel()
        await ringing.ended.wait()
        assert ringing.end_cause == "cancelled"
        with pytest.raises(asyncio.CancelledError):
            await calling
        with pytest.raises(LegClosed):
            ringing.answer()


async def test_nobody_answers() -> None:
    async with Softphone("anna") as anna, Softphone("boris") as boris:
        with pytest.raises(CallFailed) as caught:
            await anna.call(boris.contact, timeout=0.2)
        assert caught.value.status == 408
        assert (await boris.incoming()).end_cause == "cancelled"


async def test_a_phone_with_one_rtp_port_is_busy_while_it_speaks() -> None:
    async with (
        Softphone("anna") as anna,
        Softphone("boris", rtp_port=free_media_port(), auto_answer=True) as boris,
    ):
        here, _ = await connected(anna, boris)
        with pytest.raises(CallFailed) as caught:
            await anna.call(boris.contact)
        assert caught.value.status == 486
        await here.hang_up()


async def test_leaving_the_phone_ends_its_calls() -> None:
    async with Softphone("boris", auto_answer=True) as boris:
        async with Softphone("anna") as anna:
            here, there = await connected(anna, boris)
        assert here.end_cause == "local"
        await there.ended.wait()


class Peer:
    """The other end of the wire, by hand: collects requests and answers them with `script`."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[tuple[Request, Address]] = asyncio.Queue()
        self.transport = SipTransport(lambda *seen: self.requests.put_nowait(seen), print)

    async def __aenter__(self) -> "Peer":
        await self.transport.open("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()

    async def answer(
        self, method: str, status: int, headers: sip.Headers = (), body: str = ""
    ) -> Request:
        request, address = await self.requests.get()
        assert request.method == method
        response = sip.reply(request, status, to_tag="peer", headers=headers, body=body)
        self.transport.respond(request, response, address)
        return request


SDP = "v=0\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n"


@pytest.mark.parametrize(
    ("status", "challenge", "answer"),
    [
        (401, "WWW-Authenticate", "Authorization"),
        (407, "Proxy-Authenticate", "Proxy-Authorization"),
    ],
)
async def test_digest_authentication(status: int, challenge: str, answer: str) -> None:
    async with Softphone("alice", password="secret") as alice, Peer() as peer:
        target = f"sip:900@127.0.0.1:{peer.transport.port}"
        calling = asyncio.create_task(alice.call(target))
        asked = ((challenge, 'Digest realm="asterisk", nonce="12", qop="auth"'),)
        first = await peer.answer("INVITE", status, asked)
        ack, _ = await peer.requests.get()
        second = await peer.answer("INVITE", 200, body=SDP)
        credentials = second.require(answer)
        call = await calling
        hanging_up = asyncio.create_task(call.hang_up())
        assert (await peer.requests.get())[0].method == "ACK"
        await peer.answer("BYE", 200)
        await hanging_up
    assert first.get(answer) is None
    # The ACK of a refusal belongs to the INVITE's transaction.
    assert (ack.method, ack.get("Via")) == ("ACK", first.get("Via"))
    assert 'username="alice"' in credentials
    assert 'realm="asterisk"' in credentials
    assert second.cseq[0] == first.cseq[0] + 1


async def test_wrong_password_fails_the_call() -> None:
    async with Softphone("alice", password="wrong") as alice, Peer() as peer:
        calling = asyncio.create_task(alice.call(f"sip:900@127.0.0.1:{peer.transport.port}"))
        asked = (("WWW-Authenticate", 'Digest realm="asterisk", nonce="12"'),)
        for _ in range(2):
            await peer.answer("INVITE", 401, asked)
            assert (await peer.requests.get())[0].method == "ACK"
        with pytest.raises(CallFailed) as caught:
            await calling
        assert caught.value.status == 401


async def test_an_answer_that_cannot_be_read_is_hung_up() -> None:
    async with Softphone("anna") as anna, Peer() as peer:
        calling = asyncio.create_task(anna.call(f"sip:900@127.0.0.1:{peer.transport.port}"))
        await peer.answer("INVITE", 200, body="v=0\r\n")
        assert (await peer.requests.get())[0].method == "ACK"
        await peer.answer("BYE", 200)
        with pytest.raises(Exception, match="SDP"):
            await calling


def request_to(
    phone: Softphone, method: str, call_id: str, branch: str, to: str = "", body: str = ""
) -> bytes:
    return Request(
        (
            ("Via", f"SIP/2.0/UDP 127.0.0.1;branch={branch}"),
            ("From", "<sip:peer@127.0.0.1>;tag=p"),
            ("To", to or f"<{phone.contact}>"),
            ("Call-ID", call_id),
            ("CSeq", f"1 {method}"),
            ("Contact", "<sip:peer@127.0.0.1>"),
        ),
        body.encode(),
        method,
        phone.contact,
    ).build()


class Wire(asyncio.DatagramProtocol):
    """A bare socket: what comes back is parsed and queued."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[sip.Request | sip.Response] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.seen.put_nowait(sip.parse(data))

    async def status(self) -> int:
        message = await self.seen.get()
        assert isinstance(message, sip.Response)
        return message.status


async def test_requests_outside_a_call_repetitions_and_reinvites() -> None:
    loop = asyncio.get_running_loop()
    async with Softphone("anna", auto_answer=True) as anna:
        address = ("127.0.0.1", anna.sip_port)
        transport, wire = await loop.create_datagram_endpoint(Wire, remote_addr=address)
        try:
            transport.sendto(b"\r\n\r\n")
            transport.sendto(b"not SIP at all\r\n\r\n")
            transport.sendto(request_to(anna, "OPTIONS", "o", "z9hG4bK1"))
            assert await wire.status() == 200
            transport.sendto(request_to(anna, "BYE", "unknown", "z9hG4bK2"))
            assert await wire.status() == 481
            transport.sendto(request_to(anna, "INVITE", "bad", "z9hG4bK3", body="v=0\r\n"))
            assert [await wire.status() for _ in range(2)] == [100, 488]

            invite = request_to(anna, "INVITE", "good", "z9hG4bK4", body=SDP)
            transport.sendto(invite)
            assert [await wire.status() for _ in range(2)] == [100, 180]
            answered = await wire.seen.get()
            assert isinstance(answered, sip.Response) and answered.status == 200
            to = answered.require("To")
            transport.sendto(invite)  # our ACK got lost, and their 200 with it
            again = await wire.seen.get()
            assert again == answered
            transport.sendto(request_to(anna, "ACK", "good", "z9hG4bK5", to))

            held = SDP + "a=sendonly\r\n"
            transport.sendto(request_to(anna, "INVITE", "good", "z9hG4bK6", to, body=held))
            hold = await wire.seen.get()
            assert b"a=recvonly" in hold.body
            transport.sendto(request_to(anna, "ACK", "good", "z9hG4bK7", to))
            transport.sendto(request_to(anna, "INFO", "good", "z9hG4bK8", to))
            assert await wire.status() == 405
            transport.sendto(request_to(anna, "BYE", "good", "z9hG4bK9", to))
            assert await wire.status() == 200
            call = await anna.incoming()
            assert call.end_cause == "remote"
        finally:
            transport.close()
