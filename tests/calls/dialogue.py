"""A telephone call by the script, on virtual time, through the real session.

    talk = Dialogue(
        Says(1.0, 2.0, "When do you open?"),
        Says(6.0, 6.4, "Thanks"),
        answers={"When do you open?": ["We open at nine."]},
    )
    await talk.run()
    assert talk.lines == ["agent: Hello.", "caller: When do you open?", "agent: We open at nine.", …]

Only the models (tests/calls/models.py), the line and the record book are made up. The caller hangs up
`stays_s` after the script's last item, unless the call has ended before. After every run nothing may be
left: not a task, and not a frame in the player.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.calls.handoff import Handoff
from engine.calls.session import CallSession
from engine.calls.state import CallTicket, Outcome
from engine.config import Agent, TransferTarget
from engine.errors import LegClosed
from engine.events import Event, EventBus
from engine.media.frame import FRAME_S, Digit, Frame, Samples, silent_frame
from engine.storage.rows import CallRow, ToolRow, TranscriptRow, TurnRow
from tests.calls.models import RATE, Speaking, Step, Thinking, Words, make_parts

CALL_ID = "00000000-0000-4000-8000-000000000001"
GREETING = "Hello."


@dataclass(frozen=True)
class Says:
    """The caller speaks from `start` to `end`, in seconds; without words it is a cough."""

    start: float
    end: float
    words: str = ""
    confidence: float = 0.95


@dataclass(frozen=True)
class Presses:
    """One key every 200 ms from `at` on."""

    at: float
    keys: str

    @property
    def end(self) -> float:
        return self.at + 0.2 * (len(self.keys) - 1)


@dataclass(frozen=True)
class HangsUp:
    at: float

    @property
    def end(self) -> float:
        return self.at


@dataclass(frozen=True)
class Happens:
    """Something is done to the call from outside."""

    at: float
    what: Callable[[Dialogue], Any]

    @property
    def end(self) -> float:
        return self.at


Item = Says | Presses | HangsUp | Happens


def receptionist(**changes: Any) -> Agent:
    values: dict[str, Any] = {
        "id": "reception",
        "name": "Joe",
        "languages": ("en",),
        "greeting": GREETING,
        "prompt": "You sell tyres.",
        "transfers": (TransferTarget(name="operator", to="600"),),
    }
    return Agent(**(values | changes))


class Line:
    """The caller's end: speaks by the script, and keeps what it hears with its times."""

    call_id = CALL_ID
    rate = RATE
    lead_frames = 0

    def __init__(self, script: Sequence[Item], words: Words, ends_at: float) -> None:
        self._sound: dict[int, Samples] = {}
        self._keys: list[Digit] = []
        self._ends_at = ends_at
        self.closed = False
        self.sent: list[tuple[float, Samples]] = []
        for item in script:
            if isinstance(item, Says):
                first = round(item.start / FRAME_S)
                frames = words.speech(item.words, item.end - item.start, item.confidence)
                self._sound |= {first + n: frame for n, frame in enumerate(frames)}
            elif isinstance(item, Presses):
                self._keys += [Digit(k, item.at + 0.2 * n) for n, k in enumerate(item.keys)]
            elif isinstance(item, HangsUp):
                self._ends_at = item.at
        self._keys.sort(key=lambda digit: digit.at)

    async def receive(self) -> AsyncIterator[Frame | Digit]:
        loop = asyncio.get_running_loop()
        index = 0
        while not self.closed:
            at = (index + 1) * FRAME_S
            await asyncio.sleep(at - loop.time())
            if at > self._ends_at:
                self.closed = True
                return
            while self._keys and self._keys[0].at <= at:
                yield self._keys.pop(0)
            sound = self._sound.get(index)
            yield silent_frame(RATE, at) if sound is None else Frame(sound.tobytes(), RATE, at)
            index += 1

    async def send(self, frame: Frame) -> None:
        if self.closed:
            raise LegClosed("gone")
        self.sent.append((asyncio.get_running_loop().time(), frame.samples()))

    async def flush(self) -> None: ...

    async def hang_up(self) -> None:
        self.closed = True

    def heard(self) -> list[tuple[float, float]]:
        """(start, end) of each stretch of the agent's sound; pauses under 100 ms do not part it."""
        spans: list[tuple[float, float]] = []
        for at, samples in self.sent:
            if not np.any(samples):
                continue
            if spans and at - spans[-1][1] < 0.1:
                spans[-1] = (spans[-1][0], at + FRAME_S)
            else:
                spans.append((at, at + FRAME_S))
        return [(round(start, 2), round(end, 2)) for start, end in spans]


@dataclass
class Book:
    """The record book, in memory."""

    started: CallRow | None = None
    finished: tuple[Any, ...] | None = None
    recording: str = ""
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    transcripts: list[TranscriptRow] = field(default_factory=list)
    tools: list[ToolRow] = field(default_factory=list)
    turns: list[TurnRow] = field(default_factory=list)
    late: Exception | None = None

    async def call_started(self, call: CallRow) -> None:
        self.started = call
        if self.late is not None:
            raise self.late

    def call_answered(self, call_id: str, answered_at: Any, *, recording: str = "") -> None:
        self.recording = recording

    def call_finished(self, call_id: str, *values: Any) -> None:
        assert self.finished is None, "a call ends once"
        self.finished = values

    def event(self, call_id: str, offset_ms: int, type: str, data: dict[str, Any]) -> None:
        self.events.append((offset_ms, type, data))

    def transcript(self, call_id: str, row: TranscriptRow) -> None:
        self.transcripts.append(row)

    def tool(self, call_id: str, row: ToolRow) -> None:
        self.tools.append(row)

    def turn(self, call_id: str, row: TurnRow) -> None:
        self.turns.append(row)


class Switch:
    """Asterisk's side of AMI: what the dialplan was told, and when."""

    def __init__(self, error: Exception | None = None, takes_s: float = 0.0) -> None:
        self.told: list[tuple[float, str, str, str]] = []
        self._error = error
        self._takes_s = takes_s

    async def set_variable(self, channel: str, name: str, value: str) -> None:
        await asyncio.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        self.told.append((asyncio.get_running_loop().time(), channel, name, value))


class Dialogue:
    """`models` go to `make_parts`; `ticket` changes the call's ticket."""

    def __init__(
        self,
        *script: Item,
        answers: Mapping[str, Sequence[Step]] | None = None,
        agent: Agent | None = None,
        switch: Switch | None = None,
        stays_s: float = 6.0,
        recordings: Path = Path("recordings"),
        ticket: Mapping[str, Any] | None = None,
        book: Book | None = None,
        **models: Any,
    ) -> None:
        self.words = Words()
        self.agent = agent or receptionist()
        self.llm: Thinking = models.setdefault("llm", Thinking(answers or {}))
        self.voice: Speaking = models.setdefault("voice", Speaking())
        if callable(stt := models.get("stt")):
            models["stt"] = stt(self.words)
        self.parts = make_parts(self.agent, self.words, **models)
        last = max((item.end for item in script), default=0.0)
        self.line = Line(script, self.words, last + stays_s)
        self.book = book or Book()
        self.switch = switch or Switch()
        self.events: list[Event] = []
        bus = EventBus()
        bus.listen(self.events.append)
        values = {"called": "700", "caller_id": "+15550100", "caller_name": "", "channel": "SIP/1"}
        self.session = CallSession(
            CallTicket(agent=self.agent, **(values | dict(ticket or {}))),
            self.line,
            parts=self.parts,
            handoff=Handoff(self.switch),
            store=self.book,
            bus=bus,
            recordings=recordings,
        )
        self._happenings = [item for item in script if isinstance(item, Happens)]

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        assert loop.time() == 0.0
        for item in self._happenings:
            loop.call_at(item.at, item.what, self)
        outcome = await self.session.run()
        self.ended_at = loop.time()
        await self.line.hang_up()
        assert asyncio.all_tasks() == before, "nothing of a call outlives it"
        assert self.session.player.current is None
        return outcome

    # --- What became of it ---------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The transcript. Of a cut sentence it has what was heard, and …; one never heard is in brackets."""
        lines = []
        for entry in self.session.ledger.to_json():
            match entry["who"]:
                case "caller":
                    lines.append(f"caller: {entry['text']}")
                case "agent" if entry["status"] == "cut":
                    lines.append(f"agent: {entry['heard']} …")
                case "agent" if entry["status"] == "unheard":
                    lines.append(f"(agent: {entry['text']})")
                case "agent":
                    lines.append(f"agent: {entry['text']}")
        return lines

    def noted(self, type: str) -> list[Event]:
        return [event for event in self.events if event.type == type]
