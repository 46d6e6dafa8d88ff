import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.openai_compatible import ModelRefused, OpenAiCompatible, events
from engine.errors import ModelError, ModelTimeout
from tests.peers.openai_server import Answer, OpenAiServer, openai_server

HELLO = [
    Message("system", "Be short."),
    Message("system", "Now it is noon."),
    Message("user", "Hi"),
]
LOOK = ToolSpec("look_up", "Look.", {"type": "object", "properties": {"what": {"type": "string"}}})


async def ask(
    server: OpenAiServer, *tools: ToolSpec, messages: list[Message] = HELLO, timeout_s: float = 5
) -> list[Delta]:
    model = OpenAiCompatible(server.url, "m", api_key="k", timeout_s=timeout_s, first_wait_s=0.001)
    try:
        return [delta async for delta in model.reply(messages, tools, max_tokens=9)]
    finally:
        await model.close()


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_text_streams_and_usage_comes_last(newline: str) -> None:
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 16},
    }
    answer = Answer(["We are ", "открыты", "."], usage=usage, newline=newline)
    async with openai_server(answer) as server:
        deltas = await ask(server)
    assert text(deltas) == "We are открыты."
    assert isinstance(deltas[-1], Usage)
    assert (deltas[-1].prompt_tokens, deltas[-1].cached_tokens) == (20, 16)
    assert deltas[-1].first_token_ms > 0
    body = server.requests[0]
    assert server.keys == ["Bearer k"]
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
    assert body["max_tokens"] == 9 and "tools" not in body
    # Templates of many models allow one system message only.
    assert body["messages"][0] == {"role": "system", "content": "Be short.\n\nNow it is noon."}


async def test_a_tool_call_is_put_together_from_its_pieces() -> None:
    pieces = [
        {
            "index": 0,
            "id": "c7",
            "type": "function",
            "function": {"name": "look_up", "arguments": ""},
        },
        {"index": 0, "function": {"arguments": '{"wh'}},
        {"index": 0, "function": {"arguments": 'at": "tyres"}'}},
        {"index": 1, "id": "c8", "function": {"name": "look_up", "arguments": "{}"}},
    ]
    async with openai_server(Answer(["One moment."], pieces)) as server:
        deltas = await ask(server, LOOK)
    assert [delta for delta in deltas if isinstance(delta, ToolCall)] == [
        ToolCall("c7", "look_up", {"what": "tyres"}),
        ToolCall("c8", "look_up", {}),
    ]
    assert server.requests[0]["tools"][0]["function"]["name"] == "look_up"


async def test_calls_and_results_go_back_in_the_wire_format() -> None:
    call = ToolCall("c7", "look_up", {"what": "шины"})
    messages = [
        *HELLO,
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "Found.", tool_call_id="c7"),
    ]
    async with openai_server(Answer(["Yes."])) as server:
        await ask(server, LOOK, messages=messages)
    assistant, result = server.requests[0]["messages"][-2:]
    assert assistant["tool_calls"][0]["function"] == {
        "name": "look_up",
        "arguments": '{"what": "шины"}',
    }
    assert result == {"role": "tool", "content": "Found.", "tool_call_id": "c7"}


async def test_a_call_written_into_the_text_is_found_and_not_spoken() -> None:
    written = [
        "Sure. <tool",
        '_call>{"name": "look_up", ',
        '"arguments": {"what": "x"}}',
        "</tool_call>",
    ]
    async with openai_server(Answer(written)) as server:
        deltas = await ask(server, LOOK)
    assert text(deltas) == "Sure. "
    calls = [delta for delta in deltas if isinstance(delta, ToolCall)]
    assert [(call.name, call.arguments) for call in calls] == [("look_up", {"what": "x"})]


@pytest.mark.parametrize("first", [Answer(status=503), Answer(status=429), Answer(breaks=True)])
async def test_a_busy_server_is_asked_again(first: Answer) -> None:
    async with openai_server(first, Answer(["Hello."])) as server:
        assert text(await ask(server)) == "Hello."
    assert len(server.requests) == 2


async def test_three_failures_are_enough() -> None:
    async with openai_server(*[Answer(status=500)] * 4) as server:
        with pytest.raises(ModelError, match="answered 500"):
            await ask(server)
    assert len(server.requests) == 3


async def test_a_wrong_request_is_not_repeated() -> None:
    async with openai_server(Answer(status=401)) as server:
        with pytest.raises(ModelRefused, match="answered 401"):
            await ask(server)
    assert len(server.requests) == 1


async def test_after_words_were_given_out_an_error_is_not_repeated() -> None:
    async with openai_server(Answer(["Half a"], error="out of memory")) as server:
        with pytest.raises(ModelError, match="out of memory"):
            await ask(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("arguments", ['{"what": ', "[1]"])
async def test_arguments_that_do_not_parse_are_a_model_error(arguments: str) -> None:
    piece = {"index": 0, "id": "c", "function": {"name": "look_up", "arguments": arguments}}
    async with openai_server(*[Answer(calls=[piece])] * 3) as server:
        with pytest.raises(ModelError, match="tool arguments"):
            await ask(server, LOOK)


async def test_a_server_that_stalls_misses_the_deadline() -> None:
    async with openai_server(Answer(["Well"], stalls=True)) as server:
        with pytest.raises(ModelTimeout):
            await ask(server, timeout_s=0.1)


async def test_closing_the_stream_hangs_up_on_the_server() -> None:
    async with openai_server(Answer(["One", "Two"], stalls=True)) as server:
        model = OpenAiCompatible(server.url, "m")
        async with aclosing(model.reply(HELLO)) as deltas:
            assert await anext(deltas) == TextDelta("One")
        async with asyncio.timeout(5):
            await server.gone.wait()
        await model.close()


async def test_nobody_listening_is_a_model_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    model = OpenAiCompatible(url, "m", first_wait_s=0.001)
    with pytest.raises(ModelError, match="cannot be reached"):
        await model.warm(HELLO)
    await model.close()


@given(
    st.lists(st.text(alphabet="abя :"), min_size=1, max_size=5),
    st.lists(st.integers(1, 7)),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_events_do_not_depend_on_the_chunks(items: list[str], sizes: list[int], end: str) -> None:
    wire = "".join(f"data: {item}{end}{end}" for item in items).encode() + f": x{end}".encode()

    async def chunks() -> AsyncIterator[bytes]:
        at = 0
        for size in sizes:
            yield wire[at : at + size]
            at += size
        yield wire[at:]

    async def collect() -> list[str]:
        return [item async for item in events(chunks())]

    assert asyncio.run(collect()) == items
