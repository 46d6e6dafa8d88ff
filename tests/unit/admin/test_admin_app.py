from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from admin.app import make_app
from engine.observability.health import Health

Client = TestClient[web.Request, web.Application]
LIVE = [{"id": "call-1", "agent": "reception", "caller": "+15550100"}]


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def client(health: Health) -> AsyncIterator[Client]:
    async with TestClient(TestServer(make_app(health, lambda: LIVE))) as client:
        yield client


async def test_health_answers_while_ready_does_not(client: Client, health: Health) -> None:
    asterisk = True
    health.add("asterisk", lambda: asterisk)
    ready = await client.get("/ready")
    assert ready.status == 200 and await ready.json() == {"ready": True, "missing": []}
    asterisk = False
    ready = await client.get("/ready")
    assert ready.status == 503 and await ready.json() == {"ready": False, "missing": ["asterisk"]}
    answer = await client.get("/health")
    assert answer.status == 200 and (await answer.json())["status"] == "down"


async def test_live_calls_are_for_this_machine(client: Client) -> None:
    answer = await client.get("/api/v1/calls/live")
    assert answer.status == 200 and await answer.json() == {"calls": LIVE}


async def test_a_rebound_name_does_not_see_the_calls(client: Client) -> None:
    answer = await client.get("/api/v1/calls/live", headers={"Host": "evil.example.org"})
    assert answer.status == 403
    assert (await answer.json())["error"]["code"] == "LOCAL_ONLY"
    # A probe from outside may look at readiness.
    assert (await client.get("/ready", headers={"Host": "pbx.example.org"})).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing", 404, "NOT_FOUND"), ("POST", "/health", 405, "METHOD_NOT_ALLOWED")],
)
async def test_errors_have_the_house_format(
    client: Client,
    method: str,
    path: str,
    status: int,
    code: str,
) -> None:
    answer = await client.request(method, path)
    error = (await answer.json())["error"]
    assert answer.status == status and error["code"] == code
    assert set(error) == {"code", "human_title", "human_how_to_fix", "details"}
