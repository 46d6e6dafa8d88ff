from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest

from engine.aio import Background
from engine.calls.turn import Turn
from engine.dialog.mind import Say, Thought, ToolStarted
from engine.errors import ModelError
from engine.media.frame import Pcm
from engine.playback.utterance import Utterance
from engine.stt.base import Transcript

HEARD = Transcript("Open?", "en", 0.9, took_ms=200.4)
THOUGHTS: list[Thought] = [Say("At nine.", "en"), ToolStarted("order", {}, "c1")]


class World:
    """A turn whose thoughts and voice are at hand, and that nobody plays."""

    def __init__(self, *, notice: bool = False, error: Exception | None = None) -> None:
        self.thoughts: list[Thought] = []
        self.tasks = Background()
        self.error = error
        self.turn = Turn(
            utterance=Utterance(8000, kind="reply"),
            voice=self.voice,
            compose=self.compose,
            on_thought=lambda turn, thought: self.thoughts.append(thought),
            tasks=self.tasks,
            notice=notice,
        )

    async def voice(self, text: str, language: str) -> AsyncIterator[Pcm]:
        yield Pcm(np.full(160, 1000, np.int16), 8000)

    async def compose(self, turn: Turn) -> AsyncGenerator[Thought, None]:
        for thought in THOUGHTS:
            yield thought
        if self.error is not None:
            raise self.error

    def play(self) -> None:
        while not self.turn.utterance.done:
            self.turn.utterance.next_frame(1.0)


async def test_a_turn_hears_thinks_and_speaks() -> None:
    world = World()
    world.turn.start_with(HEARD)
    waiting = asyncio.create_task(world.turn.wait())
    assert await world.turn.transcript == HEARD
    await asyncio.wait({world.turn._work})  # type: ignore[arg-type]
    assert world.thoughts == THOUGHTS and not waiting.done()
    assert world.turn.timings.stt_ms == 200 and world.turn.timings.sound_at > 0
    world.play()
    await waiting


async def test_what_was_thought_before_the_commit_is_handed_over_once() -> None:
    world = World()
    world.turn.early.append(THOUGHTS[0])
    assert world.turn.commit() == [THOUGHTS[0]]
    assert world.turn.commit() == [] and world.turn.committed.is_set()


async def test_a_stopped_turn_stops_its_recogniser_and_says_nothing() -> None:
    world = World()
    hearing = asyncio.get_running_loop().create_future()
    world.turn.start(hearing)
    await asyncio.sleep(0)
    world.turn.stop()
    world.turn.stop()
    await world.turn.wait()
    assert hearing.cancelled() and world.turn.transcript.cancelled()
    assert world.turn.utterance.interrupted and world.thoughts == []


async def test_a_turn_that_was_never_begun_can_be_stopped() -> None:
    turn = World().turn
    turn.stop()
    await turn.wait()
    assert turn.utterance.interrupted


@pytest.mark.parametrize("error", [ModelError("oom"), KeyError("bug")])
async def test_what_composing_raises_is_raised_to_who_waits(error: Exception) -> None:
    world = World(error=error)
    world.turn.start_with(HEARD)
    with pytest.raises(type(error)):
        await world.turn.wait()


async def test_what_hearing_raises_is_the_transcripts_error() -> None:
    world = World()
    hearing = asyncio.get_running_loop().create_future()
    hearing.set_exception(ModelError("deaf"))
    world.turn.start(hearing)
    with pytest.raises(ModelError, match="deaf"):
        await world.turn.transcript


async def test_closing_the_tasks_ends_every_turn() -> None:
    world = World()
    world.turn.start(asyncio.get_running_loop().create_future())
    await asyncio.sleep(0)
    await world.tasks.close()
    await asyncio.wait_for(asyncio.wait({world.turn._work}), 1)  # type: ignore[arg-type]
    assert world.turn._work is not None and world.turn._work.cancelled()


async def test_a_notice_is_heard_when_its_last_frame_was_played() -> None:
    assert World().turn.notice_heard
    world = World(notice=True)
    assert not world.turn.notice_heard
    world.turn.start_with(HEARD)
    await asyncio.wait({world.turn._work})  # type: ignore[arg-type]
    assert not world.turn.notice_heard
    world.play()
    assert world.turn.notice_heard
