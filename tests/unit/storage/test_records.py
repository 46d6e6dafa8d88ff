from __future__ import annotations

import asyncio
import datetime as dt
import math
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from engine.errors import StorageError
from engine.events import utc_now
from engine.storage.db import open_database
from engine.storage.records import ENGINE_LOST, CallStore, _Ids
from engine.storage.rows import CallRow, ToolRow, TranscriptRow, TurnRow
from engine.storage.tables import calls

NOON = dt.datetime(2026, 2, 17, 12, 0, 0, 123000, tzinfo=dt.UTC)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = await open_database(f"sqlite+aiosqlite:///{tmp_path / 'calls.sqlite3'}")
    yield engine
    await engine.dispose()


@pytest.fixture
async def store(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[CallStore]:
    store = CallStore(engine, tmp_path / "spool", node="pbx-1")
    await store.start()
    yield store
    await store.close()


def a_call(call_id: str = "call-1", started_at: dt.datetime = NOON) -> CallRow:
    return CallRow(
        id=call_id,
        direction="inbound",
        from_number="+15550100",
        to_number="100",
        started_at=started_at,
        agent="reception",
        language="en",
        channel="PJSIP/trunk-00000001",
    )


async def test_a_call_reads_back_as_it_was_told(store: CallStore) -> None:
    await store.call_started(a_call())
    store.call_answered("call-1", NOON + dt.timedelta(seconds=1), recording="var/call-1.wav")
    said = TranscriptRow("caller", "Good morning — это я", 100, 900, 0.91, "en")
    cut = TranscriptRow("agent", "We are open until six.", 1500, 2100, None, "en", "cut", 600)
    tool = ToolRow(2200, "collect_digits", {"count": 4}, {"digits": "1234"}, True, 35, "t-1")
    turn = TurnRow(1, 900, endpoint_ms=350, gap_ms=610, speculated=True, barge_in=True)
    store.event("call-1", 3000, "bargein.confirmed", {"ms": 180})
    store.transcript("call-1", cut)
    store.transcript("call-1", said)
    store.tool("call-1", tool)
    store.turn("call-1", turn)
    ended_at = NOON + dt.timedelta(seconds=9)
    store.call_finished("call-1", "caller_hangup", "", ended_at, "hangup")
    await store.flush()

    record = await store.get_call("call-1")
    assert record is not None
    assert record.call.state == "ended"
    assert record.call.started_at == NOON
    assert record.call.answered_at == NOON + dt.timedelta(seconds=1)
    assert record.call.ended_at == ended_at
    assert record.call.outcome == "caller_hangup" and record.call.next_step == "hangup"
    assert record.call.recording == "var/call-1.wav" and record.call.language == "en"
    assert record.transcripts == (said, cut)
    assert record.tools == (tool,)
    assert record.turns == (turn,)
    assert [(event.type, event.data) for event in record.events] == [
        ("bargein.confirmed", {"ms": 180})
    ]


async def test_the_start_is_committed_before_it_returns(
    store: CallStore, engine: AsyncEngine
) -> None:
    await store.call_started(a_call())
    async with engine.connect() as other:
        assert (await other.execute(sa.select(calls.c.state))).scalar_one() == "starting"


async def test_rows_are_committed_without_anyone_waiting_for_them(store: CallStore) -> None:
    await store.call_started(a_call())
    store.event("call-1", 0, "call.answered")
    for _ in range(200):
        record = await store.get_call("call-1")
        if record and record.events:
            break
        await asyncio.sleep(0.01)
    assert record is not None and [event.type for event in record.events] == ["call.answered"]


async def test_calls_are_listed_newest_first_and_only_those_of_the_project(
    store: CallStore, engine: AsyncEngine, tmp_path: Path
) -> None:
    for number in range(4):
        await store.call_started(a_call(f"call-{number}", NOON + dt.timedelta(minutes=number)))
    stranger = CallStore(engine, tmp_path / "other", project_id="another")
    assert [call.id for call in await store.list_calls(3)] == ["call-3", "call-2", "call-1"]
    assert await stranger.list_calls() == []
    assert await stranger.get_call("call-1") is None
    assert await store.get_call("unknown") is None


async def test_reconcile_closes_what_this_node_left_open(
    store: CallStore, engine: AsyncEngine, tmp_path: Path
) -> None:
    before = utc_now()
    await store.call_started(a_call("rang"))
    await store.call_started(a_call("talked"))
    await store.call_started(a_call("ended"))
    store.call_answered("talked", before - dt.timedelta(seconds=5))
    store.event("talked", 5000, "turn.finished")
    store.call_finished("ended", "completed", "", NOON, "hangup")
    await store.flush()
    neighbour = CallStore(engine, tmp_path / "neighbour", node="pbx-2")

    assert await neighbour.reconcile(utc_now()) == 0
    assert await store.reconcile(utc_now()) == 2
    assert await store.reconcile(utc_now()) == 0

    rang, talked, ended = [await store.get_call(id) for id in ("rang", "talked", "ended")]
    assert rang and talked and ended
    assert rang.call.outcome == talked.call.outcome == ENGINE_LOST
    assert rang.call.state == talked.call.state == "ended"
    assert rang.call.ended_at == NOON, "it never got further than its start"
    assert talked.call.ended_at == talked.events[0].at, "the last sign of life"
    assert talked.events[-1].type == "call.engine_lost"
    assert talked.events[-1].offset_ms >= 5000
    assert ended.call.outcome == "completed" and ended.events == ()


async def test_a_row_the_database_refuses_is_put_aside_and_the_others_stay(
    store: CallStore, tmp_path: Path
) -> None:
    await store.call_started(a_call())
    store.event("call-1", 1, "before")
    store.event("no-such-call", 2, "orphan", {"why": "no parent"})
    store.event("call-1", 10**30, "a number no database holds")
    store.event("call-1", 3, "after")
    await store.flush()
    record = await store.get_call("call-1")
    assert record and [event.type for event in record.events] == ["before", "after"]
    rejected = (tmp_path / "spool" / "rejected.jsonl").read_text()
    assert "orphan" in rejected and "a number no database holds" in rejected
    assert store.database_is_up and store.lost == 0


async def test_anything_a_model_says_can_be_stored(store: CallStore) -> None:
    await store.call_started(a_call())
    store.transcript("call-1", TranscriptRow("agent", "nul\x00 and \ud800 half", 0, 1))
    store.tool("call-1", ToolRow(0, "t", {"p": Path("x"), "n": math.nan}, {NOON, 1}, False, 1))
    store.event("call-1", 0, "odd", {"when": NOON, "nested": ({"\x00key": math.inf},)})
    await store.flush()
    record = await store.get_call("call-1")
    assert record and record.transcripts[0].text == "nul and ? half"
    assert record.tools[0].arguments == {"p": "x", "n": None}
    assert record.events[0].data == {"when": str(NOON), "nested": [{"key": None}]}


async def test_a_closed_store_refuses_a_call_and_counts_what_comes_late(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    await store.call_started(a_call())
    store.event("call-1", 1, "last")
    await store.close()
    await store.close()
    record = await store.get_call("call-1")
    assert record and len(record.events) == 1, "what was queued before is stored"
    store.event("call-1", 2, "too late")
    with pytest.raises(StorageError):
        await store.call_started(a_call("call-2"))
    assert store.lost == 2


async def test_closing_finishes_although_it_is_cancelled(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    store = CallStore(engine, tmp_path / "spool")
    await store.start()
    await store.call_started(a_call())
    for number in range(500):
        store.event("call-1", number, "tick")
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    record = await store.get_call("call-1")
    assert record and [event.offset_ms for event in record.events] == list(range(500))


def test_ids_are_uuid7_and_sort_in_the_order_they_were_made() -> None:
    next_id = _Ids()
    made = [next_id() for _ in range(10_000)]
    assert made == sorted(made) and len(set(made)) == len(made)
    assert {uuid.UUID(text).version for text in made} == {7}
    assert {uuid.UUID(text).variant for text in made} == {uuid.RFC_4122}
