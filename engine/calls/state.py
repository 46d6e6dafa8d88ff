"""What is decided about a call before it is answered, where it stands, and how it ended."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from enum import Enum

from engine.config import Agent
from engine.events import utc_now


@dataclass(frozen=True, slots=True)
class CallTicket:
    """The AGI step's decision. The UUID minted for it is the only key to the media port."""

    agent: Agent
    called: str
    caller_id: str
    caller_name: str
    channel: str
    """Asterisk's channel name, for AMI: empty where no Asterisk is behind the line (a bench)."""
    direction: str = "inbound"
    record: bool = False
    fallback: str = "menu"
    """What OFFHOOK_NEXT already says: where the dialplan goes if the engine dies in mid-call."""
    started_at: dt.datetime = field(default_factory=utc_now)


class CallState(Enum):
    """Where a live call stands, in the words the panel shows."""

    GREETING = "greeting"
    LISTENING = "listening"
    THINKING = "thinking"
    SPEAKING = "speaking"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    `result` is one of: completed (the agent ended it), caller_hangup, transferred, silence, limit,
    drained, failed. `next_step` is what the dialplan follows: hangup, dial:EXTEN, queue:NAME, menu, message.
    """

    result: str
    next_step: str = "hangup"
    reason: str = ""
