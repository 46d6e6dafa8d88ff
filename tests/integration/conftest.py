"""Real Asterisk, real telephones. A module brings its own `board`, the engine behind its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from engine.lab.asterisk_install import AsteriskMissing, find_asterisk
from engine.lab.sandbox import Sandbox
from engine.lab.softphone import Softphone
from engine.lab.switchboard import Switchboard
from tests.integration.calling import NO_ENGINE


@pytest.fixture(scope="module", autouse=True)
def _asterisk_is_here(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("asterisk") is None:
        return
    try:
        find_asterisk()
    except AsteriskMissing as error:
        pytest.skip(f"{error.message}; {error.how_to_fix[0]}")


@pytest.fixture
async def pbx(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """An Asterisk without an engine."""
    async with Sandbox(tmp_path, **NO_ENGINE) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(loop_scope="module")
async def phone(board: Switchboard) -> AsyncIterator[Softphone]:
    """The caller's telephone. The next test begins when the engine has put down all its calls."""
    async with Softphone("caller") as phone:
        yield phone
    async with asyncio.timeout(20):
        while len(board.engine.desk):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
