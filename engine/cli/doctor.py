"""`offhook doctor`."""

from __future__ import annotations

import typer

from engine.cli import console


def doctor(context: typer.Context, as_json: console.AsJson = False) -> None:
    """Look at everything a call needs and say what to do about what is missing."""
    import asyncio

    from engine.cli import checks
    from engine.errors import ConfigError
    from engine.telephony.dialplan_lint import Finding

    try:
        settings = console.settings_of(context)
    except ConfigError as error:
        findings = [Finding("error", error.message, "; ".join(error.how_to_fix))]
    else:
        findings = asyncio.run(checks.everything(settings))
    console.print_findings(findings, as_json=as_json)
