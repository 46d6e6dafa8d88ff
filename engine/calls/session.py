"""One call, top to bottom: the line, the conversation, the record, and what the dialplan does next."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.aio import cancel_and_wait
from engine.calls.conversation import Conversation
from engine.calls.ears import Ears
from engine.calls.handoff import Handoff
from engine.calls.journal import Journal
from engine.calls.parts import Parts
from engine.calls.state import CallTicket, Outcome
from engine.dialog.history import Ledger
from engine.dialog.mind import Mind
from engine.dialog.tools.telephony import agent_registry
from engine.errors import LegClosed, StorageError
from engine.events import EventBus, utc_now
from engine.media.frame import Digit, Frame
from engine.media.recorder import Recorder
from engine.observability.log import in_call
from engine.playback.player import Player
from engine.storage.records import CallStore
from engine.storage.rows import CallRow
from engine.telephony.leg import Leg

log = logging.getLogger(__name__)

RECORD_DEADLINE_S = 1.0
"""A database that does not answer may not keep a caller waiting longer than this."""


class CallSession:
    """Runs one call. `run` returns when the line may be closed; it raises only CancelledError."""

    def __init__(
        self,
        ticket: CallTicket,
        leg: Leg,
        *,
        parts: Parts,
        handoff: Handoff,
        store: CallStore | None,
        bus: EventBus,
        recordings: Path,
    ) -> None:
        self.call_id = leg.call_id
        self.ticket = ticket
        self._leg = leg
        self._parts = parts
        self._handoff = handoff
        self._store = store
        self._journal = Journal(leg.call_id, store, bus)
        self._recording = recordings / f"{leg.call_id}.wav" if ticket.record else None
        self._recorder: Recorder | None = None
        self._ears = Ears(leg.rate, ticket.agent.turns, parts.make_vad(leg.rate))
        self._player = Player(leg, tap=self._sent)
        self._over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._talk = Conversation(
            ticket=ticket,
            parts=parts,
            player=self._player,
            ears=self._ears,
            rate=leg.rate,
            journal=self._journal,
            finish=self._finish,
            make_mind=self._mind,
        )

    @property
    def player(self) -> Player:
        return self._player

    @property
    def ledger(self) -> Ledger:
        return self._talk.ledger

    @property
    def recording(self) -> Path | None:
        """The WAV, whole once `run` has returned; None when the call is not recorded."""
        return self._recording

    def snapshot(self) -> dict[str, Any]:
        """What the panel shows of a live call."""
        return {
            "id": self.call_id,
            "agent": self.ticket.agent.id,
            "called": self.ticket.called,
            "caller": self.ticket.caller_id,
            "direction": self.ticket.direction,
            "state": self._talk.state.value,
            "since_ms": self._journal.offset_ms(),
        }

    def end_politely(self, result: str) -> None:
        """Say goodbye, then end."""
        self._talk.say_goodbye(result)

    async def run(self) -> Outcome:
        with in_call(self.call_id):
            return await self._run()

    async def _run(self) -> Outcome:
        # 1. the record exists before the caller hears a word
        await self._open_record()
        if self._recording is not None:
            self._recorder = Recorder(self._recording, self._leg.rate)
        # 2. the line runs: our clock out, frames in
        player = asyncio.create_task(self._player.run(), name="player")
        listener = asyncio.create_task(self._listen(), name="listener")
        patience = asyncio.create_task(self._limit(), name="call limit")
        outcome = Outcome("failed", self.ticket.fallback, "CANCELLED")
        try:
            self._talk.greet()
            outcome = await self._until_over(player, listener)
        finally:
            ending = asyncio.create_task(self._end(outcome, player, listener, patience))
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError:
                # A server that closes cancels us, and still the dialplan and the record are told.
                await ending
                raise
        return outcome

    async def _end(self, outcome: Outcome, *line: asyncio.Task[None]) -> None:
        # 3. the conversation stops first, so that the ledger tells the truth
        await self._talk.close()
        # 4. the dialplan must know its next step before the media ends
        await self._handoff.decide(self.ticket.channel, outcome)
        await cancel_and_wait(*line)
        # 5. the record is closed
        await self._close_record(outcome)

    async def _until_over(
        self, player: asyncio.Task[None], listener: asyncio.Task[None]
    ) -> Outcome:
        waiting: set[asyncio.Future[Any]] = {self._over, player, listener}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            return self._over.result()
        for task in (listener, player):
            if task.done() and (error := task.exception()) and not isinstance(error, LegClosed):
                log.error("a call failed", exc_info=error, extra={"call_id": self.call_id})
                self._journal.note("call.error", code=type(error).__name__)
                return Outcome("failed", self.ticket.fallback, type(error).__name__)
        return Outcome("caller_hangup", "hangup")

    async def _listen(self) -> None:
        async for item in self._leg.receive():
            if isinstance(item, Digit):
                self._talk.press(item)
                continue
            if self._recorder is not None:
                self._recorder.offer_caller(item)
            self._talk.hear(item)

    def _sent(self, frame: Frame) -> None:
        self._ears.sent(frame)
        if self._recorder is not None:
            self._recorder.offer_agent(frame)

    def _finish(self, outcome: Outcome) -> None:
        if not self._over.done():
            self._over.set_result(outcome)

    async def _limit(self) -> None:
        await asyncio.sleep(self._parts.limits.call_s)
        self.end_politely("limit")

    def _mind(self, talk: Conversation, ledger: Ledger) -> Mind:
        agent = self.ticket.agent
        return Mind(
            agent,
            self._parts.llm,
            agent_registry(agent),
            ledger,
            talk,
            now=datetime.now().astimezone(),
            cache_key=self.call_id,
            limits=self._parts.limits,
        )

    async def _open_record(self) -> None:
        ticket = self.ticket
        self._journal.note(
            "call.started", keep=False, agent=ticket.agent.id, direction=ticket.direction
        )
        if self._store is None:
            return
        row = CallRow(
            id=self.call_id,
            direction="outbound" if ticket.direction == "outbound" else "inbound",
            from_number=ticket.caller_id,
            to_number=ticket.called,
            started_at=ticket.started_at,
            agent=ticket.agent.id,
            agent_version=ticket.agent.version,
            language=ticket.agent.language,
            channel=ticket.channel,
        )
        try:
            await asyncio.wait_for(self._store.call_started(row), RECORD_DEADLINE_S)
        except (StorageError, TimeoutError):
            # The writer keeps the row and tries again; the caller need not wait for the disk.
            log.warning("the call's record is late", extra={"call_id": self.call_id})
        recording = str(self._recording) if self._recording else ""
        self._store.call_answered(self.call_id, utc_now(), recording=recording)

    async def _close_record(self, outcome: Outcome) -> None:
        if self._recorder is not None:
            await self._recorder.close()
        await self._parts.llm.forget(self.call_id)
        self._journal.note(
            "call.finished",
            result=outcome.result,
            next_step=outcome.next_step,
            reason=outcome.reason,
        )
        if self._store is not None:
            self._store.call_finished(
                self.call_id, outcome.result, outcome.reason, utc_now(), outcome.next_step
            )
