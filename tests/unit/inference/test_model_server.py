import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from engine.errors import ModelError, ModelTimeout
from engine.inference.model_server import ModelBusy, ModelRefused, ModelServer, within
from tests.peers.openai_server import openai_server
from tests.virtual_time import VirtualTimeLoop

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(response: Callable[[], web.Response]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return response()

    app = web.Application()
    app.router.add_route("*", "/v1/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def refusal(response: Callable[[], web.Response]) -> ModelError:
    async with answering(response) as url:
        server = ModelServer(url, api_key="sk-very-secret")
        try:
            with pytest.raises(ModelError) as told:
                async with server.post("/x", body={}):
                    pass
        finally:
            await server.close()
    return told.value


async def test_the_models_are_listed_with_the_key() -> None:
    async with openai_server() as peer:
        peer.models = ["a", "b"]
        server = ModelServer(peer.url + "/", api_key="k")
        assert await server.models() == ["a", "b"]
        await server.close()
    assert peer.keys == ["Bearer k"]


async def test_the_key_and_what_was_said_stay_out_of_the_message() -> None:
    told = "Incorrect API key provided: sk-very-secret.\ninput_value='my card is 4111'"
    error = await refusal(lambda: web.json_response({"error": {"message": told}}, status=401))
    assert isinstance(error, ModelRefused) and error.status == 401
    assert error.message == "the model server answered 401: Incorrect API key provided: …."
    quoted = {"detail": [{"loc": ["body", "model"], "msg": "Field required", "input": "my card"}]}
    error = await refusal(lambda: web.json_response(quoted, status=422))
    assert error.message == "the model server answered 422: body.model: Field required"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<html>nginx</html>", "the model server answered 404"),
        ("[]", "the model server answered 404"),
        ('{"error": "model not found"}', "the model server answered 404: model not found"),
        ('{"error": {"code": 7}}', "the model server answered 404"),
        ('{"error": 5}', "the model server answered 404"),
        ('{"detail": "Not Found"}', "the model server answered 404: Not Found"),
        ('{"message": "no", "code": "x"}', "the model server answered 404: no"),
    ],
)
async def test_whatever_a_server_says_there_is_a_sentence(body: str, message: str) -> None:
    error = await refusal(lambda: web.Response(text=body, status=404))
    assert error.message == message and not error.retryable and error.how_to_fix


async def test_a_redirect_is_not_followed() -> None:
    error = await refusal(lambda: web.Response(status=301, headers={"Location": "/elsewhere"}))
    assert isinstance(error, ModelRefused) and error.status == 301


async def test_a_busy_server_may_be_asked_later() -> None:
    error = await refusal(lambda: web.Response(status=429, headers={"Retry-After": "7"}))
    assert isinstance(error, ModelBusy) and error.retryable and error.retry_after_s == 7


async def test_a_kept_connection_that_was_let_go_is_replaced() -> None:
    """The server answers once on each connection and closes it when asked again."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        for _ in range(2):
            if not await reader.readuntil(b"\r\n\r\n"):
                break
            asked += 1
            if asked == 2:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"data":[]}')
            await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = ModelServer(f"http://127.0.0.1:{port}/v1")
    async with listener:
        assert await server.models() == []
        assert await server.models() == []
        await server.close()
    assert asked == 3


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid:{port}"])
async def test_nobody_there_is_a_model_error(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ModelServer(f"http://{host.format(port=port)}/v1")
    with pytest.raises(ModelError, match="cannot be reached") as told:
        await server.models()
    assert told.value.retryable
    await server.close()


@pytest.mark.parametrize("text", ["nothing", '{"data": 5}', "[]"])
async def test_a_list_of_models_of_another_form(text: str) -> None:
    async with answering(lambda: web.Response(text=text)) as url:
        server = ModelServer(url)
        if text == "nothing":
            with pytest.raises(ModelError, match="not JSON"):
                await server.models()
        else:
            assert await server.models() == []
        await server.close()


def test_deadlines_count_the_waiting_and_not_the_reader() -> None:
    async def items(*waits: float) -> AsyncIterator[float]:
        for wait in waits:
            await asyncio.sleep(wait)
            yield wait

    async def read(*waits: float, reading_s: float = 0.0) -> list[float]:
        got = []
        async for item in within(items(*waits), first_s=1.0, total_s=3.0):
            got.append(item)
            await asyncio.sleep(reading_s)
        return got

    async def script() -> None:
        assert await read(0.9, 2.0, reading_s=10.0) == [0.9, 2.0]
        with pytest.raises(ModelTimeout, match="nothing within 1 s"):
            await read(1.1)
        with pytest.raises(ModelTimeout, match="not ready within 3 s"):
            await read(0.9, 2.2)

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(script())
