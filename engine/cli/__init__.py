"""The `offhook` command. One file for each group; what is slow to import is imported inside a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine import __version__
from engine.cli import bench, call, calls, console, db, demo, dialplan, doctor, models, serve
from engine.errors import OffhookError

app = typer.Typer(
    name="offhook",
    help="Puts an AI on the telephone for people who run Asterisk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offhook {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Settings file. Else $OFFHOOK_CONFIG, ./offhook.toml, /etc/offhook/offhook.toml.",
        ),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    from engine.observability.log import configure

    context.obj = config
    # A command tells its own errors in words; `serve` asks for more.
    configure("error")


app.command()(serve.serve)
app.command()(doctor.doctor)
app.command()(demo.demo)
app.command()(call.call)
app.add_typer(calls.app, name="calls")
app.add_typer(models.app, name="models")
app.add_typer(dialplan.app, name="dialplan")
app.add_typer(db.app, name="db")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line. What went wrong and what to do about it goes to stderr, the exit status is 1."""
    try:
        app()
    except OffhookError as error:
        console.print_error(error)
        raise SystemExit(1) from None
