from __future__ import annotations

from typing import Any

import pytest

from engine.calls.journal import Journal
from engine.calls.turn import Timings
from engine.dialog.mind import ToolFinished, ToolStarted
from engine.events import Event, EventBus
from engine.playback.utterance import HeardSentence
from engine.stt.base import Transcript


class Store:
    """What is written, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []

    def event(self, call_id: str, offset_ms: int, type: str, data: dict[str, Any]) -> None:
        self.rows.append(("event", (type, data)))

    def transcript(self, call_id: str, row: Any) -> None:
        self.rows.append(("transcript", row))

    def tool(self, call_id: str, row: Any) -> None:
        self.rows.append(("tool", row))

    def turn(self, call_id: str, row: Any) -> None:
        self.rows.append(("turn", row))

    def only(self, kind: str) -> Any:
        (row,) = [row for found, row in self.rows if found == kind]
        return row


class Desk:
    def __init__(self, *, keeps: bool = True) -> None:
        self.store = Store()
        self.events: list[Event] = []
        bus = EventBus()
        bus.listen(self.events.append)
        self.journal = Journal("call-1", self.store if keeps else None, bus)
        self.start = self.journal._answered_at


def sentence(status: Any, heard_ms: int, started_at: float | None) -> HeardSentence:
    return HeardSentence("Hello.", "en", status, heard_ms, 500, False, started_at)


async def test_events_are_published_and_kept_where_they_matter() -> None:
    desk = Desk()
    desk.journal.note("agent.resumed", why="x")
    desk.journal.note("caller.key", keep=False)
    assert [(e.type, e.call_id, e.data) for e in desk.events] == [
        ("agent.resumed", "call-1", {"why": "x"}),
        ("caller.key", "call-1", {}),
    ]
    assert desk.store.rows == [("event", ("agent.resumed", {"why": "x"}))]


async def test_offsets_count_from_the_answer_and_are_never_negative() -> None:
    desk = Desk()
    assert desk.journal.offset_ms(desk.start + 1.2345) == 1234
    assert desk.journal.offset_ms(desk.start - 5) == 0


async def test_what_the_caller_said_has_its_place() -> None:
    desk = Desk()
    at = desk.start
    desk.journal.caller_said(
        Transcript("Open?", "en", 0.87654), Timings(speech_from=at + 1, speech_to=at + 2)
    )
    row = desk.store.only("transcript")
    assert (row.role, row.text, row.start_ms, row.end_ms) == ("caller", "Open?", 1000, 2000)
    assert row.confidence == 0.87654 and row.heard_ms is None
    assert desk.events[0].data["confidence"] == 0.877


@pytest.mark.parametrize(
    ("status", "stored"),
    [("played", "heard"), ("cut", "cut"), ("unheard", "unheard"), ("queued", "unheard")],
)
async def test_the_agents_words_are_stored_as_they_were_heard(status: Any, stored: str) -> None:
    desk = Desk()
    desk.journal.agent_said((sentence(status, 200, desk.start + 3),))
    row = desk.store.only("transcript")
    assert (row.role, row.status, row.start_ms, row.end_ms) == ("agent", stored, 3000, 3200)
    assert (row.heard_ms, row.confidence) == (200, None)
    assert desk.events[0].data["total_ms"] == 500


async def test_a_tool_is_stored_with_the_arguments_it_began_with() -> None:
    desk = Desk()
    desk.journal.tool_started(ToolStarted("order", {"size": 17}, "c1"))
    desk.journal.tool_finished(ToolFinished("c1", "order", True, "done", 12.6))
    row = desk.store.only("tool")
    assert (row.name, row.arguments, row.result, row.ok) == ("order", {"size": 17}, "done", True)
    assert (row.duration_ms, row.trace_id) == (13, "c1")
    assert [event.type for event in desk.events] == ["tool.started", "tool.finished"]


async def test_a_turn_tells_where_its_time_went() -> None:
    desk = Desk()
    at = desk.start
    timings = Timings(
        speech_from=at + 1,
        speech_to=at + 2,
        over_at=at + 2.36,
        heard_at=at + 2.4,
        sentence_at=at + 2.6,
        sound_at=at + 2.7,
        stt_ms=200,
    )
    for first_frame_at in (at + 2.72, None):
        desk.journal.turn_finished(
            timings, first_frame_at, speculated=True, barge_in=False, barge_in_stop_ms=None
        )
    first, second = [row for kind, row in desk.store.rows if kind == "turn"]
    assert (first.number, first.offset_ms, first.endpoint_ms, first.stt_ms) == (1, 2000, 360, 200)
    assert (first.llm_first_sentence_ms, first.tts_first_frame_ms, first.gap_ms) == (200, 100, 720)
    assert (second.number, second.gap_ms) == (2, None)


def test_a_stage_that_did_not_happen_has_no_figure() -> None:
    assert Timings(speech_to=1.0).stages_ms(None) == {
        "endpoint": None,
        "stt": None,
        "llm_first_sentence": None,
        "tts_first_frame": None,
        "gap": None,
    }


async def test_without_a_store_the_watchers_are_told_all_the_same() -> None:
    desk = Desk(keeps=False)
    desk.journal.note("agent.resumed")
    desk.journal.agent_said((sentence("played", 500, desk.start),))
    desk.journal.tool_started(ToolStarted("order", {}, "c1"))
    desk.journal.tool_finished(ToolFinished("c1", "order", True, "done", 1.0))
    desk.journal.caller_said(Transcript("Hi", "en", 1.0), Timings())
    desk.journal.turn_finished(
        Timings(), None, speculated=False, barge_in=False, barge_in_stop_ms=None
    )
    assert len(desk.events) == 6
