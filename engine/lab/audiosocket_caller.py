"""A caller that behaves as Asterisk does: an AGI step, then AudioSocket frames every 20 ms.

For measurements without SIP in between, and for tests of the wire.
"""

from __future__ import annotations

import asyncio
import shlex
import struct
import uuid
from typing import Self

import numpy as np

from engine.aio import cancel_and_wait
from engine.lab.caller import Caller
from engine.lab.timeline import Timeline
from engine.media.frame import FRAME_S, Samples
from engine.telephony.audiosocket_codec import Audio, Decoder, Hangup

FRAME_SAMPLES = 160


async def agi_step(
    host: str, port: int, *, called: str, caller: str = "+15550100", channel: str = ""
) -> dict[str, str]:
    """Ask the engine as the dialplan does; returns the channel variables it set."""
    reader, writer = await asyncio.open_connection(host, port)
    environment = {
        "agi_network": "yes",
        "agi_network_script": "",
        "agi_request": f"agi://{host}:{port}",
        "agi_channel": channel,
        "agi_callerid": caller,
        "agi_calleridname": "",
        "agi_uniqueid": uuid.uuid4().hex,
        "agi_context": "offhook",
        "agi_extension": called,
        "agi_dnid": called,
    }
    writer.write(
        "".join(f"{key}: {value}\n" for key, value in environment.items()).encode() + b"\n"
    )
    variables: dict[str, str] = {}
    while line := (await reader.readline()).decode().strip():
        if line.startswith("SET VARIABLE "):
            name, value = shlex.split(line)[2:4]
            variables[name] = value
        writer.write(b"200 result=1\n")
    await _closed(writer)
    return variables


class AudioSocketCaller(Caller):
    """One call. Sends a frame every 20 ms for its whole life and keeps all it hears, with times."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _tasks: list[asyncio.Task[None]]

    def __init__(self) -> None:
        super().__init__()
        self.heard = Timeline()
        self.said = Timeline()
        self.variables: dict[str, str] = {}
        self.answered_at = 0.0
        self._queue: list[Samples] = []
        self._drained = asyncio.Event()

    @classmethod
    async def call(cls, agi: tuple[str, int], called: str) -> Self:
        """Raises ConnectionRefusedError when the engine does not take the call."""
        self = cls()
        self.variables = await agi_step(*agi, called=called)
        if self.variables.get("OFFHOOK_STATUS") != "OK":
            raise ConnectionRefusedError(f"refused: {self.variables}")
        host, _, port = self.variables["OFFHOOK_AUDIO"].rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._writer.write(b"\x01\x00\x10" + uuid.UUID(self.variables["OFFHOOK_UUID"]).bytes)
        self.answered_at = self._now()
        self._tasks = [
            asyncio.create_task(self._send(), name="caller sends"),
            asyncio.create_task(self._receive(), name="caller hears"),
        ]
        return self

    async def play(self, samples: Samples) -> tuple[float, float]:
        padded = np.concatenate((samples, np.zeros(-len(samples) % FRAME_SAMPLES, np.int16)))
        self._drained.clear()
        began = self._now()
        self._queue = list(padded.reshape(-1, FRAME_SAMPLES))
        drained = asyncio.create_task(self._drained.wait())
        ended = asyncio.create_task(self.ended.wait())
        await asyncio.wait({drained, ended}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(drained, ended)
        return self._sounded(began)

    def press(self, key: str) -> None:
        self._writer.write(b"\x03\x00\x01" + key.encode())

    async def hang_up(self) -> None:
        """As Asterisk does when the caller hangs up: the socket just ends."""
        await cancel_and_wait(*self._tasks)
        await _closed(self._writer)
        self.ended.set()

    async def _send(self) -> None:
        due = self._now()
        silence = np.zeros(FRAME_SAMPLES, np.int16)
        while not self.ended.is_set():
            frame = self._queue.pop(0) if self._queue else silence
            self.said.add(self._now(), frame)
            pcm = frame.astype("<i2").tobytes()
            self._writer.write(struct.pack(">BH", 0x10, len(pcm)) + pcm)
            if not self._queue:
                self._drained.set()
            due += FRAME_S
            await asyncio.sleep(max(0.0, due - self._now()))

    async def _receive(self) -> None:
        # The decoder reads Asterisk's side, which names the call first; the engine's side does not.
        decoder = Decoder()
        decoder.feed(b"\x01\x00\x10" + uuid.UUID(self.variables["OFFHOOK_UUID"]).bytes)
        decoder.next_event()
        try:
            while data := await self._reader.read(65536):
                now = self._now()
                decoder.feed(data)
                while (event := decoder.next_event()) is not None:
                    if isinstance(event, Audio):
                        self.heard.add(now, np.frombuffer(event.pcm, "<i2"))
                    elif isinstance(event, Hangup):
                        self.ended.set()
                        self._writer.write_eof()
                        return
        finally:
            self.ended.set()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        pass  # the engine was quicker
