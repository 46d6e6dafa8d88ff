"""A model fails in the middle of a call: the caller is told or handed on, and nobody else notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from engine.bench.speech import trimmed
from engine.config import LimitSettings, Settings
from engine.dialog.llm.openai_compatible import OpenAiCompatible
from engine.dialog.phrases import phrases
from engine.errors import ModelError
from engine.inference.model_server import ModelServer
from engine.lab.softphone import PhoneCall, Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import prompt
from tests.integration.calling import Watch, hears
from tests.integration.scripted import LONG, Script, agent, voice
from tests.peers.openai_server import Answer, openai_server

pytestmark = [pytest.mark.asterisk, pytest.mark.asyncio(loop_scope="module")]

HOUSE = phrases("en")
QUESTION = trimmed(prompt("vm-goodbye").samples)
STORY = LONG[:100]  # 5 s
MENU = prompt("vm-reachoper").samples
ANSWER = "We open at nine."
UNSPEAKABLE = "These words have no sound."
AGENTS = [
    agent("raises"),
    agent("raises-alone", transfers=()),
    agent("stalls"),
    agent("mistaken"),
    agent("deaf", languages=("uk",)),
    agent("dumb", greeting=UNSPEAKABLE),
    agent("well", greeting=STORY),
]
NUMBERS = {str(700 + index): item.id for index, item in enumerate(AGENTS)}


def number_of(name: str) -> str:
    return next(number for number, agent in NUMBERS.items() if agent == name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def board(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    limits = LimitSettings(llm_attempts=2)
    async with openai_server(*[Answer(stalls=True)] * 20) as server:
        stalling = OpenAiCompatible(ModelServer(server.url), "reference", timeout_s=0.5)
        script = Script(
            answer=ANSWER,
            llm_fails_for={
                "raises": ModelError("out of memory"),
                "raises-alone": ModelError("out of memory"),
                "stalls": stalling,
                "mistaken": ZeroDivisionError("a bug of ours"),
            },
            stt_fails_in={"uk": ModelError("no ears")},
            tts_fails_on={UNSPEAKABLE: ModelError("no voice")},
        )
        async with switchboard(
            Settings(limits=limits),
            {item.id: item for item in AGENTS},
            tmp_path_factory.mktemp("failures"),
            answers=NUMBERS,
            parts=script,
        ) as running:
            yield running
        await stalling.close()


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def other(board: Switchboard, phone: Softphone) -> AsyncIterator[None]:
    """Somebody else's call at the same time, which goes on as if nothing had happened."""
    async with Softphone("neighbour") as neighbour:
        watch = Watch(board.engine)
        call = await neighbour.call(board.pbx.uri(number_of("well")))
        await call.wait_for_sound()
        yield
        await hears(call, voice(STORY), 20)
        assert not watch.of("call.error", "well")
        await call.hang_up()
        record = await watch.record("well")
        assert [row.status for row in record.transcripts] == ["heard"]


async def ask(board: Switchboard, phone: Softphone, name: str) -> PhoneCall:
    call = await phone.call(board.pbx.uri(number_of(name)))
    await call.wait_for_sound()
    await call.wait_for_silence(300)
    await call.play(QUESTION)
    return call


@pytest.mark.parametrize("name", ["raises", "stalls"])
async def test_the_language_model_is_gone_and_a_person_takes_over(
    board: Switchboard, phone: Softphone, name: str
) -> None:
    watch = Watch(board.engine)
    async with Softphone("operator", sip_port=board.pbx.operator_port, auto_answer=True) as desk:
        call = await ask(board, phone, name)
        operator = await asyncio.wait_for(desk.incoming(), 15)
        await hears(call, voice(HOUSE.trouble))
        assert operator.answered_at
        await call.hang_up()
    record = await watch.record(name)
    assert (record.call.outcome, record.call.next_step) == ("transferred", "dial:600")
    assert record.call.reason == "technical trouble"
    assert [row.text for row in record.transcripts if row.status == "heard"][-1] == HOUSE.trouble


async def test_with_nobody_to_take_over_the_caller_is_asked_to_try_again(
    board: Switchboard, phone: Softphone
) -> None:
    call = await ask(board, phone, "raises-alone")
    await hears(call, voice(HOUSE.trouble_alone))
    assert not call.ended.is_set()
    await call.hang_up()


@pytest.mark.parametrize(
    ("name", "why"),
    [("mistaken", "ZeroDivisionError"), ("deaf", "MODEL_FAILED")],
)
async def test_what_cannot_be_talked_away_goes_to_the_fallback(
    board: Switchboard, phone: Softphone, name: str, why: str
) -> None:
    watch = Watch(board.engine)
    call = await ask(board, phone, name)
    apology = phrases("uk" if name == "deaf" else "en").trouble_leaving
    await hears(call, voice(apology))
    await hears(call, MENU)
    await call.hang_up()
    record = await watch.record(name)
    assert (record.call.outcome, record.call.next_step) == ("failed", "menu")
    assert record.call.reason == why
    assert [event.data["code"] for event in watch.of("call.error", name)] == [why]
    # What had been heard before is kept.
    assert [(row.text, row.status) for row in record.transcripts if row.role == "agent"] == [
        ("Good day.", "heard"),
        (apology, "heard"),
    ]


async def test_an_agent_without_a_voice(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri(number_of("dumb")))
    await hears(call, MENU)
    await call.hang_up()
    record = await watch.record("dumb")
    assert (record.call.outcome, record.call.reason) == ("failed", "MODEL_FAILED")
    assert [row.status for row in record.transcripts] == ["unheard", "heard"]
