"""`offhook call`: one outgoing call, placed by Asterisk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import console
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.telephony.ami import OriginateResult

AMI_WAIT_S = 5.0
CONTEXT = "offhook-outbound"
# What goes into an AMI header and a channel name must not be able to mean more than a number there.
_NUMBER = re.compile(r"\+?[0-9*#]{1,32}")
_CAUSES = {0: "no such line", 1: "no such number", 17: "busy", 18: "no answer", 19: "no answer"} | {
    21: "declined",
    34: "no free line",
}


def call(
    context: typer.Context,
    number: Annotated[
        str, typer.Argument(help="The number to call: digits, * and #, perhaps a +.")
    ],
    agent: Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that talks.")],
    channel: Annotated[
        str,
        typer.Option("--channel", help="How Asterisk reaches the number; {number} stands for it."),
    ] = "PJSIP/{number}@trunk",
    caller_id: Annotated[
        str, typer.Option("--caller-id", help="The number the called person sees.")
    ] = "",
    ring_s: Annotated[
        float, typer.Option("--ring-s", min=5, max=120, help="How long it rings.")
    ] = 30,
    as_json: console.AsJson = False,
) -> None:
    """Call NUMBER and let an agent talk. Waits for the answer; the running engine does the rest."""
    import asyncio

    from engine.config import load_agents

    if not _NUMBER.fullmatch(number):
        raise typer.BadParameter("only digits, * and #, perhaps a + before", param_hint="NUMBER")
    if caller_id and not _NUMBER.fullmatch(caller_id):
        raise typer.BadParameter("only digits, perhaps a + before", param_hint="--caller-id")
    if "{number}" not in channel or any(ord(character) < 32 for character in channel):
        raise typer.BadParameter("must contain {number}", param_hint="--channel")
    settings = console.settings_of(context)
    agents = load_agents(settings.agents)
    if agent not in agents:
        raise ConfigError(
            f"no agent is called {agent!r}", how_to_fix=[f"name one of: {', '.join(agents)}"]
        )
    line = channel.replace("{number}", number)
    result = asyncio.run(_place(settings, line, number, agent, caller_id, ring_s))
    why = "answered" if result.answered else _CAUSES.get(result.cause, f"cause {result.cause}")
    if as_json:
        console.print_json(
            {"channel_id": result.channel_id, "answered": result.answered, "result": why}
            | {"cause": result.cause, "tech_cause": result.tech_cause}
        )
    else:
        typer.echo(f"{why} {result.tech_cause}".strip())
    if not result.answered:
        raise typer.Exit(1)


async def _place(
    settings: Settings, channel: str, number: str, agent: str, caller_id: str, ring_s: float
) -> OriginateResult:
    from engine.telephony.ami import AmiClient

    ami = settings.ami
    async with AmiClient(ami.host, ami.port, ami.username, ami.secret.get_secret_value()) as client:
        await client.wait_connected(AMI_WAIT_S)
        return await client.originate(
            channel,
            context=CONTEXT,
            exten=number,
            # [offhook-outbound] hands it to the engine, which reads it as a query.
            variables={"OFFHOOK_JOB": f"agent={agent}"},
            caller_id=caller_id,
            timeout_s=ring_s,
        )
