"""Scripted conversations run on virtual time: every test here gets a loop whose clock jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.virtual_time import LOOP_FACTORIES, VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return LOOP_FACTORIES


@pytest.fixture
async def loop() -> VirtualTimeLoop:
    """The running loop, to read its clock or to make the process late."""
    running = asyncio.get_running_loop()
    assert isinstance(running, VirtualTimeLoop)
    return running
