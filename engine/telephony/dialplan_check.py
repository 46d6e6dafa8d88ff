"""Asks a running Asterisk, over AMI, whether calls would reach the engine and come back from it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Literal

import engine
from engine.config import Settings, load_agents
from engine.errors import AmiRefused, AmiUnavailable, ConfigError
from engine.telephony.ami import AmiClient
from engine.telephony.dialplan_lint import Finding, check_file, read

__all__ = ["Finding", "check", "check_file", "shipped_dialplan"]

OLDEST = 18
REACH_S = 2.0

MODULES = {
    "res_agi": "the engine cannot be asked about calls",
    "res_audiosocket": "the engine cannot hear calls",
    "app_audiosocket": "the engine cannot hear calls",
    "app_exec": "TryExec is missing: trouble would hang up on callers",
    "app_stack": "Gosub is missing",
    "app_verbose": "Verbose is missing",
    "app_playback": "the fallbacks cannot speak",
    "app_record": "callers cannot leave messages",
    "app_userevent": "messages are not reported",
    "app_queue": "callers cannot be queued",
    "func_logic": "IF and friends are missing",
    "func_strings": "FILTER is missing",
    "func_dialplan": "DIALPLAN_EXISTS is missing: transfers fail",
    "func_callerid": "CALLERID is missing",
}
OPTIONAL_MODULES = {"chan_websocket": "[offhook-websocket] cannot be used; AudioSocket can"}
OPTIONAL_CONTEXTS = {"offhook-websocket", "offhook-outbound"}
DEFAULTS = {
    "OFFHOOK_HOST": "127.0.0.1",
    "OFFHOOK_TRANSFER_CONTEXT": "from-internal",
    "OFFHOOK_OPERATOR": "dial:600",
    "OFFHOOK_QUEUE": "offhook",
}
"""As in [offhook-settings], where a global variable of the same name wins."""

_SHOWN_EXTENSION = re.compile(r"\s+'([^']+)' =>\s+(.*)")
_SHOWN_STEP = re.compile(r"(?:\[\S+\]\s+)?\d+\. (.*?)(?:\s+\[[^\[\]]*\])?")
"""`[next]  9. Goto(offhook-next,s,1)   [offhook.conf:37]`: label, priority, application, origin."""
_NAME = re.compile(r"[0-9A-Za-z*#+_-]+")


async def check(ami: AmiClient, settings: Settings) -> list[Finding]:
    """Everything that can be known without placing a call. Never raises because Asterisk is down or refuses."""
    findings: list[Finding] = []
    try:
        findings += [finding async for finding in _asterisk(ami)]
        settled = await _globals(ami)
        findings += [finding async for finding in _contexts(ami, shipped_dialplan())]
        findings += [finding async for finding in _engine(settings, settled)]
        findings += [finding async for finding in _destinations(ami, settings, settled)]
    except AmiUnavailable as error:
        findings.append(Finding("error", error.message, "; ".join(error.how_to_fix)))
    except AmiRefused as error:
        how = "give the AMI user `command` under write= in manager.conf, then `manager reload`"
        findings.append(Finding("error", error.message, how))
    return findings


def shipped_dialplan() -> Path:
    """Our offhook.conf: inside an installed package, or in the source tree."""
    package = Path(engine.__file__).parent
    installed = package / "data/dialplan/offhook.conf"
    return installed if installed.is_file() else package.parent / "dialplan/offhook.conf"


async def _asterisk(ami: AmiClient) -> AsyncIterator[Finding]:
    said = await ami.command("core show version")
    version = re.search(r"Asterisk (?:certified[/-])?(\d+)[\w.~+-]*", said)
    if version is None:
        yield Finding(
            "warn",
            f"Asterisk's version is unknown: {said[:60]}",
            f"Offhook needs {OLDEST} or later",
        )
    elif int(version[1]) < OLDEST:
        how = f"upgrade to {OLDEST} or later, AudioSocket came with it"
        yield Finding("error", f"{version[0]} is too old", how)
    else:
        yield Finding("ok", version[0])
    for module, loss in (MODULES | OPTIONAL_MODULES).items():
        said = await ami.command(f"module show like {module}.so")
        if re.search(rf"^{module}\.so\s.*\sRunning\s", said, re.MULTILINE):
            yield Finding("ok", f"{module} runs")
        else:
            how = f"asterisk -rx 'module load {module}.so', and add it to modules.conf"
            title = f"{module} is not loaded: {loss}"
            yield Finding("warn" if module in OPTIONAL_MODULES else "error", title, how)


async def _globals(ami: AmiClient) -> dict[str, str]:
    said = await ami.command("dialplan show globals")
    found = dict(re.findall(r"^\s*(OFFHOOK_\w+)=(.+)$", said, re.MULTILINE))
    return DEFAULTS | {name: value.strip() for name, value in found.items()}


# --- contexts ------------------------------------------------------------------------------------


def shown_steps(said: str) -> dict[str, list[str]]:
    """`dialplan show CONTEXT` as extensions and their applications, in order."""
    steps: dict[str, list[str]] = {}
    extension = ""
    for line in said.splitlines():
        head = _SHOWN_EXTENSION.match(line)
        if head:
            extension, line = head[1], head[2]
        if (step := _SHOWN_STEP.fullmatch(line.strip())) and extension:
            steps.setdefault(extension, []).append(step[1])
    return steps


async def _contexts(ami: AmiClient, ours: Path) -> AsyncIterator[Finding]:
    reload = "then: asterisk -rx 'dialplan reload'"
    for context, extensions in read(ours).contexts.items():
        said = await ami.command(f"dialplan show {context}")
        if "There is no existence of" in said:
            how = f"add `#include offhook.conf` to extensions.conf (FreePBX: extensions_custom.conf), {reload}"
            level: Literal["warn", "error"] = "warn" if context in OPTIONAL_CONTEXTS else "error"
            yield Finding(level, f"[{context}] is not in the dialplan", how)
            continue
        expected = {name: [step.text for step in steps] for name, steps in extensions.items()}
        shown = shown_steps(said)
        changed = sorted(name for name in expected if shown.get(name) != expected[name])
        if changed and context != "offhook-settings":
            title = f"[{context}] is not the one shipped with this version ({', '.join(changed)})"
            yield Finding("warn", title, f"copy {ours.name} of this version to Asterisk, {reload}")
        else:
            yield Finding("ok", f"[{context}] is in the dialplan")


# --- ports ---------------------------------------------------------------------------------------


async def _engine(settings: Settings, settled: dict[str, str]) -> AsyncIterator[Finding]:
    _, _, port = settled["OFFHOOK_HOST"].partition(":")
    if (port or "4573") != str(settings.agi.port):
        title = (
            f"the dialplan asks port {port or '4573'}, the engine listens on {settings.agi.port}"
        )
        how = f"set OFFHOOK_HOST=HOST:{settings.agi.port} in [globals], or port under [agi] in offhook.toml"
        yield Finding("error", title, how)
    sockets = (
        ("AGI", settings.agi.host, settings.agi.port),
        ("AudioSocket", settings.audiosocket.host, settings.audiosocket.port),
    )
    for name, host, port_number in sockets:
        host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
        if await _reachable(host, port_number):
            yield Finding("ok", f"{name} answers on {host}:{port_number}")
        else:
            how = "start the engine with `offhook serve`, or let the firewall pass this port"
            yield Finding("error", f"{name} does not answer on {host}:{port_number}", how)


async def _reachable(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # a time-out is one too
        return False
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass  # it was there, that is all we asked
    return True


# --- where callers may be sent ---------------------------------------------------------------------


async def _destinations(
    ami: AmiClient, settings: Settings, settled: dict[str, str]
) -> AsyncIterator[Finding]:
    wanted = {
        settled["OFFHOOK_OPERATOR"]: "key 0 of the menu",
        f"queue:{settled['OFFHOOK_QUEUE']}": "the menu",
    }
    try:
        wanted |= dict(_configured(settings))
    except ConfigError as error:
        yield Finding("error", error.message, "; ".join(error.how_to_fix))
    context = settled["OFFHOOK_TRANSFER_CONTEXT"]
    for destination, who in wanted.items():
        kind, _, name = destination.partition(":")
        if kind not in ("dial", "queue"):
            continue
        if not _NAME.fullmatch(name):
            title = f"{who} sends callers to {destination!r}, which cannot be dialled"
            yield Finding("error", title, "use letters, digits and * # + _ - only")
        elif kind == "queue":
            yield await _queue(ami, name, who)
        else:
            yield await _extension(ami, name, context, who)


def _configured(settings: Settings) -> Iterator[tuple[str, str]]:
    for route in settings.routes:
        yield route.when_full, f"route {route.number}"
    for agent in load_agents(settings.agents).values():
        yield agent.fallback, f"agent {agent.id}"
        for target in agent.transfers:
            to = target.to if ":" in target.to else f"dial:{target.to}"
            yield to, f"agent {agent.id}, transfer {target.name}"


async def _extension(ami: AmiClient, name: str, context: str, who: str) -> Finding:
    said = await ami.command(f"dialplan show {name}@{context}")
    if "There is no existence of" not in said:
        return Finding("ok", f"{name}@{context} exists ({who})")
    how = f"add extension {name} to [{context}], or set OFFHOOK_TRANSFER_CONTEXT in [globals] to where it is"
    return Finding("error", f"{who} sends callers to {name}@{context}, which does not exist", how)


async def _queue(ami: AmiClient, name: str, who: str) -> Finding:
    said = await ami.command(f"queue show {name}")
    if not said.startswith(f"{name} has "):
        how = f"add [{name}] to queues.conf; until then callers are asked for a message"
        return Finding("error", f"{who} sends callers to queue {name}, which does not exist", how)
    if "No Members" in said:
        return Finding(
            "warn", f"queue {name} has no members", f"add `member => PJSIP/600` to [{name}]"
        )
    return Finding("ok", f"queue {name} exists ({who})")
