"""`offhook bench`: how fast it is on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer

from engine.cli import console

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


class Through(StrEnum):
    audiosocket = "audiosocket"
    asterisk = "asterisk"


Calls = Annotated[int, typer.Option("--calls", min=1, max=1000, help="At once.")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, max=86_400, help="How long.")]
By = Annotated[
    Through,
    typer.Option("--through", help="Straight to the media port, or as SIP calls through Asterisk."),
]


@app.command()
def turn(
    context: typer.Context,
    calls: Calls = 1,
    seconds: Seconds = 60,
    through: By = Through.audiosocket,
    as_json: console.AsJson = False,
) -> None:
    """From the caller's last sound to the agent's first, with the real models."""
    _run(context, "turn", calls, seconds, through, as_json=as_json)


@app.command()
def bargein(
    context: typer.Context,
    calls: Calls = 1,
    seconds: Seconds = 60,
    through: By = Through.audiosocket,
    as_json: console.AsJson = False,
) -> None:
    """From the caller's first sound over the agent to silence on the line."""
    _run(context, "bargein", calls, seconds, through, as_json=as_json)


@app.command()
def media(
    context: typer.Context,
    calls: Calls = 20,
    seconds: Seconds = 60,
    through: By = Through.audiosocket,
    as_json: console.AsJson = False,
) -> None:
    """The sound alone: lateness of the 20 ms clock and CPU for each call, with silent models."""
    _run(context, "media", calls, seconds, through, as_json=as_json)


@app.command()
def stt(
    context: typer.Context,
    calls: Calls = 1,
    seconds: Seconds = 60,
    through: By = Through.audiosocket,
    as_json: console.AsJson = False,
) -> None:
    """How well and how fast speech is understood."""
    _run(context, "stt", calls, seconds, through, as_json=as_json)


@app.command()
def endpoint(context: typer.Context, as_json: console.AsJson = False) -> None:
    """How often a caller who pauses is cut off, and how long one who has finished waits."""
    _run(context, "endpoint", 1, 1, Through.audiosocket, as_json=as_json)


@app.command()
def llm(context: typer.Context, as_json: console.AsJson = False) -> None:
    """How fast answers are written: one alone, and several calls' at once."""
    _run(context, "llm", 1, 1, Through.audiosocket, as_json=as_json)


def _run(
    context: typer.Context,
    name: str,
    calls: int,
    seconds: float,
    through: Through,
    *,
    as_json: bool,
) -> None:
    import asyncio
    import importlib

    settings = console.settings_of(context)
    # The benches draw in models and callers; nobody else should wait for that import.
    run = importlib.import_module(f"engine.bench.{name}").run
    result: dict[str, Any] = asyncio.run(
        run(settings, calls=calls, seconds=seconds, through=through.value)
    )
    if as_json:
        console.print_json(result)
    else:
        console.print_table(("", ""), list(_flat(result)))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, "-" if value is None else str(value)
