from __future__ import annotations

import pytest

from engine.aio import Background
from engine.calls.ears import Heard
from engine.calls.floor import Floor
from engine.calls.journal import Journal
from engine.calls.state import Outcome
from engine.calls.turn import Timings, Turn
from engine.config import TurnPolicy
from engine.events import Event, EventBus
from engine.media.frame import FRAME_S, Pcm
from engine.playback.utterance import Utterance


class World:
    """A floor, and turns on it whose utterances are fed and played by hand."""

    def __init__(self, **policy: bool) -> None:
        self.events: list[Event] = []
        self.kept = 0
        bus = EventBus()
        bus.listen(self.events.append)
        self.floor = Floor(TurnPolicy(**policy), ("en",), Journal("c", None, bus), self._keep)

    def _keep(self) -> None:
        self.kept += 1

    @staticmethod
    def turn(speech_to: float = 0.0, *, notice: bool = False) -> Turn:
        return Turn(
            utterance=Utterance(8000, kind="reply"),
            voice=None,  # type: ignore[arg-type]
            compose=None,  # type: ignore[arg-type]
            on_thought=None,  # type: ignore[arg-type]
            tasks=Background(),
            timings=Timings(speech_to=speech_to),
            notice=notice,
        )

    async def sounds(self, turn: Turn, at: float, text: str = "We open at nine.") -> None:
        """The turn has the floor, and three seconds of it that begin at `at`."""
        if self.floor.turn is not turn:
            self.floor.take(turn)
        await turn.utterance.say(text, "en", _silence(3.0))
        turn.utterance.next_frame(at)
        self.hears(at, speech=False)

    def hears(self, at: float, *, speech: bool) -> None:
        self.floor.hear(at, Heard(speech, None, 0.0, []))

    def caller_speaks(self, start: float, end: float) -> None:
        for n in range(round((end - start) / FRAME_S)):
            self.hears(start + (n + 1) * FRAME_S, speech=True)

    def told(self) -> list[str]:
        return [event.type for event in self.events]


async def _silence(seconds: float):  # type: ignore[no-untyped-def]
    yield Pcm.silence(seconds, 8000)


@pytest.fixture
async def world() -> World:
    return World()


async def test_an_empty_floor_minds_nothing(world: World) -> None:
    world.caller_speaks(1.0, 3.0)
    world.floor.key(3.0)
    world.floor.hush()
    world.floor.hold()
    world.floor.let_go()
    world.floor.revoke()
    world.floor.clear()
    assert world.told() == [] and not world.floor.sounding and not world.floor.guarded


@pytest.mark.parametrize(("speech_to", "over"), [(4.9, False), (5.08, False), (5.3, True)])
async def test_what_was_said_before_the_agents_sound_is_not_said_over_it(
    world: World, speech_to: float, over: bool
) -> None:
    assert not world.floor.hides(world.turn(speech_to))
    reply = world.turn()
    world.floor.take(reply)
    assert not world.floor.hides(world.turn(speech_to)), "nothing sounds yet"
    await world.sounds(reply, at=5.0)
    assert world.floor.hides(world.turn(speech_to)) is over
    reply.timings.speech_to = speech_to
    assert not world.floor.hides(reply), "a turn is not said over its own reply"


async def test_speech_over_the_agent_holds_it_and_then_takes_the_floor(world: World) -> None:
    turn = world.turn(speech_to=4.0)
    await world.sounds(turn, at=5.0)
    world.caller_speaks(5.5, 5.7)
    assert turn.utterance.state == "paused" and world.floor.turn is turn
    world.caller_speaks(5.7, 6.3)
    assert turn.utterance.interrupted and world.floor.turn is None
    assert world.told() == ["agent.interrupted", "agent.said", "turn.finished"]
    assert world.events[0].data["stop_ms"] == 120
    assert world.events[2].data["barge_in"] and world.events[2].data["barge_in_stop_ms"] == 120


async def test_what_must_be_heard_is_heard(world: World) -> None:
    turn = world.turn()
    await world.sounds(turn, at=5.0)
    world.caller_speaks(5.5, 5.7)
    world.floor.plan = Outcome("transferred", "dial:600")
    world.caller_speaks(5.7, 7.0)
    world.floor.key(7.0)
    assert turn.utterance.state == "playing" and not world.floor.interruptible


async def test_a_notice_is_guarded_until_it_was_heard(world: World) -> None:
    turn = world.turn(notice=True)
    await world.sounds(turn, at=5.0)
    assert world.floor.guarded
    world.caller_speaks(5.5, 6.5)
    assert turn.utterance.state == "playing"
    await turn.utterance.say("Hello.", "en", _silence(3.0))
    for _ in range(150):
        turn.utterance.next_frame(6.5)
    assert not world.floor.guarded
    world.caller_speaks(8.0, 9.0)
    assert turn.utterance.interrupted


@pytest.mark.parametrize(
    ("result", "revoked"),
    [("completed", True), ("silence", True), ("transferred", False), ("drained", False)],
)
async def test_only_a_goodbye_can_be_taken_back(world: World, result: str, revoked: bool) -> None:
    world.floor.plan = Outcome(result)
    world.floor.revoke()
    assert (world.floor.plan is None) is revoked and world.kept == revoked


async def test_a_held_reply_waits_and_only_before_it_sounds(world: World) -> None:
    turn = world.turn()
    world.floor.take(turn)
    world.floor.hold()
    assert turn.utterance.state == "paused"
    world.floor.let_go()
    assert turn.utterance.state == "queued"
    await world.sounds(turn, at=5.0)
    world.floor.hold()
    assert turn.utterance.state == "playing"


async def test_a_turn_that_is_replaced_is_stopped_and_written_down(world: World) -> None:
    first, second = world.turn(speech_to=4.0), world.turn()
    await world.sounds(first, at=5.0)
    world.floor.take(second)
    assert first.utterance.interrupted and world.floor.turn is second
    assert world.told() == ["agent.said", "turn.finished"]
    assert not world.events[1].data["barge_in"]
    assert not world.floor.done(first)


async def test_a_turn_is_done_when_it_was_heard_and_not_when_the_line_is_gone(
    world: World,
) -> None:
    turn = world.turn()
    await world.sounds(turn, at=5.0)
    turn.utterance.interrupt()
    assert not world.floor.done(turn) and world.told() == []
    world.floor.clear()
    world.floor.clear()
    assert world.told() == ["agent.said"] and world.events[0].data["status"] == "cut"
    heard = world.turn()
    world.floor.take(heard)
    assert world.floor.done(heard) and world.floor.turn is None


async def test_where_nothing_may_interrupt_the_agent_speaks_on() -> None:
    world = World(barge_in=False)
    turn = world.turn()
    await world.sounds(turn, at=5.0)
    world.caller_speaks(5.5, 7.0)
    world.floor.key(7.0)
    assert turn.utterance.state == "playing"
