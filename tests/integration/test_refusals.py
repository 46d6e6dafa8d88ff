"""Who may not talk to the agent: one caller too many, and sockets nobody was sent to."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.config import LimitSettings, Settings
from engine.lab.audiosocket_caller import AudioSocketCaller
from engine.lab.softphone import Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import prompt
from tests.integration.calling import Watch, hears
from tests.integration.scripted import LONG, RATE, Script, agent, voice

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def board(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    settings = Settings(limits=LimitSettings(calls=1))
    agents = {"talker": agent("talker", greeting=LONG)}
    folder = tmp_path_factory.mktemp("refusals")
    async with switchboard(
        settings, agents, folder, answers={"*": "talker"}, parts=Script()
    ) as running:
        yield running


async def test_one_caller_too_many(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    first = await phone.call(board.pbx.uri("700"))
    await first.wait_for_sound()
    async with Softphone("second") as other:
        second = await other.call(board.pbx.uri("700"))
        await hears(second, prompt("vm-reachoper").samples)
        assert len(board.engine.desk) == 1
        assert not first.ended.is_set()
        await second.hang_up()
    # The one who talks already notices nothing: the story reaches him without a hole.
    await hears(first, voice(LONG), 20)
    await first.hang_up()
    record = await watch.record()
    assert len(watch.of("call.started")) == 1
    assert [(row.role, row.status) for row in record.transcripts] == [("agent", "heard")]


async def test_when_he_has_hung_up_the_next_one_is_taken(
    board: Switchboard, phone: Softphone
) -> None:
    for _ in range(2):
        watch = Watch(board.engine)
        call = await phone.call(board.pbx.uri("700"))
        await call.wait_for_sound()
        await watch.until(lambda: watch.of("call.started"))  # noqa: B023
        await call.hang_up()
        await watch.finished()


async def test_a_uuid_that_nobody_minted(
    board: Switchboard, phone: Softphone, caplog: pytest.LogCaptureFixture
) -> None:
    before = board.engine.audiosocket.refused["unknown"]
    first = await phone.call(board.pbx.uri("700"))
    await first.wait_for_sound()
    async with Softphone("stranger") as other:
        # Straight from the dialplan to the media port, with a UUID of its own.
        call = await other.call(board.pbx.uri("901"))
        await call.ended.wait()
        assert call.end_cause == "remote"
        assert not call.heard().any()
    assert board.engine.audiosocket.refused["unknown"] == before + 1
    assert "a line was refused" in caplog.messages
    assert len(board.engine.desk) == 1
    await hears(first, voice(LONG)[: 3 * RATE])
    await first.hang_up()


async def test_two_sockets_with_one_uuid(board: Switchboard) -> None:
    refused = board.engine.audiosocket.refused
    before = refused["repeated"]
    settings = board.engine.settings
    first = await AudioSocketCaller.call((settings.agi.host, settings.agi.port), "700")
    key = uuid.UUID(first.variables["OFFHOOK_UUID"]).bytes
    assert await first.wait_for_sound(first.answered_at, 5.0) is not None
    audio = settings.audiosocket
    reader, writer = await asyncio.open_connection(audio.host, audio.port)
    writer.write(b"\x01\x00\x10" + key)
    assert await reader.read() == b"\x00\x00\x00", "hung up on, and not a sample of sound"
    writer.close()
    await writer.wait_closed()
    assert refused["repeated"] == before + 1
    # The call itself goes on.
    assert len(board.engine.desk) == 1
    heard = first.heard.frames
    await asyncio.sleep(0.3)
    assert first.heard.frames > heard
    assert first.heard.quiet_for(asyncio.get_running_loop().time()) < 0.2
    assert not first.ended.is_set()
    await first.hang_up()
