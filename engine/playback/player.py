"""The playout clock: one frame every 20 ms for as long as the line is up, silence when nobody speaks.

    tick   |    |    |    |      |  |  |    |    |        absolute: tick n is due at start + n * 20 ms
                           late  ^^^^^^^                  a late tick is caught up at 10 ms spacing;
                                                          more than 100 ms late, the clock starts anew

Asterisk buffers nothing on AudioSocket, so what we send is what is heard now, and a cut is instant. A
leg whose far side needs a lead gets `lead_frames` of silence first, again after each flush, and then
lives one tick at a time like the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from engine.errors import LegClosed
from engine.media.frame import FRAME_S, Frame, frame_bytes
from engine.playback.utterance import Utterance
from engine.telephony.leg import Leg

log = logging.getLogger(__name__)

_RESYNC_S = 0.100
_CATCH_UP_S = FRAME_S / 2
_LATENESS_KEPT = 3000
"""One minute of ticks."""


class Player:
    """Plays utterances one after another into `leg`.

    `tap` sees every frame as it is sent, silence too; its `at` is when the far side has played it. It
    must not block or raise. `clock` and `sleep` are seconds, the loop's own unless a test drives them.
    """

    def __init__(
        self,
        leg: Leg,
        *,
        tap: Callable[[Frame], None] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._leg = leg
        self._tap = tap
        self._clock = clock
        self._sleep = sleep
        self._queue: deque[Utterance] = deque()
        self._current: Utterance | None = None
        self._sounding = False
        self._silence = bytes(frame_bytes(leg.rate))
        self._lead = leg.lead_frames
        self._prefill = True
        self._closed = False
        self.lateness_ms: deque[float] = deque(maxlen=_LATENESS_KEPT)
        """How late each of the last 3000 ticks was."""
        self.resyncs = 0
        """How often the clock fell more than 100 ms behind and started anew."""

    @property
    def current(self) -> Utterance | None:
        """The utterance being played, also while paused or waiting for its sound."""
        return self._current

    @property
    def speaking(self) -> bool:
        """An utterance has begun to sound, and is neither paused nor over."""
        return self._current is not None and self._current.state == "playing"

    def play(self, utterance: Utterance) -> None:
        """Queue an utterance. Raises ValueError when its rate is not the leg's."""
        if utterance.rate != self._leg.rate:
            raise ValueError(f"an utterance at {utterance.rate} Hz on a {self._leg.rate} Hz leg")
        if self._closed:
            utterance.interrupt()
            return
        utterance.lead_frames = self._lead
        self._queue.append(utterance)

    async def run(self) -> None:
        """Keep the clock until the line is gone; then whatever was playing or queued is interrupted."""
        clock = self._clock or asyncio.get_running_loop().time
        due = clock()
        try:
            while True:
                now = clock()
                self.lateness_ms.append(max(0.0, (now - due) * 1000))
                if now - due > _RESYNC_S:
                    self.resyncs += 1
                    log.warning("The playout clock fell behind and started anew")
                    due = now
                await self._tick(now)
                due += FRAME_S
                now = clock()
                await self._sleep(max(due - now, _CATCH_UP_S))
        except LegClosed:
            log.debug("The line is gone; the player stops")
        finally:
            self._closed = True
            for utterance in (self._current, *self._queue):
                if utterance is not None:
                    utterance.interrupt()
            self._current = None
            self._queue.clear()

    async def _tick(self, now: float) -> None:
        pcm = self._next(now)
        if pcm is None and self._sounding:
            pcm = await self._stopped()
        self._sounding = self.speaking
        if self._prefill:
            self._prefill = False
            for _ in range(self._lead):
                await self._leg.send(Frame(self._silence, self._leg.rate, now))
        frame = Frame(pcm or self._silence, self._leg.rate, now + FRAME_S * (1 + self._lead))
        await self._leg.send(frame)
        if self._tap is not None:
            self._tap(frame)

    def _next(self, now: float) -> bytes | None:
        """The sound for this tick, from the current utterance or the next that is not over."""
        while True:
            if self._current is None or self._current.done:
                if self._sounding and self._current is not None and self._current.interrupted:
                    return None
                if not self._queue:
                    self._current = None
                    return None
                self._current = self._queue.popleft()
            pcm = self._current.next_frame(now)
            if pcm is not None or not self._current.done:
                return pcm

    async def _stopped(self) -> bytes | None:
        """The utterance that sounded a frame ago does not now: fade it, or take it back."""
        cut = self._current
        if cut is None or cut.state not in ("interrupted", "paused"):
            return None
        await self._leg.flush()
        if self._lead:
            # The far side stops in the middle of what it held; a fade of later sound would not fit on.
            self._prefill = True
            return None
        return cut.fading_frame()
