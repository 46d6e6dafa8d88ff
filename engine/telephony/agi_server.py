"""FastAGI: the dialplan asks what to do with a call, we answer with channel variables.

    same => n,AGI(agi://127.0.0.1:4573/route?agent=reception)

One connection is one question: read the environment, ask `route`, set the variables, close. When we cannot
answer, OFFHOOK_STATUS=ERROR tells the dialplan to go to its fallback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from engine.aio import cancel_and_wait
from engine.errors import RemoteProtocolError
from engine.telephony import agi_codec as codec

log = logging.getLogger(__name__)

E = TypeVar("E", bound=codec.Event)

STATUS = "OFFHOOK_STATUS"
FAREWELL_S = 1.0
GRACE_S = 2.0
_READ_BYTES = 4096
_MAX_QUERY_FIELDS = 50


@dataclass(frozen=True)
class AgiRequest:
    """Who calls whom. What Asterisk does not know (it says "unknown") is empty.

    All of it comes from outside: numbers and names are whatever the caller's side sent.
    """

    called: str
    caller_id: str
    caller_name: str
    channel: str
    unique_id: str
    context: str
    script: str
    """The path of the agi:// address, without its query."""
    query: dict[str, str]
    arguments: tuple[str, ...]
    """What stood behind the address in the dialplan: AGI(agi://…,one,two)."""
    raw: Mapping[str, str]

    @staticmethod
    def from_environment(raw: Mapping[str, str]) -> AgiRequest:
        """Raises RemoteProtocolError."""
        script, _, query = raw.get("agi_network_script", "").partition("?")
        try:
            fields = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError as error:
            raise RemoteProtocolError("the address has too many parameters") from error
        arguments: list[str] = []
        while (argument := raw.get(f"agi_arg_{len(arguments) + 1}")) is not None:
            arguments.append(argument)
        return AgiRequest(
            called=raw.get("agi_extension", ""),
            caller_id=_known(raw.get("agi_callerid", "")),
            caller_name=_known(raw.get("agi_calleridname", "")),
            channel=raw.get("agi_channel", ""),
            unique_id=raw.get("agi_uniqueid", ""),
            context=raw.get("agi_context", ""),
            script=script,
            query=dict(fields),
            arguments=tuple(arguments),
            raw=raw,
        )


def _known(value: str) -> str:
    return "" if value == "unknown" else value


class AgiServer:
    """Answers FastAGI. `route` returns the channel variables to set, in this order.

    `timeout_s` bounds each step: reading the environment, `route`, and each answer of Asterisk's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        route: Callable[[AgiRequest], Awaitable[Mapping[str, str]]],
        timeout_s: float = 5.0,
    ) -> None:
        self._host = host
        self._port = port
        self._route = route
        self._timeout_s = timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port listened on, also when 0 was asked for."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(
            self._connected, self._host, self._port, limit=_READ_BYTES, backlog=512
        )

    async def close(self) -> None:
        """Safe to call twice."""
        # 1. Stop accepting.
        if self._server is None:
            return
        self._server.close()
        # 2. Let the questions under way be answered, 3. but not for ever.
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        await cancel_and_wait(*self._tasks)
        await self._server.wait_closed()
        self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="agi")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = _Talk(reader, writer, self._timeout_s)
        try:
            environment = await talk.expect(codec.Environment)
            if environment is not None:
                await self._answer(talk, AgiRequest.from_environment(environment.raw))
        except RemoteProtocolError as error:
            log.warning("a peer broke the AGI protocol", extra={"error": error.message})
        except TimeoutError:
            log.warning("an AGI peer fell silent", extra={"timeout_s": self._timeout_s})
        except ConnectionError as error:
            log.info("an AGI connection was lost", extra={"error": str(error)})
        finally:
            await talk.close()

    async def _answer(self, talk: _Talk, request: AgiRequest) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                variables = await self._route(request)
            # All are written down before the first is sent: half an answer is none.
            commands = [codec.encode_set_variable(*pair) for pair in variables.items()]
        except Exception:
            # Whatever went wrong, there is a caller on the line whom the dialplan must take back.
            log.exception("a call could not be routed", extra={"unique_id": request.unique_id})
            commands = [codec.encode_set_variable(STATUS, "ERROR")]
        for command in commands:
            reply = await talk.command(command)
            if reply is None:
                return  # the caller hung up meanwhile
            if not reply.ok:
                log.error(
                    "Asterisk refused an AGI command",
                    extra={"code": reply.code, "reply": reply.text, "unique_id": request.unique_id},
                )
                await talk.command(codec.encode_set_variable(STATUS, "ERROR"))
                return


class _Talk:
    """One connection, an event at a time."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self._decoder = codec.Decoder()

    async def expect(self, kind: type[E]) -> E | None:
        """The next event of this kind, or None when the peer is gone.

        HANGUP is passed over, since the answer to the command under way still follows it. Raises
        RemoteProtocolError, TimeoutError, ConnectionError.
        """
        async with asyncio.timeout(self._timeout_s):
            while True:
                event = self._decoder.next_event()
                if isinstance(event, kind):
                    return event
                if event is None:
                    data = await self._reader.read(_READ_BYTES)
                    if not data:
                        return None
                    self._decoder.feed(data)

    async def command(self, command: bytes) -> codec.Reply | None:
        self._writer.write(command)
        async with asyncio.timeout(self._timeout_s):
            await self._writer.drain()
        return await self.expect(codec.Reply)

    async def close(self) -> None:
        """Half-close and read on until Asterisk closes too: unread input would make it a reset."""
        try:
            async with asyncio.timeout(FAREWELL_S):
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(_READ_BYTES):
                    pass
        except (TimeoutError, OSError):
            # It neither reads nor closes; what was written has had its second.
            self._writer.transport.abort()
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # it was reset, which is closed as well
