"""Whether a server is worth asking: a circuit breaker that heals by itself.

              failures in a row              rest is over
    closed ─────────────────────▶ open ─────────────────────▶ probing
       ▲                            ▲                            │ │
       │                            └────────── failed ──────────┘ │
       └───────────────────────── succeeded ───────────────────────┘

The probe runs in the background, so that no caller has to wait for a server that may still be down.
After it the first failure opens the circuit again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from engine.aio import Background
from engine.errors import ModelError
from engine.inference.model_server import ModelBusy, ModelRefused

log = logging.getLogger(__name__)

State = Literal["closed", "open", "probing"]
PROBE_S = 30.0
"""A server that was restarted may load its model first."""
_ABOUT_THIS_REQUEST = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class CircuitStats:
    """Since the start: requests that were `answered`, that `failed`, and `skipped` while it was open.
    `for_s`: how long the state has been what it is, None when it never changed."""

    state: State
    for_s: float | None
    answered: int
    failed: int
    skipped: int
    opened: int


class Circuit:
    """`failures` in a row open it for `rest_s` seconds; then `probe` is asked, again and again."""

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[None]],
        *,
        failures: int = 3,
        rest_s: float = 15.0,
    ) -> None:
        """`name` is for the log. `probe` raises ModelError while the server does not work."""
        self._name = name
        self._probe = probe
        self._failures = failures
        self._rest_s = rest_s
        self._tasks = Background()
        self._state: State = "closed"
        self._since: float | None = None
        self._in_a_row = 0
        self._answered = self._failed = self._skipped = self._opened = 0

    @property
    def closed(self) -> bool:
        """Whether to ask the server; a no is counted as skipped."""
        if self._state == "closed":
            return True
        self._skipped += 1
        return False

    def succeeded(self) -> None:
        self._answered += 1
        self._in_a_row = 0

    def failed(self, error: ModelError, *, conclusive: bool = False) -> None:
        """Count a failure; one that is `conclusive` is enough. A server that names its own time is taken
        at its word; a request that it found wrong in itself says nothing about the server."""
        self._failed += 1
        if isinstance(error, ModelRefused) and error.status in _ABOUT_THIS_REQUEST:
            return
        self._in_a_row += 1
        asked_for = error.retry_after_s if isinstance(error, ModelBusy) else 0.0
        enough = conclusive or asked_for > 0 or self._in_a_row >= self._failures
        if enough and self._state == "closed":
            self._open(error, max(self._rest_s, asked_for))

    def stats(self) -> CircuitStats:
        since = self._since
        return CircuitStats(
            self._state,
            None if since is None else asyncio.get_running_loop().time() - since,
            self._answered,
            self._failed,
            self._skipped,
            self._opened,
        )

    async def close(self) -> None:
        """No more probes."""
        await self._tasks.close()

    def _open(self, error: ModelError, rest_s: float) -> None:
        self._opened += 1
        self._enter("open")
        log.warning(
            "a model server fails and is left alone for a while",
            extra={"server": self._name, "code": error.code, "failures": self._in_a_row},
        )
        self._tasks.start(self._recover(rest_s), name=f"recover {self._name}")

    async def _recover(self, rest_s: float) -> None:
        while True:
            await asyncio.sleep(rest_s)
            self._enter("probing")
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._probe()
            except (ModelError, TimeoutError) as error:
                asked_for = error.retry_after_s if isinstance(error, ModelBusy) else 0.0
                rest_s = max(self._rest_s, asked_for)
                self._enter("open")
                log.debug("a model server still fails", extra={"server": self._name})
            else:
                self._in_a_row = self._failures - 1
                self._enter("closed")
                log.warning("a model server answers again", extra={"server": self._name})
                return

    def _enter(self, state: State) -> None:
        self._state = state
        self._since = asyncio.get_running_loop().time()
