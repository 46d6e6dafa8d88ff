"""Many AudioSocket callers in a process of their own, so that a bench of the engine measures the engine.

    python -m engine.bench.media_callers AGI_HOST AGI_PORT CALLS

They all hold the same monologue, each from another place in it: a recorded question, then a pause to hear
the answer, over the noise of a telephone line. Every line that comes on standard input is answered with
one: how many frames each caller has heard so far, as a JSON list. The first such line comes unasked, once
all calls are up. When standard input ends, they hang up.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import select
import socket
import sys
import time
import uuid

import numpy as np

from engine.bench.speech import questions
from engine.lab.audiosocket_caller import agi_step
from engine.media.frame import FRAME_S, Samples
from engine.telephony.audiosocket_codec import encode_audio

RATE = 8000
PAUSE_S = 4.5
"""The agent answers in between."""
_FRAME = RATE // 50
_MESSAGE = 3 + 2 * _FRAME
_NOISE_RMS = 40.0
"""-58 dBFS: an office behind a handset."""
_READ_EVERY = 5
_NEXT_CALL_S = 0.01


def monologue() -> Samples:
    """Whole frames of questions and pauses, 8 kHz."""
    pause = np.zeros(round(PAUSE_S * RATE), np.int16)
    said = np.concatenate([part for question in questions() for part in (question, pause)])
    noise = np.random.default_rng(1).normal(0, _NOISE_RMS, len(said))
    heard = np.clip(said + noise, -32768, 32767).astype(np.int16)
    return heard[: len(heard) // _FRAME * _FRAME]


class Caller:
    """One call. Its socket is never waited for: what the engine does not read in time is lost."""

    def __init__(self, line: socket.socket, messages: list[bytes], first: int) -> None:
        line.setblocking(False)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line = line
        self._messages = itertools.islice(itertools.cycle(messages), first, None)
        self._received = 0

    @property
    def frames(self) -> int:
        return self._received // _MESSAGE

    def tick(self, *, read: bool) -> None:
        try:
            self._line.send(next(self._messages))
            if read:
                self._received += len(self._line.recv(65536))
        except BlockingIOError:
            pass  # nothing there yet, or an engine that does not read


async def ring(agi: tuple[str, int], number: str) -> socket.socket:
    """One call, answered. Raises ConnectionRefusedError where the engine does not take it."""
    variables = await agi_step(*agi, called=number)
    if variables.get("OFFHOOK_STATUS") != "OK":
        raise ConnectionRefusedError(f"refused: {variables}")
    host, _, port = variables["OFFHOOK_AUDIO"].rpartition(":")
    line = socket.create_connection((host, int(port)))
    line.sendall(b"\x01\x00\x10" + uuid.UUID(variables["OFFHOOK_UUID"]).bytes)
    return line


def talk(callers: list[Caller], requests: int) -> None:
    """Send for all, each 20 ms, evenly spread over them, until file descriptor `requests` ends."""
    start = time.monotonic()
    for turn in itertools.count():
        for index, caller in enumerate(callers):
            early = start + (turn + index / len(callers)) * FRAME_S - time.monotonic()
            if early > 0:
                time.sleep(early)
            caller.tick(read=turn % _READ_EVERY == 0)
        if select.select([requests], [], [], 0)[0]:
            if not sys.stdin.readline():
                return
            _tell(callers)


def _tell(callers: list[Caller]) -> None:
    print(json.dumps([caller.frames for caller in callers]), flush=True)


async def _ring_all(agi: tuple[str, int], calls: int) -> list[socket.socket]:
    lines = []
    for _ in range(calls):
        lines.append(await ring(agi, "700"))
        await asyncio.sleep(_NEXT_CALL_S)
    return lines


def main(host: str, port: str, calls: str) -> None:
    sound = monologue()
    messages = [encode_audio(frame.tobytes(), RATE) for frame in sound.reshape(-1, _FRAME)]
    lines = asyncio.run(_ring_all((host, int(port)), int(calls)))
    step = len(messages) // len(lines)
    callers = [Caller(line, messages, n * step) for n, line in enumerate(lines)]
    _tell(callers)
    talk(callers, sys.stdin.fileno())
    for line in lines:
        line.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
