"""An AMI server that speaks Asterisk's wire format and misbehaves on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

Action = dict[str, list[str]]
"""Header names as sent; every value is a list, as AMI headers may repeat."""


class AmiServer:
    """Listens on 127.0.0.1. Scripts (`on`) replace the default answer to an action.

    `actions` holds each action received over all connections, in order, as it came.
    """

    def __init__(self, *, username: str = "engine", secret: str = "s3cret") -> None:
        self._credentials = ([username], [secret])
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._scripts: dict[str, Callable[[Link, Action], Awaitable[None]]] = {}
        self._arrived = asyncio.Condition()
        self.port = 0
        self.frozen = False
        """When set, actions are read and counted but never answered, as by a stopped process."""
        self.logins = 0
        self.actions: list[Action] = []

    async def __aenter__(self) -> AmiServer:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def listen(self) -> None:
        """Start, or start again on the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and drop everybody."""
        if self._server is not None:
            self._server.close()
            self.drop()
            await self._server.wait_closed()
            self._server = None
        await asyncio.gather(*(w.wait_closed() for w in self._writers), return_exceptions=True)
        self._writers.clear()

    def drop(self) -> None:
        """Cut every connection without a word."""
        for writer in self._writers:
            writer.transport.abort()

    def on(self, name: str, script: Callable[[Link, Action], Awaitable[None]]) -> None:
        self._scripts[name.lower()] = script

    def send(self, raw: bytes) -> None:
        """Write bytes to whoever is connected now."""
        for writer in self._writers:
            if not writer.is_closing():
                writer.write(raw)

    def event(self, name: str, **fields: str) -> None:
        self.send(message({"Event": name, **fields}))

    def count(self) -> Counter[str]:
        return Counter(action["Action"][0] for action in self.actions)

    async def received(self, name: str, times: int = 1) -> Action:
        """Wait until `name` came `times` times in all and return the last of them."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.count()[name] >= times)
        return [action for action in self.actions if action["Action"][0] == name][-1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        link = Link(writer)
        writer.write(b"Asterisk Call Manager/11.0.0\r\n")
        try:
            while True:
                block = await reader.readuntil(b"\r\n\r\n")
                action = parse(block)
                self.actions.append(action)
                async with self._arrived:
                    self._arrived.notify_all()
                if not self.frozen:
                    await self._answer(link, action)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is gone, as clients are
        finally:
            writer.close()

    async def _answer(self, link: Link, action: Action) -> None:
        name = action["Action"][0].lower()
        if script := self._scripts.get(name):
            await script(link, action)
        elif name == "login":
            if (action["Username"], action["Secret"]) != self._credentials:
                link.error(action, "Authentication failed")
                return
            self.logins += 1
            link.success(action, Message="Authentication accepted")
            link.event("FullyBooted", Privilege="system,all", Status="Fully Booted", Uptime="7")
        elif name == "ping":
            link.success(action, Ping="Pong", Timestamp="1732172400.000000")
        elif name == "command":
            link.success(action, Message="Command output follows", Output="done")
        else:
            link.success(action)


class Link:
    """One client's connection, as a script sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def success(self, action: Action, **fields: str) -> None:
        self._respond("Success", action, fields)

    def error(self, action: Action, text: str) -> None:
        self._respond("Error", action, {"Message": text})

    def event(self, name: str, **fields: str) -> None:
        self.raw(message({"Event": name, **fields}))

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    def drop(self) -> None:
        self._writer.transport.abort()

    def _respond(self, response: str, action: Action, fields: dict[str, str]) -> None:
        echo = {"ActionID": action["ActionID"][0]} if "ActionID" in action else {}
        self.raw(message({"Response": response, **echo, **fields}))


def message(fields: dict[str, str]) -> bytes:
    lines = [f"{key}: {value}" for key, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse(block: bytes) -> Action:
    action: Action = {}
    for line in block.decode().split("\r\n"):
        key, separator, value = line.partition(":")
        if separator:
            action.setdefault(key, []).append(value.strip())
    return action
