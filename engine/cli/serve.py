"""`offhook serve`."""

from __future__ import annotations

import typer

from engine.cli import console


def serve(context: typer.Context) -> None:
    """Answer calls until SIGTERM; then let the live ones end. SIGHUP: read agents and routes anew."""
    import asyncio

    from engine.app import run
    from engine.observability.log import configure

    settings = console.settings_of(context)
    configure(settings.log_level, as_json=settings.log_json)
    asyncio.run(run(settings, reread=lambda: console.settings_of(context)))
