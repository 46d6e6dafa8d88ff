"""Where the caller goes after the conversation: told to the dialplan over AMI before the media ends."""

from __future__ import annotations

import logging
from typing import Protocol

from engine.calls.state import Outcome
from engine.errors import AsteriskError

log = logging.getLogger(__name__)


class ChannelVariables(Protocol):
    async def set_variable(self, channel: str, name: str, value: str) -> None: ...


class Handoff:
    """Sets OFFHOOK_NEXT. Without AMI the channel keeps the fallback that the AGI step gave it."""

    def __init__(self, ami: ChannelVariables | None) -> None:
        self._ami = ami

    async def decide(self, channel: str, outcome: Outcome) -> bool:
        """Tell the dialplan; False when it could not be told (the fallback stands)."""
        if self._ami is None or not channel or outcome.result == "caller_hangup":
            return False
        try:
            await self._ami.set_variable(channel, "OFFHOOK_NEXT", outcome.next_step)
        except AsteriskError as error:
            log.warning("the dialplan could not be told its next step", extra={"code": error.code})
            return False
        return True
