"""A real call's recording: the caller left, the agent right, and both where they were."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from engine.bench.speech import trimmed
from engine.config import Settings
from engine.lab.softphone import Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import prompt
from engine.media.frame import Samples
from tests.integration.calling import Watch, after_greeting, best_fit
from tests.integration.scripted import RATE, Script, agent

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

NOTICE = "This call is recorded."
FRAME = RATE // 50
SLACK = RATE // 2


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def board(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    agents = {"clerk": agent("clerk", record=True, record_notice=NOTICE)}
    folder = tmp_path_factory.mktemp("recording")
    async with switchboard(
        Settings(), agents, folder, answers={"*": "clerk"}, parts=Script()
    ) as running:
        yield running


def lags(line: Samples, track: Samples) -> list[int]:
    """How much later than on the telephone's `line` each stretch of sound lies in the recording's `track`.

    In samples, one for each second in which there is something to compare.
    """
    start = best_fit(line, np.pad(track, (len(line), len(line))))[1] - len(line)
    found = []
    for at in range(0, len(line) - RATE + 1, RATE):
        piece = line[at : at + RATE]
        low = at + start - SLACK
        if np.abs(piece).max() < 500 or low < 0 or low + RATE + 2 * SLACK > len(track):
            continue
        r, offset = best_fit(piece, track[low : low + RATE + 2 * SLACK])
        assert r > 0.95, f"second {at // RATE} of the call is another sound in the recording"
        found.append(start - SLACK + offset)
    return found


async def test_both_sides_lie_where_they_were_all_through_the_call(
    board: Switchboard, phone: Softphone
) -> None:
    watch = Watch(board.engine)
    question = trimmed(prompt("privacy-prompt").samples)
    call = await phone.call(board.pbx.uri("700"))
    await after_greeting(call)
    for _ in range(2):
        await call.play(question)
        await call.wait_for_sound()
        await call.wait_for_silence(600)
    sent, heard = call.sent(), call.heard()
    await call.hang_up()
    record = await watch.record()

    assert [row.text for row in record.transcripts if row.role == "agent"][0] == NOTICE
    with wave.open(record.call.recording) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (2, RATE, 2)
        stereo = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert Path(record.call.recording).parent == board.settings.data / "recordings"
    assert abs(len(stereo) - len(sent)) < RATE
    caller, agent = (lags(line, stereo[:, side]) for side, line in enumerate((sent, heard)))
    assert len(caller) >= 6 and len(agent) >= 3
    # No drift: the first second and the last are equally late, to within a frame.
    assert max(caller) - min(caller) <= FRAME
    assert max(agent) - min(agent) <= FRAME
    # On the telephone's clock the sides keep their distance: only the way through Asterisk is between them.
    assert abs(caller[0] - agent[0]) <= 5 * FRAME
