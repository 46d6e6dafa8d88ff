"""What every line looks like, whichever transport carries it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from engine.media.frame import Digit, Frame


class Leg(Protocol):
    """One telephone line: frames in, frames out.

    `receive` yields a frame every 20 ms for as long as the line is up, whatever the peer does: any
    inbound frame size is cut to 20 ms and silence is made where nothing comes. It ends when the line ends.
    """

    call_id: str
    """The call's UUID, dashed, lower case."""
    rate: int
    """Samples per second in both directions."""
    lead_frames: int
    """How many frames the far side should hold ahead of the ear: 0 where it plays at once."""

    def receive(self) -> AsyncIterator[Frame | Digit]: ...

    async def send(self, frame: Frame) -> None:
        """Write one frame now. Raises LegClosed."""
        ...

    async def flush(self) -> None:
        """Drop whatever the far side still holds."""
        ...

    async def hang_up(self) -> None:
        """End the media politely: the dialplan goes on. Safe to call twice."""
        ...
