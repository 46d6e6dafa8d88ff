"""A caller by SIP and RTP: the softphone, as a measurement sees it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Self

from engine.errors import LegClosed
from engine.lab.caller import Caller
from engine.lab.phone_call import PhoneCall
from engine.lab.softphone import Softphone
from engine.media.frame import Samples


class SipCaller(Caller):
    """One call from a telephone of its own. What it heard is placed as by an ear with a playout buffer."""

    def __init__(self, call: PhoneCall, life: AsyncExitStack) -> None:
        super().__init__()
        self.heard = call.stream.heard.placed
        self.said = call.stream.sent.placed
        self.ended = call.ended
        self.answered_at = call.answered_at
        self._call = call
        self._life = life

    @classmethod
    async def call(cls, name: str, target: str) -> Self:
        """Call `sip:user@host:port` as the number `name`. Raises CallFailed."""
        async with AsyncExitStack() as stack:
            phone = await stack.enter_async_context(Softphone(name))
            return cls(await phone.call(target), stack.pop_all())

    async def play(self, samples: Samples) -> tuple[float, float]:
        began = self._now()
        try:
            await self._call.play(samples)
        except LegClosed:
            pass  # hung up on: `ended` says so
        return self._sounded(began)

    async def hang_up(self) -> None:
        await self._life.aclose()
