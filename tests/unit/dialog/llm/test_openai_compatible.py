import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.llm.openai_compatible import OpenAiCompatible, events
from engine.errors import ModelError, ModelTimeout
from engine.inference.model_server import ModelBusy, ModelRefused, ModelServer
from tests.peers.openai_server import Answer, OpenAiServer, openai_server

HELLO = [
    Message("system", "Be short."),
    Message("system", "Now it is noon."),
    Message("user", "Hi"),
]
LOOK = ToolSpec("look_up", "Look.", {"type": "object", "properties": {"what": {"type": "string"}}})


async def ask(
    server: OpenAiServer, *tools: ToolSpec, messages: list[Message] = HELLO, **options: Any
) -> list[Delta]:
    model = OpenAiCompatible(ModelServer(server.url, api_key="k"), "m", **options)
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


async def test_a_busy_server_is_asked_again_after_the_time_it_names() -> None:
    busy = Answer(status=429, headers={"Retry-After": "0.01"})
    async with openai_server(busy, Answer(["Hello."])) as server:
        assert text(await ask(server, patient=True)) == "Hello."
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("headers", "patient", "retry_after_s"),
    [
        ({"Retry-After": "0.01"}, False, 0.01),
        ({"retry-after-ms": "1500"}, False, 1.5),
        ({"Retry-After": "60"}, True, 60.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, True, 0.0),
        ({}, True, 0.0),
    ],
)
async def test_else_the_caller_is_told_when(
    headers: dict[str, str], patient: bool, retry_after_s: float
) -> None:
    async with openai_server(Answer(status=503, headers=headers)) as server:
        with pytest.raises(ModelBusy, match="answered 503") as told:
            await ask(server, patient=patient, first_token_s=2.0)
    assert told.value.retryable and told.value.retry_after_s == retry_after_s
    assert len(server.requests) == 1


async def test_an_empty_account_is_a_refusal() -> None:
    refusal = {"message": "You exceeded your quota", "code": "insufficient_quota"}
    async with openai_server(Answer(status=429, refusal=refusal)) as server:
        with pytest.raises(ModelRefused, match="quota"):
            await ask(server, patient=True)


@pytest.mark.parametrize("broken", [Answer(["Half a"], breaks=True), Answer(["Half a"], cut=True)])
async def test_an_answer_that_breaks_off_is_no_answer(broken: Answer) -> None:
    async with openai_server(broken) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        async with aclosing(model.reply(HELLO)) as deltas:
            assert await anext(deltas) == TextDelta("Half a")
            with pytest.raises(ModelError) as told:
                await anext(deltas)
        assert told.value.retryable
        await model.close()


@pytest.mark.parametrize(
    "event", ["nonsense", "[1]", '{"choices": [1]}', '{"choices": 7}', '{"usage": "much"}']
)
async def test_events_of_another_form_are_a_model_error(event: str) -> None:
    async with openai_server(Answer(raw=[event])) as server:
        with pytest.raises(ModelError, match="sent an event"):
            await ask(server)


async def test_fields_a_model_does_not_take_are_left_out_from_then_on() -> None:
    def refused(param: str) -> Answer:
        return Answer(status=400, refusal={"message": f"Unsupported: {param}", "param": param})

    script = [refused("max_tokens"), refused("temperature"), Answer(["Yes."]), Answer(["No."])]
    async with openai_server(*script) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m", extra={"reasoning_effort": "none"})
        for expected in ("Yes.", "No."):
            assert text([delta async for delta in model.reply(HELLO, max_tokens=7)]) == expected
        await model.close()
    for body in server.requests[2:]:
        assert body["max_completion_tokens"] == 7 and body["reasoning_effort"] == "none"
        assert not {"max_tokens", "temperature"} & set(body)


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": 400, "type": "exceed_context_size_error", "message": "too large"},
        {"code": "context_length_exceeded", "message": "too long"},
        {"type": "BadRequestError", "message": "This model's maximum context length is 9 tokens."},
    ],
)
async def test_a_conversation_that_is_too_long_loses_its_oldest_turns(
    refusal: dict[str, Any],
) -> None:
    messages = [*HELLO, Message("assistant", "Hello."), Message("user", "Well?")]
    too_long = Answer(status=400, refusal=refusal)
    async with openai_server(too_long, too_long, Answer(["Well."])) as server:
        assert text(await ask(server, messages=messages)) == "Well."
    assert [item["role"] for item in server.requests[2]["messages"]] == ["system", "user"]
    async with openai_server(too_long, too_long) as server:
        with pytest.raises(ModelRefused):
            await ask(server, messages=messages[:3])


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


@pytest.mark.parametrize(
    ("answer", "options", "sentence"),
    [
        (Answer(["Well"], stalls=True), {"timeout_s": 0.1}, "not ready within"),
        (Answer(late=True), {"first_token_s": 0.1}, "nothing within 0.1 s"),
    ],
)
async def test_a_server_that_stalls_misses_a_deadline(
    answer: Answer, options: dict[str, float], sentence: str
) -> None:
    async with openai_server(answer) as server:
        with pytest.raises(ModelTimeout, match=sentence):
            await ask(server, **options)
        async with asyncio.timeout(5):
            await server.gone.wait()


async def test_a_tool_call_that_has_begun_meets_the_first_deadline() -> None:
    begun = {"index": 0, "id": "c", "function": {"name": "look_up", "arguments": "{"}}
    async with openai_server(Answer(calls=[begun], stalls=True)) as server:
        with pytest.raises(ModelTimeout, match="not ready within"):
            await ask(server, LOOK, first_token_s=0.15, timeout_s=0.3)


async def test_replies_share_a_connection() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    async with openai_server(*[Answer(["Yes."], usage=usage)] * 3) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        for _ in range(3):
            assert text([delta async for delta in model.reply(HELLO)]) == "Yes."
        await model.close()
    assert len(server.connections) == 1


async def test_a_reply_is_cut_at_its_length_but_a_tool_call_is_not() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look_up", "arguments": "{}"}}
    async with openai_server(Answer(["a", "b", "c", "d"]), Answer(calls=[call])) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        deltas = [delta async for delta in model.reply(HELLO, [LOOK], max_tokens=2)]
        assert text(deltas) == "ab"
        deltas = [delta async for delta in model.reply(HELLO, [LOOK], max_tokens=2)]
        assert [delta for delta in deltas if isinstance(delta, ToolCall)]
        await model.close()
    assert {body["max_tokens"] for body in server.requests} == {256}


async def test_warming_does_not_mind_an_unfinished_tool_call() -> None:
    begun = {"index": 0, "id": "c", "function": {"name": "look_up", "arguments": "{"}}
    async with openai_server(Answer(calls=[begun])) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        await model.warm(HELLO, [LOOK])
        await model.warm(HELLO, [LOOK], cache_key="call")
        await model.close()
    assert [body["max_tokens"] for body in server.requests] == [1]


async def test_closing_the_stream_hangs_up_on_the_server() -> None:
    async with openai_server(Answer(["One", "Two"], stalls=True)) as server:
        model = OpenAiCompatible(ModelServer(server.url), "m")
        async with aclosing(model.reply(HELLO)) as deltas:
            assert await anext(deltas) == TextDelta("One")
        async with asyncio.timeout(5):
            await server.gone.wait()
        await model.close()


async def test_nobody_listening_is_a_model_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    model = OpenAiCompatible(ModelServer(url), "m")
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
