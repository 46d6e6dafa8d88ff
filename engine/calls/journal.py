"""What happened in one call, told once: to the database, and to whoever watches."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.calls.turn import Timings
from engine.dialog.mind import ToolFinished, ToolStarted
from engine.events import Event, EventBus, utc_now
from engine.playback.utterance import HeardSentence
from engine.storage.records import CallStore
from engine.storage.rows import ToolRow, TranscriptRow, TurnRow
from engine.stt.base import Transcript

_STATUS = {"played": "heard", "cut": "cut"}


class Journal:
    """Offsets are milliseconds since the line was answered. Nothing here waits."""

    def __init__(self, call_id: str, store: CallStore | None, bus: EventBus) -> None:
        self._call_id = call_id
        self._store = store
        self._bus = bus
        self._now = asyncio.get_running_loop().time
        self._answered_at = self._now()
        self._turns = 0
        self._arguments: dict[str, dict[str, Any]] = {}

    def offset_ms(self, at: float | None = None) -> int:
        return max(0, round(((self._now() if at is None else at) - self._answered_at) * 1000))

    def note(self, type: str, /, *, keep: bool = True, **data: Any) -> None:
        """Publish an event; `keep` writes it to the call's record too."""
        offset = self.offset_ms()
        self._bus.publish(Event(type, self._call_id, offset, data, utc_now()))
        if keep and self._store is not None:
            self._store.event(self._call_id, offset, type, data)

    def caller_said(self, transcript: Transcript, timings: Timings) -> None:
        start, end = self.offset_ms(timings.speech_from), self.offset_ms(timings.speech_to)
        self.note(
            "caller.said",
            keep=False,
            text=transcript.text,
            language=transcript.language,
            confidence=round(transcript.confidence, 3),
            start_ms=start,
            end_ms=end,
        )
        if self._store is not None:
            row = TranscriptRow(
                "caller", transcript.text, start, end, transcript.confidence, transcript.language
            )
            self._store.transcript(self._call_id, row)

    def agent_said(self, sentences: tuple[HeardSentence, ...]) -> None:
        """The sentences of one utterance, and how much of each sounded on the line."""
        for sentence in sentences:
            start = self.offset_ms(sentence.started_at)
            status = _STATUS.get(sentence.status, "unheard")
            self.note(
                "agent.said",
                keep=False,
                text=sentence.text,
                language=sentence.language,
                status=status,
                heard_ms=sentence.heard_ms,
                total_ms=sentence.total_ms,
                resumed=sentence.resumed,
                start_ms=start,
            )
            if self._store is not None:
                row = TranscriptRow(
                    "agent",
                    sentence.text,
                    start,
                    start + sentence.heard_ms,
                    None,
                    sentence.language,
                    status,  # type: ignore[arg-type]
                    sentence.heard_ms,
                )
                self._store.transcript(self._call_id, row)

    def tool_started(self, tool: ToolStarted) -> None:
        self._arguments[tool.id] = tool.arguments
        self.note("tool.started", name=tool.name)

    def tool_finished(self, tool: ToolFinished) -> None:
        arguments = self._arguments.pop(tool.id, {})
        self.note("tool.finished", name=tool.name, ok=tool.ok, took_ms=round(tool.took_ms))
        if self._store is not None:
            row = ToolRow(
                self.offset_ms(),
                tool.name,
                arguments,
                tool.result,
                tool.ok,
                round(tool.took_ms),
                tool.id,
            )
            self._store.tool(self._call_id, row)

    def turn_finished(
        self,
        timings: Timings,
        first_frame_at: float | None,
        *,
        speculated: bool,
        barge_in: bool,
        barge_in_stop_ms: int | None,
    ) -> None:
        self._turns += 1
        stages = timings.stages_ms(first_frame_at)
        self.note(
            "turn.finished",
            keep=False,
            number=self._turns,
            stages_ms=stages,
            speculated=speculated,
            barge_in=barge_in,
            barge_in_stop_ms=barge_in_stop_ms,
        )
        if self._store is not None:
            row = TurnRow(
                number=self._turns,
                offset_ms=self.offset_ms(timings.speech_to or first_frame_at),
                endpoint_ms=stages["endpoint"],
                stt_ms=stages["stt"],
                llm_first_sentence_ms=stages["llm_first_sentence"],
                tts_first_frame_ms=stages["tts_first_frame"],
                gap_ms=stages["gap"],
                speculated=speculated,
                barge_in=barge_in,
                barge_in_stop_ms=barge_in_stop_ms,
            )
            self._store.turn(self._call_id, row)
