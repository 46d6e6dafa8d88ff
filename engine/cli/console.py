"""What the commands share: settings, tables, findings, JSON. Results go to stdout, the rest to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.errors import OffhookError
    from engine.telephony.dialplan_lint import Finding

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_MARKS = {"ok": "[green]ok   [/]", "warn": "[yellow]warn [/]", "error": "[red]error[/]"}


def stdout() -> Console:
    # Made anew each time: the streams may have been replaced since, by a test or a redirection.
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def settings_of(context: typer.Context) -> Settings:
    """The settings this command line asked for. Raises ConfigError."""
    from engine.config import load_settings

    path: Path | None = context.obj
    return load_settings(path)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def print_error(error: OffhookError) -> None:
    out = stderr()
    out.print(f"[red]error[/] {escape(error.message)}")
    for step in error.how_to_fix:
        out.print(f"      → {escape(step)}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: int = 1) -> None:
    """The first `whole` columns are never broken over lines: people copy ids."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=len(table.columns) < whole)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    stdout().print(table)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """One line each, what to do below. Raises Exit with status 1 when any of them is an error."""
    failed = any(finding.level == "error" for finding in findings)
    if as_json:
        rows = [
            {"level": item.level, "title": item.title, "how_to_fix": item.how_to_fix}
            for item in findings
        ]
        print_json({"ok": not failed, "findings": rows})
    else:
        out = stdout()
        for item in findings:
            out.print(f"{_MARKS[item.level]} {escape(item.title)}")
            if item.how_to_fix:
                out.print(f"      → {escape(item.how_to_fix)}")
    if failed:
        raise typer.Exit(1)
