"""A small SIP phone with µ-law at 8 kHz, for tests and measurements: it stamps every packet.

UDP, digest authentication, both directions of INVITE, CANCEL, re-INVITE and BYE. It talks to a
back-to-back user agent, as Asterisk is: no proxies on the way (Record-Route), no forking, no REGISTER.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import socket
from types import TracebackType

from engine.aio import Background
from engine.errors import OffhookError, RemoteProtocolError
from engine.lab import sdp, sip
from engine.lab.phone_call import Dialog, EndCause, PhoneCall
from engine.lab.rtp_stream import Played, RtpStream
from engine.lab.sip import Request, Response
from engine.lab.transactions import Address, ClientTransaction, SipTransport

__all__ = ["CallFailed", "PhoneCall", "Played", "Softphone"]

log = logging.getLogger(__name__)

_ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS"
_SDP_TYPE = ("Content-Type", "application/sdp")
_HOP_HEADERS = ("Via", "From", "To", "Call-ID", "Max-Forwards")
_BYE_S = 4.0


class CallFailed(OffhookError):
    """The call was not answered. `status` is SIP's: 486 busy, 404 no such number, 408 no reply …"""

    code = "CALL_FAILED"

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the call failed: {status} {reason}".rstrip())
        self.status = status


class Softphone:
    """`async with Softphone("caller") as phone: call = await phone.call("sip:900@127.0.0.1:5060")`.

    `name` is the user of its address and, with `password`, of its authentication. With `auto_answer`
    incoming calls are answered at once; otherwise they ring until `PhoneCall.answer()` or `.refuse()`.
    Leaving the context hangs up whatever is still up.
    """

    def __init__(
        self,
        name: str,
        *,
        host: str = "127.0.0.1",
        sip_port: int = 0,
        rtp_port: int = 0,
        password: str = "",
        auto_answer: bool = False,
    ) -> None:
        self.name = name
        self.host = host
        self.auto_answer = auto_answer
        self._sip_port = sip_port
        self._rtp_port = rtp_port
        self._password = password
        self._transport = SipTransport(self._on_request, self._on_unacknowledged)
        self._calls: dict[str, PhoneCall] = {}
        self._ringing: dict[str, tuple[Request, Address]] = {}
        self._incoming: asyncio.Queue[PhoneCall] = asyncio.Queue()
        self._background = Background()
        self._sdp_session = random.getrandbits(31)
        self._sdp_version = 0

    async def __aenter__(self) -> Softphone:
        await self._transport.open(self.host, self._sip_port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        calls = list(self._calls.values())
        await asyncio.gather(*(call.hang_up() for call in calls))
        await self._background.close()
        await self._transport.close()

    @property
    def sip_port(self) -> int:
        return self._transport.port

    @property
    def contact(self) -> str:
        return f"sip:{self.name}@{self.host}:{self.sip_port}"

    async def incoming(self) -> PhoneCall:
        """The next call that rings here; already answered with `auto_answer`."""
        return await self._incoming.get()

    async def call(
        self, target: str, *, muted_rtp: bool = False, timeout: float = 30.0
    ) -> PhoneCall:
        """Call `sip:user@host:port` and wait for the answer.

        `muted_rtp`: send no packets where nothing is played. Raises CallFailed, with status 408 after
        `timeout` seconds. Cancelling stops the ringing.
        """
        host, port = sip.host_port(target)
        peer = await _resolve(host, port)
        stream = await RtpStream.open(self.host, self._rtp_port, muted=muted_rtp)
        local = f"<{self.contact}>;tag={secrets.token_hex(6)}"
        dialog = Dialog(secrets.token_hex(12), local, f"<{target}>", target, peer)
        call = PhoneCall(self, dialog, stream)
        try:
            async with asyncio.timeout(timeout):
                response = await self._invite(call)
            stream.start(sdp.parse(response.body.decode(errors="replace")))
        except TimeoutError as error:
            stream.close()
            raise CallFailed(408, sip.REASONS[408]) from error
        except BaseException:
            stream.close()
            if call.answered_at:  # only its SDP could not be read
                await self.bye(call)
            raise
        return call

    # --- Outgoing ------------------------------------------------------------------------------

    async def _invite(self, call: PhoneCall) -> Response:
        """Up to two INVITEs: bare, then with credentials. Returns the 200, acknowledged."""
        offer = self._describe(call.stream, "sendrecv")
        headers: sip.Headers = (("Allow", _ALLOW), _SDP_TYPE)
        response = await self._invite_once(call, headers, offer)
        if response.status in (401, 407) and self._password:
            name = "WWW-Authenticate" if response.status == 401 else "Proxy-Authenticate"
            credentials = sip.authorization(
                sip.parse_challenge(response.require(name)),
                method="INVITE",
                uri=call.dialog.target,
                username=self.name,
                password=self._password,
            )
            answer = "Authorization" if response.status == 401 else "Proxy-Authorization"
            call.dialog.cseq += 1
            response = await self._invite_once(call, ((answer, credentials), *headers), offer)
        if response.status >= 300:
            raise CallFailed(response.status, response.reason)
        return response

    async def _invite_once(self, call: PhoneCall, headers: sip.Headers, offer: str) -> Response:
        invite = self._request(call.dialog, "INVITE", headers=headers, body=offer)
        transaction = ClientTransaction(self._transport, invite, call.dialog.peer)
        try:
            response = await transaction.final()
        except TimeoutError:
            transaction.close()
            raise
        except asyncio.CancelledError:
            # Nobody waits any more, yet the far phone must stop ringing.
            cancel = self._background.start(self._cancel(call, transaction), name="sip-cancel")
            await asyncio.shield(cancel)
            raise
        self._finish_invite(call, transaction, response)
        return response

    def _finish_invite(
        self, call: PhoneCall, transaction: ClientTransaction, response: Response
    ) -> None:
        """Acknowledge a final response; after a 200 the call is up."""
        invite, dialog = transaction.request, call.dialog
        transaction.close()
        if response.status >= 300:
            # Part of the INVITE's own transaction: same branch, same URI, the response's To.
            headers = tuple(
                (name, response.require("To") if name == "To" else value)
                for name, value in invite.headers
                if name in _HOP_HEADERS
            )
            ack = Request((*headers, ("CSeq", f"{invite.cseq[0]} ACK")), b"", "ACK", invite.uri)
        else:
            dialog.remote = response.require("To")
            if (contact := response.get("Contact")) is not None:
                dialog.target = sip.address_uri(contact)
            call.mark_answered()
            self._calls[dialog.call_id] = call
            ack = self._request(dialog, "ACK")
        self._transport.acknowledge(ack, invite, dialog.peer)

    async def _cancel(self, call: PhoneCall, transaction: ClientTransaction) -> None:
        if not transaction.provisional:  # then a CANCEL may not be sent, and nothing rings
            transaction.close()
            return
        invite = transaction.request
        headers = tuple(item for item in invite.headers if item[0] in _HOP_HEADERS)
        cancel = Request(
            (*headers, ("CSeq", f"{invite.cseq[0]} CANCEL")), b"", "CANCEL", invite.uri
        )
        cancelling = ClientTransaction(self._transport, cancel, call.dialog.peer)
        try:
            async with asyncio.timeout(_BYE_S):
                await cancelling.final()
                response = await transaction.final()
                self._finish_invite(call, transaction, response)
                if response.status < 300:  # the answer crossed our CANCEL
                    await self.bye(call)
        except TimeoutError:
            log.warning("a cancelled call was not confirmed")
        finally:
            cancelling.close()
            transaction.close()

    async def bye(self, call: PhoneCall) -> None:
        """End a call that is up. Called by PhoneCall.hang_up."""
        call.mark_ended("local")
        self._calls.pop(call.dialog.call_id, None)
        call.dialog.cseq += 1
        request = self._request(call.dialog, "BYE")
        transaction = ClientTransaction(self._transport, request, call.dialog.peer)
        try:
            async with asyncio.timeout(_BYE_S):
                await transaction.final()
        except TimeoutError:
            log.warning("a BYE was not answered")
        finally:
            transaction.close()

    def _request(
        self, dialog: Dialog, method: str, *, headers: sip.Headers = (), body: str = ""
    ) -> Request:
        return Request(
            (
                ("Via", f"SIP/2.0/UDP {self.host}:{self.sip_port};rport;branch={sip.branch()}"),
                ("Max-Forwards", "70"),
                ("From", dialog.local),
                ("To", dialog.remote),
                ("Call-ID", dialog.call_id),
                ("CSeq", f"{dialog.cseq} {method}"),
                ("Contact", f"<{self.contact}>"),
                *headers,
            ),
            body.encode(),
            method,
            dialog.target,
        )

    def _describe(self, stream: RtpStream, direction: str, event_type: int | None = 101) -> str:
        self._sdp_version += 1
        audio = sdp.AudioDescription(
            self.host, stream.port, event_type=event_type, direction=direction
        )
        return sdp.build(audio, session=self._sdp_session, version=self._sdp_version)

    # --- Incoming ------------------------------------------------------------------------------

    def _on_request(self, request: Request, address: Address) -> None:
        """Everything but repetitions. May raise RemoteProtocolError: the transport drops and logs."""
        call = self._calls.get(request.require("Call-ID"))
        if request.method == "INVITE" and call is None and not sip.tag(request.require("To")):
            # Repetitions while the RTP socket opens are answered by this.
            self._respond(request, address, 100)
            self._background.start(self._ring(request, address), name="sip-ring")
        elif request.method == "OPTIONS":
            self._respond(request, address, 200, headers=(("Allow", _ALLOW),))
        elif request.method == "ACK":
            if call is not None and request.body:  # the answer to an offer that went in our 200
                call.stream.start(sdp.parse(request.body.decode(errors="replace")))
        elif call is None:
            self._respond(request, address, 481)
        elif request.method == "INVITE":
            self._reinvite(call, request, address)
        elif request.method == "BYE":
            self._respond(request, address, 200)
            self._end(call, "remote", request.get("Reason") or "")
        elif request.method == "CANCEL":
            self._respond(request, address, 200)
            if (ringing := self._ringing.pop(call.dialog.call_id, None)) is not None:
                self._respond(*ringing, 487, to_tag=sip.tag(call.dialog.local))
                self._end(call, "cancelled")
        else:
            self._respond(request, address, 405, headers=(("Allow", _ALLOW),))

    async def _ring(self, request: Request, address: Address) -> None:
        call_id = request.require("Call-ID")
        tag = secrets.token_hex(6)
        try:
            offer = sdp.parse(request.body.decode(errors="replace")) if request.body else None
            stream = await RtpStream.open(self.host, self._rtp_port, muted=False)
        except RemoteProtocolError:
            self._respond(request, address, 488, to_tag=tag)
            return
        except OSError:  # our one RTP port serves another call
            self._respond(request, address, 486, to_tag=tag)
            return
        dialog = Dialog(
            call_id,
            f"{request.require('To')};tag={tag}",
            request.require("From"),
            sip.address_uri(request.get("Contact") or request.require("From")),
            address,
            cseq=0,
        )
        call = PhoneCall(self, dialog, stream)
        if offer is not None:
            stream.remote = offer
        self._calls[call_id] = call
        self._ringing[call_id] = (request, address)
        self._respond(request, address, 180, to_tag=tag)
        if self.auto_answer:
            call.answer()
        self._incoming.put_nowait(call)

    def accept(self, call: PhoneCall) -> None:
        """Called by PhoneCall.answer."""
        request, address = self._ringing.pop(call.dialog.call_id)
        call.mark_answered()
        self._answer_sdp(call, request, address)

    def refuse(self, call: PhoneCall, status: int) -> None:
        """Called by PhoneCall.refuse."""
        request, address = self._ringing.pop(call.dialog.call_id)
        self._respond(request, address, status, to_tag=sip.tag(call.dialog.local))
        self._end(call, "refused")

    def _reinvite(self, call: PhoneCall, request: Request, address: Address) -> None:
        if (contact := request.get("Contact")) is not None:
            call.dialog.target = sip.address_uri(contact)
        if request.body:
            call.stream.remote = sdp.parse(request.body.decode(errors="replace"))
        self._answer_sdp(call, request, address)

    def _answer_sdp(self, call: PhoneCall, request: Request, address: Address) -> None:
        remote = call.stream.remote
        direction = remote.answer_direction if remote else "sendrecv"
        body = self._describe(call.stream, direction, remote.event_type if remote else 101)
        self._respond(
            request,
            address,
            200,
            to_tag=sip.tag(call.dialog.local),
            headers=(_SDP_TYPE,),
            body=body,
        )
        if remote is not None:
            call.stream.start(remote)

    def _respond(
        self,
        request: Request,
        address: Address,
        status: int,
        *,
        to_tag: str = "",
        headers: sip.Headers = (),
        body: str = "",
    ) -> None:
        response = sip.reply(
            request,
            status,
            to_tag=to_tag if status > 100 else "",
            headers=(("Contact", f"<{self.contact}>"), *headers),
            body=body,
        )
        self._transport.respond(request, response, address)

    def _end(self, call: PhoneCall, cause: EndCause, reason: str = "") -> None:
        call.mark_ended(cause, reason)
        call.stream.close()
        self._calls.pop(call.dialog.call_id, None)
        self._ringing.pop(call.dialog.call_id, None)

    def _on_unacknowledged(self, call_id: str) -> None:
        if (call := self._calls.get(call_id)) is not None:
            self._end(call, "lost")


async def _resolve(host: str, port: int) -> Address:
    """Look a name up off the loop. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    address, number = found[0][4][:2]
    return str(address), int(number)
