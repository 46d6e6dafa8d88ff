"""SIP transactions over UDP (RFC 3261, section 17): retransmission both ways, and nothing of calls."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, cast

from engine.aio import Background
from engine.errors import RemoteProtocolError
from engine.lab import sip
from engine.lab.sip import Request, Response

log = logging.getLogger(__name__)

Address = tuple[str, int]
K = TypeVar("K")
V = TypeVar("V")

T1_S = 0.5
T2_S = 4.0
GIVE_UP_S = 64 * T1_S
_REMEMBERED = 512


class ClientTransaction:
    """A request on its way. Repeats it until something comes back; close when done."""

    def __init__(self, transport: SipTransport, request: Request, address: Address) -> None:
        self.request = request
        self.address = address
        self.responses: asyncio.Queue[Response] = asyncio.Queue()
        self.provisional = False
        self._transport = transport
        transport.clients[_key(request)] = self
        transport.send(request.build(), address)

    async def next(self) -> Response:
        """The next response. Raises TimeoutError when nothing at all came in 32 s.

        An INVITE that rings may ring for as long as the caller of this likes.
        """
        wait_s, waited_s = T1_S, 0.0
        while True:
            calm = self.provisional and self.request.method == "INVITE"
            try:
                async with asyncio.timeout(None if calm else wait_s):
                    response = await self.responses.get()
            except TimeoutError:
                waited_s += wait_s
                if waited_s >= GIVE_UP_S:
                    raise
                self._transport.send(self.request.build(), self.address)
                wait_s = min(wait_s * 2, GIVE_UP_S if self.request.method == "INVITE" else T2_S)
                continue
            self.provisional = True
            return response

    async def final(self) -> Response:
        """The first response that is not provisional. Raises TimeoutError."""
        while (response := await self.next()).status < 200:
            pass
        return response

    def close(self) -> None:
        self._transport.clients.pop(_key(self.request), None)


class SipTransport(asyncio.DatagramProtocol):
    """One UDP socket. New requests go to `on_request`, repeated ones are answered from memory.

    `on_unacknowledged` is told the Call-ID of an INVITE whose final response was never acknowledged.
    """

    def __init__(
        self,
        on_request: Callable[[Request, Address], None],
        on_unacknowledged: Callable[[str], None],
    ) -> None:
        self.clients: dict[tuple[str, str], ClientTransaction] = {}
        self._on_request = on_request
        self._on_unacknowledged = on_unacknowledged
        self._transport: asyncio.DatagramTransport | None = None
        self._answered: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._acks: OrderedDict[str, tuple[bytes, Address]] = OrderedDict()
        self._unacknowledged: dict[str, asyncio.Task[None]] = {}
        self._background = Background()
        self._closed = asyncio.Event()

    async def open(self, host: str, port: int) -> None:
        """Bind; port 0 takes any. Raises OSError."""
        await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=(host, port)
        )

    @property
    def port(self) -> int:
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    async def close(self) -> None:
        await self._background.close()
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def send(self, data: bytes, address: Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, address)

    def acknowledge(self, ack: Request, invite: Request, address: Address) -> None:
        """Send an ACK now, and again whenever the response to `invite` is repeated."""
        data = ack.build()
        _remember(self._acks, _key(invite)[0], (data, address))
        self.send(data, address)

    def respond(self, request: Request, response: Response, address: Address) -> None:
        """Answer now, and again whenever the request is repeated.

        The final answer to an INVITE is repeated until the ACK.
        """
        data = response.build()
        _remember(self._answered, _key(request), data)
        self.send(data, address)
        if request.method == "INVITE" and response.status >= 200:
            call_id = request.require("Call-ID")
            self._stop_repeating(call_id)
            self._unacknowledged[call_id] = self._background.start(
                self._repeat(call_id, data, address), name="sip-repeat"
            )

    async def _repeat(self, call_id: str, data: bytes, address: Address) -> None:
        wait_s, waited_s = T1_S, 0.0
        while waited_s < GIVE_UP_S:
            await asyncio.sleep(wait_s)
            self.send(data, address)
            waited_s += wait_s
            wait_s = min(wait_s * 2, T2_S)
        self._unacknowledged.pop(call_id, None)
        self._on_unacknowledged(call_id)

    def _stop_repeating(self, call_id: str) -> None:
        if (task := self._unacknowledged.pop(call_id, None)) is not None:
            task.cancel()

    # --- asyncio -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own UDP transport does not derive from DatagramTransport.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        if not data.strip():
            return  # a keep-alive
        try:
            message = sip.parse(data)
            key = _key(message)
            if isinstance(message, Response):
                self._take_response(message, key)
                return
            message.require("Call-ID")
            if message.method in ("ACK", "BYE"):  # a BYE shows as well that our answer came
                self._stop_repeating(message.require("Call-ID"))
            if message.method != "ACK" and (known := self._answered.get(key)) is not None:
                self.send(known, addr)
            else:
                self._on_request(message, addr)
        except RemoteProtocolError as error:
            log.warning("a SIP message was dropped", extra={"error": error.message})

    def error_received(self, exc: Exception) -> None:
        # ICMP "port unreachable". Retransmission and its limit decide what it means.
        log.debug("the peer's SIP port is closed", extra={"error": str(exc)})

    def _take_response(self, response: Response, key: tuple[str, str]) -> None:
        if (client := self.clients.get(key)) is not None:
            client.responses.put_nowait(response)
        elif key[1] == "INVITE" and response.status >= 200 and key[0] in self._acks:
            self.send(*self._acks[key[0]])


def _key(message: Request | Response) -> tuple[str, str]:
    """The branch of the topmost Via and the method. Raises RemoteProtocolError."""
    parameters = message.require("Via").replace(" ", "").split(";")[1:]
    branch = next((p[7:] for p in parameters if p.lower().startswith("branch=")), "")
    if not branch:
        raise RemoteProtocolError("the topmost Via has no branch")
    return branch.partition(",")[0], message.cseq[1]


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
