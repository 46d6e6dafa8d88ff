"""`offhook demo`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import console


class Language(StrEnum):
    en = "en"
    ru = "ru"


def demo(
    context: typer.Context,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running, for a softphone of your own.")
    ] = False,
    language: Annotated[Language, typer.Option("--language", help="What is spoken.")] = Language.en,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the recording and the picture go.")
    ] = Path("var/demo"),
) -> None:
    """Start a real Asterisk, call the agent by SIP, and show the conversation."""
    import asyncio

    from engine.lab.demo import run

    settings = console.settings_of(context)
    raise typer.Exit(asyncio.run(run(settings, keep=keep, language=language.value, out=out)))
