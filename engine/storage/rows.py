"""What the tables hold, as frozen values."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["inbound", "outbound"]
Role = Literal["caller", "agent"]
HeardStatus = Literal["heard", "cut", "unheard"]


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call. `state` is starting, live or ended; the last fields are empty until it has ended.

    `agent_version` names the exact agent file that spoke. `next_step` is what the dialplan does after.
    """

    id: str
    direction: Direction
    from_number: str
    to_number: str
    started_at: dt.datetime
    agent: str = ""
    agent_version: str = ""
    language: str = ""
    channel: str = ""
    recording: str = ""
    state: Literal["starting", "live", "ended"] = "starting"
    answered_at: dt.datetime | None = None
    ended_at: dt.datetime | None = None
    outcome: str | None = None
    reason: str | None = None
    next_step: str | None = None


@dataclass(frozen=True, slots=True)
class EventRow:
    at: dt.datetime
    offset_ms: int
    type: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TranscriptRow:
    """What the caller said, or a sentence of the agent's and how much of it was heard.

    `heard_ms` is how long the sentence sounded on the line; None for the caller.
    """

    role: Role
    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None
    language: str = ""
    status: HeardStatus = "heard"
    heard_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ToolRow:
    offset_ms: int
    name: str
    arguments: dict[str, Any]
    result: Any
    ok: bool
    duration_ms: int
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class TurnRow:
    """Where the time of one turn went. A figure is None where the turn had no such stage.

    `gap_ms` runs from the caller's last speech to the agent's first sound, `barge_in_stop_ms` from the
    caller's first speech over the agent to silence on the line.
    """

    number: int
    offset_ms: int
    endpoint_ms: int | None = None
    stt_ms: int | None = None
    llm_first_token_ms: int | None = None
    llm_first_sentence_ms: int | None = None
    tts_first_frame_ms: int | None = None
    gap_ms: int | None = None
    speculated: bool = False
    barge_in: bool = False
    barge_in_stop_ms: int | None = None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call with everything that happened in it, in order."""

    call: CallRow
    events: tuple[EventRow, ...] = field(default=())
    transcripts: tuple[TranscriptRow, ...] = field(default=())
    tools: tuple[ToolRow, ...] = field(default=())
    turns: tuple[TurnRow, ...] = field(default=())
