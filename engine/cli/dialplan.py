"""`offhook dialplan`: the shipped dialplan, and whether Asterisk runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.telephony.dialplan_lint import Finding

app = typer.Typer(help="Show, install and check the dialplan.", no_args_is_help=True)

AMI_WAIT_S = 5.0
EXAMPLES = "offhook-examples"


@app.command()
def show() -> None:
    """Print the shipped dialplan."""
    from engine.telephony.dialplan_check import shipped_dialplan

    typer.echo(shipped_dialplan().read_text(encoding="utf-8"), nl=False)


@app.command()
def install(
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="Asterisk's folder, such as /etc/asterisk.")
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace changed files; the old one is kept as FILE.old."),
    ] = False,
) -> None:
    """Copy offhook.conf to DIR, and examples of the other files to DIR/offhook-examples.

    No other file of Asterisk's is touched: what the examples hold is for you to take over.
    """
    from engine.telephony.dialplan_check import shipped_dialplan

    if not to.is_dir():
        raise ConfigError(
            f"{to} is not a folder", how_to_fix=["name the folder that has extensions.conf"]
        )
    source = shipped_dialplan()
    plan = {to / source.name: source}
    plan |= {to / EXAMPLES / file.name: file for file in sorted(_examples(source).glob("*.conf"))}
    changed = [
        target
        for target, file in plan.items()
        if target.exists() and target.read_bytes() != file.read_bytes()
    ]
    if changed and not force:
        raise ConfigError(
            f"changed since it was installed: {', '.join(str(path) for path in changed)}",
            how_to_fix=["add --force to replace it; the old file is kept beside it as .old"],
        )
    try:
        (to / EXAMPLES).mkdir(exist_ok=True)
        for target, file in plan.items():
            if target in changed:
                target.rename(target.with_name(target.name + ".old"))
            target.write_bytes(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{to} cannot be written: {error}", how_to_fix=["run this as root"]
        ) from error
    out = console.stderr()
    out.print(
        f"\nNow add this line to {to / 'extensions.conf'}, then reload and check:", markup=False
    )
    out.print(f"    #include {source.name}", markup=False)
    out.print("    asterisk -rx 'dialplan reload'\n    offhook dialplan check", markup=False)


@app.command()
def check(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A dialplan file. Else ask Asterisk.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Check a dialplan file, or ask the running Asterisk whether calls would reach the engine."""
    settings = console.settings_of(context)
    if file is not None:
        from engine.telephony.dialplan_lint import check_file

        findings = check_file(file, settings)
    else:
        import asyncio

        findings = asyncio.run(_ask(settings))
    console.print_findings(findings, as_json=as_json)


async def _ask(settings: Settings) -> list[Finding]:
    from engine.telephony import dialplan_check
    from engine.telephony.ami import AmiClient

    ami = settings.ami
    async with AmiClient(ami.host, ami.port, ami.username, ami.secret.get_secret_value()) as client:
        await client.wait_connected(AMI_WAIT_S)
        return await dialplan_check.check(client, settings)


def _examples(dialplan: Path) -> Path:
    # `dialplan/` and `asterisk/` are neighbours in the source tree and in an installed package.
    return dialplan.parent.parent / "asterisk"
