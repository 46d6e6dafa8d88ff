"""What `offhook doctor` looks at. Every check yields findings and never raises for what it finds."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from engine.calls.remote import voices_of
from engine.cli import clock, remote_checks
from engine.config import Agent, Settings, load_agents
from engine.errors import OffhookError
from engine.inference.weights import WeightStore
from engine.media import opus
from engine.storage import db
from engine.telephony import dialplan_check
from engine.telephony.ami import AmiClient
from engine.telephony.dialplan_lint import Finding

GIB = 1024**3
AMI_WAIT_S = 5.0
REACH_S = 2.0
TICK_S = 0.02
TICKS = 25
LATE_MS = 8.0
"""The player's budget: p99 of a frame's lateness."""
SANE_YEAR = 2025


async def everything(settings: Settings) -> list[Finding]:
    findings = [Finding("ok", "the settings are valid"), *_machine(), await _clock()]
    findings += synchronised(clock.is_synchronised())
    findings.append(await asyncio.to_thread(_disk, settings.data))
    agents: Mapping[str, Agent] = {}
    try:
        agents = await asyncio.to_thread(load_agents, settings.agents)
    except OffhookError as error:
        findings.append(_finding(error, "correct the agent's file, see docs/agents.md"))
    else:
        findings += _agents(agents, settings)
    findings += _espeak(agents, settings)
    findings += _opus(settings)
    findings += [finding async for finding in _models(settings, agents)]
    findings += [finding async for finding in remote_checks.servers(settings, agents)]
    findings += [finding async for finding in _database(settings)]
    findings += [finding async for finding in _asterisk(settings)]
    return findings


def _finding(error: OffhookError, otherwise: str) -> Finding:
    """`otherwise` is what to do where the error itself does not say."""
    return Finding("error", error.message, "; ".join(error.how_to_fix) or otherwise)


# --- the machine ---------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        yield Finding("warn", f"{cores} CPU core", "two are the least for one call at a time")
    else:
        yield Finding("ok", f"{cores} CPU cores")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if memory < 2:
        yield Finding("warn", f"{memory:.1f} GiB of memory", "the embedded models want 2 GiB")
    else:
        yield Finding("ok", f"{memory:.1f} GiB of memory")


async def _clock() -> Finding:
    now = dt.datetime.now().astimezone()
    if now.year < SANE_YEAR:
        return Finding(
            "error", f"the clock says {now:%Y-%m-%d}", "start NTP: timedatectl set-ntp on"
        )
    start = time.monotonic()
    late: list[float] = []
    for tick in range(1, TICKS + 1):
        due = start + tick * TICK_S
        await asyncio.sleep(due - time.monotonic())
        late.append((time.monotonic() - due) * 1000)
    where = f"clock {now:%Y-%m-%d %H:%M %Z}, 20 ms ticks at most {max(late):.1f} ms late"
    if max(late) > LATE_MS:
        how = "the machine is busy: callers would hear gaps; give the engine its own cores"
        return Finding("warn", where, how)
    return Finding("ok", where)


def synchronised(answer: bool | None) -> Iterator[Finding]:
    if answer is None:
        return
    if answer:
        yield Finding("ok", "the clock is synchronised")
    else:
        yield Finding(
            "warn",
            "the clock is not synchronised: call records get wrong times",
            "start NTP: timedatectl set-ntp on, or apt install chrony; for a container, on its host",
        )


def _disk(data: Path) -> Finding:
    folder = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(
            "error", f"{folder} is not writable", f"chown it to the user of the engine: {data}"
        )
    free = shutil.disk_usage(folder).free
    title = f"{free / GIB:.1f} GiB free for {data}"
    if free < GIB // 5:
        return Finding("error", title, "make room: calls could not be recorded")
    if free < 2 * GIB:
        return Finding("warn", title, "an hour of recording takes about 120 MB")
    return Finding("ok", title)


# --- agents and their voices ---------------------------------------------------------------------


def _agents(agents: Mapping[str, Agent], settings: Settings) -> Iterator[Finding]:
    yield Finding("ok", f"agents: {', '.join(agents)}")
    for route in settings.routes:
        if route.agent not in agents:
            yield Finding(
                "error",
                f"route {route.number} names agent {route.agent!r}, which does not exist",
                f"add {settings.agents / route.agent}.toml, or name one of: {', '.join(agents)}",
            )
    if not settings.routes and len(agents) > 1:
        yield Finding(
            "warn",
            "there are several agents and no [[routes]]: no number is answered",
            "say which number goes to which agent, see docs/settings.md",
        )


def _espeak(agents: Mapping[str, Agent], settings: Settings) -> Iterator[Finding]:
    needed = sorted(
        agent.id
        for agent in agents.values()
        if any(voice.engine == "espeak" for voice in voices_of(agent, settings))
    )
    if shutil.which("espeak-ng"):
        yield Finding("ok", "espeak-ng is installed")
    elif needed:
        title = f"espeak-ng is missing; agents that speak with it: {', '.join(needed)}"
        yield Finding("error", title, "apt install espeak-ng")
    else:
        yield Finding(
            "warn", "espeak-ng is missing; no agent speaks with it", "apt install espeak-ng"
        )


def _opus(settings: Settings) -> Iterator[Finding]:
    if settings.recording.format != "opus":
        return
    if opus.encoder():
        yield Finding("ok", "opusenc is installed")
    else:
        yield Finding("warn", "opusenc is missing: recordings stay WAV", "apt install opus-tools")


async def _models(settings: Settings, agents: Mapping[str, Agent]) -> AsyncIterator[Finding]:
    try:
        store = WeightStore(settings.models.folder)
    except OffhookError as error:
        yield _finding(error, "install offhook again")
        return
    for model_id in needed_models(settings, agents):
        try:
            verified = await store.verify(model_id)
        except OffhookError as error:
            yield _finding(error, f"offhook models fetch {model_id}")
        else:
            yield Finding(
                "ok", f"model {model_id}, {verified.size / 1e6:.0f} MB, every byte is right"
            )


def needed_models(settings: Settings, agents: Mapping[str, Agent]) -> list[str]:
    """What `serve` will open: the models of the settings and the piper voices of the agents."""
    models, remote = settings.models, settings.remote
    wanted = []
    if models.stt == "faster-whisper" or (models.stt == "openai" and remote.stt.fallback_to_local):
        wanted.append(models.stt_model)
    if models.llm == "llama.cpp" or remote.llm.fallback_to_local:
        wanted.append(models.llm_model)
    wanted.append(models.turn_model)
    for agent in agents.values():
        for voice in voices_of(agent, settings):
            if voice.engine == "piper":
                wanted.append(voice.voice or models.tts_model)
    return list(dict.fromkeys(wanted))


# --- the database --------------------------------------------------------------------------------


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    waiting = settings.data / "spool" / "calls.jsonl"
    rejected = settings.data / "spool" / "rejected.jsonl"
    if not settings.database and not (settings.data / "offhook.sqlite3").exists():
        yield Finding("ok", "the database will be made at the first start")
    else:
        try:
            state = await db.schema_state(settings.database_url)
        except OffhookError as error:
            yield _finding(error, "correct `database`, see docs/settings.md")
        else:
            yield from_schema(state)
    if waiting.exists():
        title = f"records of calls wait for the database in {waiting}"
        yield Finding("warn", title, "they are stored as soon as the engine reaches the database")
    if rejected.exists():
        title = f"the database refused some records: {rejected}"
        yield Finding("warn", title, "each line says why; report it, then move the file away")


def from_schema(state: db.SchemaState) -> Finding:
    if state.problems:
        title = f"the database is damaged: {'; '.join(state.problems)}"
        return Finding("error", title, "stop the engine and restore the latest backup")
    if not state.up_to_date:
        title = f"the database schema is {state.current or 'empty'}, not {state.head}"
        return Finding("warn", title, "run `offhook db upgrade`; `offhook serve` does it as well")
    return Finding("ok", f"the database has schema {state.head}")


# --- Asterisk ------------------------------------------------------------------------------------


async def _asterisk(settings: Settings) -> AsyncIterator[Finding]:
    ami = settings.ami
    secret = ami.secret.get_secret_value()
    if not secret:
        yield Finding(
            "error",
            "no AMI secret is set: transfers and outgoing calls cannot work",
            "set `secret` under [ami] to the one of manager.conf, or OFFHOOK_AMI__SECRET",
        )
    else:
        async with AmiClient(ami.host, ami.port, ami.username, secret) as client:
            try:
                await client.wait_connected(AMI_WAIT_S)
            except OffhookError as error:
                yield _finding(error, "compare [ami] with manager.conf; is Asterisk running?")
            else:
                yield Finding("ok", f"AMI at {ami.host}:{ami.port} lets {ami.username} in")
                for finding in await dialplan_check.check(client, settings):
                    yield finding
                return
    # Asterisk could not be asked; the engine's own ports can be.
    for name, host, port in (
        ("AGI", settings.agi.host, settings.agi.port),
        ("AudioSocket", settings.audiosocket.host, settings.audiosocket.port),
    ):
        if await _answers(host, port):
            yield Finding("ok", f"{name} answers on {host}:{port}")
        else:
            yield Finding("warn", f"{name} does not answer on {host}:{port}", "run `offhook serve`")


async def _answers(host: str, port: int) -> bool:
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(host, port)
    except OSError:  # a time-out is one too
        return False
    writer.close()
    return True
