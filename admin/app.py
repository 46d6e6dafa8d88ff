"""Liveness, readiness and the list of live calls.

GET /health               200 while the process answers; the body tells how each part is
GET /ready                200 or 503: should new calls be sent here?
GET /api/v1/calls/live    the calls of this moment; from this machine only, until there are logins
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from engine.observability.health import Health

LiveCalls = Callable[[], list[dict[str, Any]]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEALTH: web.AppKey[Health] = web.AppKey("health", Health)
CALLS: web.AppKey[LiveCalls] = web.AppKey("calls", Callable)  # type: ignore[arg-type]


def make_app(health: Health, calls: LiveCalls) -> web.Application:
    app = web.Application(middlewares=[answer_errors, guard_api])
    app[HEALTH] = health
    app[CALLS] = calls
    app.router.add_get("/health", show_health)
    app.router.add_get("/ready", show_ready)
    app.router.add_get("/api/v1/calls/live", list_live_calls)
    return app


async def show_health(request: web.Request) -> web.Response:
    return web.json_response(request.app[HEALTH].report())


async def show_ready(request: web.Request) -> web.Response:
    report = request.app[HEALTH].report()
    missing = [name for name, check in report["checks"].items() if not check["ok"]]
    return web.json_response(
        {"ready": report["ready"], "missing": missing}, status=200 if report["ready"] else 503
    )


async def list_live_calls(request: web.Request) -> web.Response:
    return web.json_response({"calls": request.app[CALLS]()})


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error has one format: code, a title for people, and what they can do."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = (error.reason or "error").upper().replace(" ", "_")
        response = error_response(error.status, code, error.text or "", ())
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


@web.middleware
async def guard_api(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The API carries phone numbers and has no logins yet: only this machine may read it.

    The Host header is looked at as well, or a web page could rebind its own name to 127.0.0.1.
    """
    if request.path.startswith("/api/") and not (
        _is_loopback(request.remote or "") and _is_loopback(request.url.host or "")
    ):
        return error_response(
            403,
            "LOCAL_ONLY",
            "The API answers this machine only",
            ("ask 127.0.0.1, for instance through an SSH tunnel",),
        )
    return await handler(request)


def error_response(status: int, code: str, title: str, how_to_fix: tuple[str, ...]) -> web.Response:
    body = {"code": code, "human_title": title, "human_how_to_fix": list(how_to_fix), "details": {}}
    return web.json_response({"error": body}, status=status)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
