from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp import web

from engine.cli import checks, remote_checks
from engine.config import Agent, Settings
from tests.peers.openai_server import openai_server

SPEAKS = Agent(
    id="r",
    name="R",
    languages=("en",),
    greeting="Hello.",
    prompt="Be brief.",
    voices={"en": {"engine": "openai"}},  # type: ignore[dict-item]
)


async def found(
    *, models: dict[str, Any] | None = None, agents: bool = False, **servers: Any
) -> list[tuple[str, str]]:
    settings = Settings(models=models or {"llm": "openai"}, remote=servers)  # type: ignore[arg-type]
    speaking = {"r": SPEAKS} if agents else {}
    return [
        (finding.level, finding.title)
        async for finding in remote_checks.servers(settings, speaking)
    ]


async def test_only_servers_that_are_used_are_asked() -> None:
    assert await found(models={"llm": "llama.cpp"}, llm={"base_url": "http://127.0.0.1:9/v1"}) == []
    titles = [title for _, title in await found(models={"stt": "openai"}, agents=True)]
    assert titles == [
        f"remote.{section}.base_url is empty, and a model server is to be asked"
        for section in ("stt", "tts")
    ]


async def test_a_server_that_has_the_model_is_ok_and_another_is_not() -> None:
    async with openai_server() as server:
        server.models = ["a", "b"]
        for model, level in (("a", "ok"), ("c", "warn")):
            remote = {"base_url": server.url, "model": model, "api_key": "k"}
            assert [item[0] for item in await found(llm=remote)] == [level]
    assert server.keys == ["Bearer k"] * 2


@pytest.mark.parametrize(("fallback", "level"), [(True, "warn"), (False, "error")])
async def test_a_server_that_is_away_is_worse_without_a_local_model(
    fallback: bool, level: str
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    remote = {"base_url": url, "model": "m", "fallback_to_local": fallback}
    ((told, title),) = await found(llm=remote)
    assert told == level and "cannot be reached" in title


@pytest.mark.parametrize(("status", "level"), [(401, "error"), (404, "warn"), (503, "warn")])
async def test_what_a_server_answers_is_weighed(status: int, level: str) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/v1/models", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    remote = {"base_url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "model": "m"}
    try:
        assert [item[0] for item in await found(llm=remote)] == [level]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://10.1.2.3/v1", False),
        ("http://gpu1:8000/v1", False),
        ("http://gpu.lan/v1", False),
        ("https://api.example.com/v1", False),
        ("http://api.example.com/v1", True),
        ("http://8.8.8.8/v1", True),
    ],
)
def test_speech_is_not_sent_in_the_clear_over_the_internet(url: str, warned: bool) -> None:
    assert bool(list(remote_checks.encryption("x", url))) == warned


def test_the_weights_a_machine_needs_depend_on_its_servers() -> None:
    def needed(fallback: bool) -> list[str]:
        server = {"fallback_to_local": fallback}
        remote = {"llm": server, "stt": server, "tts": server}
        settings = Settings(models={"llm": "openai", "stt": "openai"}, remote=remote)  # type: ignore[arg-type]
        return checks.needed_models(settings, {"r": SPEAKS})

    assert needed(False) == ["smart-turn-v3.2-cpu"]
    assert needed(True) == [
        "whisper-base-int8",
        "qwen2.5-coder-0.5b-instruct-iq4_nl",
        "smart-turn-v3.2-cpu",
        "en_US-joe-medium",
    ]
