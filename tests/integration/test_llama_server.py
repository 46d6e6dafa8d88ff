"""The language model behind a real llama-server. What a 0.5B model says is not tested, only how it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from engine.cli import remote_checks
from engine.config import Settings, load_agent
from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.openai_compatible import OpenAiCompatible
from engine.dialog.prompt import system_prefix
from engine.dialog.tools.telephony import agent_registry
from engine.errors import ModelError
from engine.inference.model_server import ModelRefused, ModelServer
from tests.peers.llama_server import KEY, LlamaServer, LlamaServerMissing, command, llama_server

ROOT = Path(__file__).parents[2]
NAME = "qwen2.5-coder-0.5b-instruct-iq4_nl"
GGUF = ROOT / "models" / "weights" / NAME / f"{NAME}.gguf"
AGENT = load_agent(ROOT / "agents" / "reception.toml")
TOOLS = agent_registry(AGENT).specs
HOURS = [*system_prefix(AGENT), Message("user", "What are your opening hours?")]
LOOK = ToolSpec(
    "look_up_price",
    "Look up the price of a tyre. Call this for every question about a price.",
    {"type": "object", "properties": {"size": {"type": "string"}}, "required": ["size"]},
)

pytestmark = [pytest.mark.models, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LlamaServer]:
    try:
        command()
    except LlamaServerMissing as error:
        pytest.skip(str(error))
    if not GGUF.is_file():
        pytest.skip("the embedded model is not there: offhook models fetch")
    async with llama_server(GGUF, tmp_path_factory.mktemp("llama-server")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def model(server: LlamaServer) -> AsyncIterator[OpenAiCompatible]:
    made = OpenAiCompatible(
        ModelServer(server.url, api_key=KEY), "local", first_token_s=120.0, timeout_s=120.0
    )
    yield made
    await made.close()


async def ask(
    model: OpenAiCompatible, messages: list[Message], *tools: ToolSpec, max_tokens: int = 40
) -> list[Delta]:
    return [delta async for delta in model.reply(messages, tools, max_tokens=max_tokens)]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_it_streams_and_finds_the_prefix_again(model: OpenAiCompatible) -> None:
    await model.warm(system_prefix(AGENT), TOOLS)
    deltas = await ask(model, HOURS, *TOOLS)
    assert len(deltas) > 3 and text(deltas).strip()
    usage = deltas[-1]
    assert isinstance(usage, Usage) and usage.completion_tokens and usage.first_token_ms > 0
    assert usage.cached_tokens > 300, "the agent's prompt is read once"


async def test_a_tool_call_comes_in_pieces_and_is_put_together(model: OpenAiCompatible) -> None:
    messages = [
        Message("system", "You sell tyres. Use the tools."),
        Message("user", "What is the price of a tyre of size 205/55 R16?"),
    ]
    call = next(
        (delta for delta in await ask(model, messages, LOOK) if isinstance(delta, ToolCall)), None
    )
    assert call is not None and call.name == "look_up_price" and call.id
    assert isinstance(call.arguments["size"], str)
    answer = await ask(
        model,
        [
            *messages,
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "80 euros", tool_call_id=call.id),
        ],
    )
    assert text(answer).strip()


async def test_closing_the_stream_stops_the_server(
    model: OpenAiCompatible, server: LlamaServer
) -> None:
    story = [Message("user", "Count from one to five hundred, in words.")]
    async with aclosing(model.reply(story, max_tokens=2000)) as deltas:
        await anext(deltas)
        assert any(slot["is_processing"] for slot in await server.slots())
    async with asyncio.timeout(30):
        while any(slot["is_processing"] for slot in await server.slots()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_replies_follow_at_once_though_the_server_closes_after_each(
    model: OpenAiCompatible, server: LlamaServer
) -> None:
    """llama-server says Keep-Alive and closes after a stream; a list of models it does keep alive for."""
    for _ in range(4):
        assert text(await ask(model, HOURS, max_tokens=4)).strip()
    client = ModelServer(server.url, api_key=KEY)
    for _ in range(3):
        assert await client.models() == ["local"]
        assert server.connections() == 1
    await client.close()


async def test_a_conversation_beyond_its_context_loses_the_oldest_turns(
    model: OpenAiCompatible,
) -> None:
    long = [Message("user", "word " * 3000), Message("assistant", "Yes."), *HOURS[-1:]]
    deltas = await ask(model, [HOURS[0], *long], max_tokens=4)
    assert isinstance(deltas[-1], Usage) and deltas[-1].prompt_tokens < 2000


async def test_a_wrong_key_is_refused_without_telling_it(server: LlamaServer) -> None:
    stranger = OpenAiCompatible(ModelServer(server.url, api_key="sk-wrong"), "local")
    with pytest.raises(ModelRefused, match="401") as told:
        await ask(stranger, HOURS)
    assert "sk-wrong" not in told.value.message
    await stranger.close()


async def test_doctor_finds_it(server: LlamaServer) -> None:
    remote = {"llm": {"base_url": server.url, "model": "local", "api_key": KEY}}
    settings = Settings(models={"llm": "openai"}, remote=remote)  # type: ignore[arg-type]
    findings = [finding async for finding in remote_checks.servers(settings, {})]
    assert [(finding.level, finding.title) for finding in findings] == [
        ("ok", f"language model server {server.url} has local")
    ]


async def test_a_server_that_dies_in_mid_sentence_is_a_model_error(tmp_path: Path) -> None:
    if not GGUF.is_file():
        pytest.skip("the embedded model is not there: offhook models fetch")
    async with llama_server(GGUF, tmp_path) as dying:
        model = OpenAiCompatible(ModelServer(dying.url, api_key=KEY), "local")
        stream = model.reply([Message("user", "Count to a hundred.")], max_tokens=500)
        await anext(stream)
    with pytest.raises(ModelError):
        async for _ in stream:
            pass
    await model.close()
