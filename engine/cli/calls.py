"""`offhook calls`: what the record book says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.errors import OffhookError, StorageError

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.storage.rows import CallRecord, CallRow

app = typer.Typer(help="List calls and show one.", no_args_is_help=True)


@app.command("list")
def list_calls(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000)] = 20,
    as_json: console.AsJson = False,
) -> None:
    """The latest calls, newest first."""
    import asyncio

    calls = asyncio.run(_list(console.settings_of(context), limit))
    if as_json:
        console.print_json([dataclasses.asdict(call) for call in calls])
        return
    console.print_table(
        ("call", "started", "from", "to", "agent", "seconds", "outcome"),
        [
            (
                call.id,
                f"{call.started_at.astimezone():%Y-%m-%d %H:%M:%S}",
                call.from_number,
                call.to_number,
                call.agent,
                _seconds(call),
                call.outcome or call.state,
            )
            for call in calls
        ],
    )


@app.command()
def show(
    context: typer.Context,
    call_id: Annotated[str, typer.Argument(metavar="ID")],
    as_json: console.AsJson = False,
) -> None:
    """One call: what was said and heard, what the tools did, where the time went."""
    import asyncio

    record = asyncio.run(_get(console.settings_of(context), call_id))
    if record is None:
        raise OffhookError(
            f"there is no call {call_id}", how_to_fix=["`offhook calls list` shows their ids"]
        )
    if as_json:
        console.print_json(dataclasses.asdict(record))
        return
    call = record.call
    typer.echo(f"{call.direction} call {call.id}")
    typer.echo(f"{call.from_number} → {call.to_number}, agent {call.agent}, {call.language}")
    typer.echo(f"started {call.started_at.astimezone():%Y-%m-%d %H:%M:%S}, {_seconds(call)} s")
    ending = [call.outcome or call.state, call.reason, call.next_step and f"then {call.next_step}"]
    typer.echo(", ".join(part for part in ending if part))
    if call.recording:
        typer.echo(f"recording {call.recording}")
    for _, line in sorted(_story(record), key=lambda entry: entry[0]):
        typer.echo(line)


def _story(record: CallRecord) -> Iterator[tuple[int, str]]:
    """Everything that happened, as (offset in milliseconds, line)."""
    for said in record.transcripts:
        note = "" if said.status == "heard" else f"  [{said.status}]"
        yield said.start_ms, f"{_at(said.start_ms)} {said.role:<6} {said.text}{note}"
    for tool in record.tools:
        state = "ok" if tool.ok else "failed"
        line = f"{_at(tool.offset_ms)} tool   {tool.name} {state} in {tool.duration_ms} ms"
        yield tool.offset_ms, line
    for turn in record.turns:
        stages = {
            "gap": turn.gap_ms,
            "endpoint": turn.endpoint_ms,
            "stt": turn.stt_ms,
            "llm": turn.llm_first_sentence_ms,
            "tts": turn.tts_first_frame_ms,
            "stopped in": turn.barge_in_stop_ms,
        }
        told = ", ".join(f"{name} {value}" for name, value in stages.items() if value is not None)
        yield turn.offset_ms, f"{_at(turn.offset_ms)} turn   {turn.number}: {told or '-'} (ms)"
    for event in record.events:
        yield event.offset_ms, f"{_at(event.offset_ms)} event  {event.type}"


def _at(offset_ms: int) -> str:
    return f"{offset_ms / 1000:8.2f}"


def _seconds(call: CallRow) -> str:
    if call.answered_at is None or call.ended_at is None:
        return "-"
    return f"{(call.ended_at - call.answered_at).total_seconds():.0f}"


async def _list(settings: Settings, limit: int) -> list[CallRow]:
    from engine.storage import db
    from engine.storage.records import CallStore

    await _require_schema(settings)
    engine = db.connect(settings.database_url)
    try:
        return await CallStore(engine, settings.data / "spool").list_calls(limit)
    finally:
        await engine.dispose()


async def _get(settings: Settings, call_id: str) -> CallRecord | None:
    from engine.storage import db
    from engine.storage.records import CallStore

    await _require_schema(settings)
    engine = db.connect(settings.database_url)
    try:
        return await CallStore(engine, settings.data / "spool").get_call(call_id)
    finally:
        await engine.dispose()


async def _require_schema(settings: Settings) -> None:
    from engine.storage import db

    state = await db.schema_state(settings.database_url)
    if not state.up_to_date:
        raise StorageError(
            f"the database schema is {state.current or 'empty'}, not {state.head}",
            how_to_fix=["run `offhook db upgrade`"],
        )
