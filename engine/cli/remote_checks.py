"""Whether the model servers of the settings answer, for `offhook doctor`."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Literal
from urllib.parse import urlsplit

from engine.calls.remote import server_of
from engine.config import Agent, RemoteSettings, Settings
from engine.errors import ConfigError, ModelError
from engine.inference.model_server import ModelRefused
from engine.telephony.dialplan_lint import Finding

WAIT_S = 5.0
_WITHOUT_A_LIST = frozenset({404, 405, 501})


async def servers(settings: Settings, agents: Mapping[str, Agent]) -> AsyncIterator[Finding]:
    """Ask each server that calls will use for its models."""
    remote = settings.remote
    speaking = any(
        agent.voice(language).engine == "openai"
        for agent in agents.values()
        for language in agent.languages
    )
    used: list[tuple[str, str, RemoteSettings, bool]] = [
        ("stt", "speech recognition", remote.stt, settings.models.stt == "openai"),
        ("llm", "language model", remote.llm, settings.models.llm == "openai"),
        ("tts", "voice", remote.tts, speaking),
    ]
    for section, title, wanted, is_used in used:
        if is_used:
            async for finding in _server(section, title, wanted):
                yield finding


async def _server(section: str, title: str, wanted: RemoteSettings) -> AsyncIterator[Finding]:
    try:
        server = server_of(section, wanted)
    except ConfigError as error:
        yield Finding("error", error.message, "; ".join(error.how_to_fix))
        return
    where = f"{title} server {wanted.base_url}"
    level: Literal["warn", "error"] = "warn" if wanted.fallback_to_local else "error"
    try:
        async with asyncio.timeout(WAIT_S):
            models = await server.models()
    except ModelRefused as error:
        if error.status in _WITHOUT_A_LIST:
            how = "does base_url end in /v1? A server without that list works all the same"
            yield Finding("warn", f"{where} answers, but lists no models", how)
        else:
            how = f"compare api_key and base_url under [remote.{section}] with the server's"
            yield Finding("error", f"{where}: {error.message}", how)
    except (ModelError, TimeoutError) as error:
        told = error.message if isinstance(error, ModelError) else f"no answer within {WAIT_S:g} s"
        how = "start it, or correct base_url; docs/remote.md tells how to run one"
        yield Finding(level, f"{where}: {told}", how)
    else:
        if wanted.model in models or not models:
            yield Finding("ok", f"{where} has {wanted.model}")
        else:
            some = ", ".join(models[:5])
            how = f"set model under [remote.{section}] to one of: {some}"
            yield Finding("warn", f"{where} does not list {wanted.model}", how)
    finally:
        await server.close()
    for finding in encryption(where, wanted.base_url):
        yield finding


def encryption(where: str, base_url: str) -> Iterator[Finding]:
    """Plain http is for this machine and the private network."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or _is_private(parts.hostname or ""):
        return
    yield Finding(
        "warn",
        f"{where} is asked without encryption: what callers say can be read on the way",
        "put TLS in front of it, see docs/remote.md, and write https:// in base_url",
    )


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".internal", ".home.arpa"))
