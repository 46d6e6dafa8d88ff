"""The HTTP side of a model server with OpenAI's interface: llama-server, vLLM, speaches, LocalAI, OpenAI.

One client for each server. Connections are kept between requests, so that a turn pays no handshake; what
goes wrong becomes a ModelError that says whether asking again may help. Neither the key nor what was
said gets into an error's text.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from engine.errors import ModelError, ModelTimeout

T = TypeVar("T")

CONNECT_S = 3.0
KEEP_S = 75.0
"""A connection nobody uses is kept this long: callers pause between their turns."""
DRAIN_S = 0.2
_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_WITHOUT_MONEY = "insufficient_quota"
_MAX_REFUSAL = 64 << 10


class ModelRefused(ModelError):
    """The server answered that the request itself is wrong: a key, a model's name, a field.

    `status` is HTTP's; `param` and `kind` are what the server says is wrong with which field, or empty.
    """

    code = "MODEL_REFUSED"
    retryable = False

    def __init__(self, message: str, *, status: int, param: str = "", kind: str = "") -> None:
        super().__init__(
            message, how_to_fix=["check the address, the key and the model's name in the settings"]
        )
        self.status = status
        self.param = param
        self.kind = kind


class ModelBusy(ModelError):
    """The server answered that it cannot now. `retry_after_s` is what it asked for, 0 when it did not."""

    code = "MODEL_BUSY"

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelServer:
    """`base_url` ends in `/v1`. Opened by the first request; `close` ends it."""

    def __init__(self, base_url: str, *, api_key: str = "") -> None:
        self.base_url = base_url.rstrip("/")
        # A key read from a file often ends in a newline, which no header may hold.
        self._api_key = api_key.strip()
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def post(
        self,
        path: str,
        *,
        body: dict[str, Any] | None = None,
        form: Callable[[], aiohttp.FormData] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """The answer to one request, its body still to be read. Leaving early closes the connection.

        Raises ModelRefused, ModelBusy, and ModelError for a server that cannot be reached or breaks off.
        """
        try:
            response = await self._send("POST", path, body, form)
            async with response:
                if response.status != 200:
                    raise await self._refusal(response)
                yield response
        except TimeoutError as error:
            raise ModelTimeout("the model server does not take connections") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ModelError(f"the model server cannot be reached: {_short(error)}") from error

    async def models(self) -> list[str]:
        """The names of the models it offers. Raises ModelError."""
        try:
            async with await self._send("GET", "/models", None, None) as response:
                if response.status != 200:
                    raise await self._refusal(response)
                answer = json.loads(await response.read())
        except TimeoutError as error:
            raise ModelTimeout("the model server does not take connections") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ModelError(f"the model server cannot be reached: {_short(error)}") from error
        except ValueError as error:
            raise ModelError("the model server's list of models is not JSON") from error
        found = answer.get("data") if isinstance(answer, dict) else None
        items = found if isinstance(found, list) else []
        return [str(item["id"]) for item in items if isinstance(item, dict) and "id" in item]

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        form: Callable[[], aiohttp.FormData] | None,
    ) -> aiohttp.ClientResponse:
        for again in (False, True):
            try:
                return await self._client().request(
                    method,
                    self.base_url + path,
                    json=body,
                    data=form() if form else None,
                    # A redirected POST loses its body, and the key would go to who knows whom.
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The server let go of a kept connection at the very moment we used it: uvicorn does
                # after five seconds. A new one tells whether it is there.
                if again:
                    raise
        raise AssertionError("the second attempt returns or raises")

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                # How many callers ask at once is for limits.calls to say.
                limit=0,
                keepalive_timeout=KEEP_S,
                # getaddrinfo on a thread: it knows /etc/hosts, and the loop does not wait for it.
                resolver=aiohttp.ThreadedResolver(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
                headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            )
        return self._session

    async def _refusal(self, response: aiohttp.ClientResponse) -> ModelError:
        raw = await response.content.read(_MAX_REFUSAL)
        told, param, kind = _told(raw)
        if self._api_key:
            told = told.replace(self._api_key, "…")
        message = f"the model server answered {response.status}"
        if told:
            message += f": {told}"
        if response.status in _BUSY and kind != _WITHOUT_MONEY:
            return ModelBusy(message, retry_after_s=_retry_after(response))
        return ModelRefused(message, status=response.status, param=param, kind=kind)


async def drain(response: aiohttp.ClientResponse) -> None:
    """Read what follows the last event, usually nothing: a connection is kept only when read to its end."""
    try:
        async with asyncio.timeout(DRAIN_S):
            await response.content.read()
    except TimeoutError:
        pass  # it is closed then, and the next request opens another


async def within(
    stream: AsyncIterator[T], *, first_s: float, total_s: float
) -> AsyncGenerator[T, None]:
    """The items of `stream`. Raises ModelTimeout when the first keeps its reader waiting longer than
    `first_s`, or all of them together longer than `total_s`; the reader's own time does not count."""
    clock = asyncio.get_running_loop().time
    left, first = total_s, True
    while True:
        since = clock()
        limit = min(first_s, left) if first else left
        try:
            async with asyncio.timeout(limit):
                item = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise ModelTimeout(
                f"nothing within {limit:g} s" if first else f"not ready within {total_s:g} s"
            ) from error
        left -= clock() - since
        first = False
        yield item


def _retry_after(response: aiohttp.ClientResponse) -> float:
    """Seconds; the other form of the header, a date, is not used by model servers."""
    for name, unit_s in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        try:
            return max(0.0, float(response.headers.get(name, "")) * unit_s)
        except ValueError:
            continue
    return 0.0


def _told(raw: bytes) -> tuple[str, str, str]:
    """What the server says is wrong, of which field, and its name for that. Pages of HTML say nothing.

    Of a message only the first line: those below quote the request, which is what somebody said.
    """
    try:
        answer = json.loads(raw)
    except ValueError:
        return "", "", ""
    if not isinstance(answer, dict):
        return "", "", ""
    error = answer.get("error", answer)
    if isinstance(error, str):
        return _line(error), "", ""
    if not isinstance(error, dict):
        return "", "", ""
    detail = error.get("message") or error.get("detail") or ""
    if isinstance(detail, list):
        # FastAPI: [{"loc": ["body", "messages"], "msg": "Field required", "input": …}]
        detail = "; ".join(
            f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg', '')}"
            for item in detail
            if isinstance(item, dict)
        )
    kind = error.get("code") if isinstance(error.get("code"), str) else error.get("type")
    return _line(str(detail)), str(error.get("param") or ""), str(kind or "")


def _line(text: str) -> str:
    return text.strip().partition("\n")[0][:200]


def _short(error: BaseException) -> str:
    return _line(str(error)) or type(error).__name__
