"""Real SIP calls through a real Asterisk, on the real models of the embedded profile."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from engine.bench.speech import trimmed
from engine.config import Settings, SilencePolicy, load_agents
from engine.lab.softphone import Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import festival, prompt
from engine.media.frame import Pcm, Samples
from engine.media.resample import resample
from tests.integration.calling import Watch, after_greeting

pytestmark = [
    pytest.mark.asterisk,
    pytest.mark.models,
    pytest.mark.asyncio(loop_scope="module"),
]

LONG = (
    "We are open from Monday to Friday from nine in the morning until six in the evening, and on Saturday "
    "from ten until four. Fitting four wheels takes about forty minutes. We can store the other set for you."
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def board(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Switchboard]:
    """700 the receptionist, 701 the Russian one, 702 one that talks long, 703 one with no patience."""
    folder: Path = tmp_path_factory.mktemp("calls")
    agents = load_agents(Path("agents"))
    english = agents["reception"]
    agents["talker"] = english.model_copy(update={"id": "talker", "greeting": LONG})
    agents["hasty"] = english.model_copy(
        update={
            "id": "hasty",
            "greeting": "Yes?",
            "silence": SilencePolicy(reprompt_s=0.8, still_there_s=0.8, goodbye_s=0.8),
        }
    )
    answers = {
        "700": "reception",
        "701": "reception-ru",
        "702": "talker",
        "703": "hasty",
        "*": "reception",
    }
    async with switchboard(Settings(), agents, folder, answers=answers) as running:
        yield running


async def spoken(board: Switchboard, text: str) -> Samples:
    """A caller's English: the Piper voice, a tenth faster."""
    chunks = [c async for c in board.engine.parts.voices["reception"].speak(text, language="en")]
    raw = Pcm(np.concatenate([c.samples for c in chunks]), round(chunks[0].rate * 1.1))
    return trimmed(resample(raw, 8000).samples)


async def test_a_caller_is_understood_and_answered(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    question = await spoken(board, "How much does it cost to fit four tyres?")
    call = await phone.call(board.pbx.uri("700"))
    await after_greeting(call)
    played = await call.play(question)
    await call.wait_for_sound(20)
    await call.wait_for_silence(800, 30)
    answer = call.heard_between(played.last_at, asyncio.get_running_loop().time())
    await call.hang_up()
    finished = await watch.finished()

    assert "fit four" in watch.texts("caller.said").lower()
    understood = await board.engine.parts.stt.transcribe(Pcm(trimmed(answer), 8000), language="en")
    said = set(re.findall(r"\w+", watch.texts("agent.said").lower()))
    heard = set(re.findall(r"\w+", understood.text.lower()))
    assert len(heard & said) >= 3, understood.text
    assert finished.data["result"] == "caller_hangup"
    record = await board.engine.store.get_call(finished.call_id)
    assert record is not None
    assert record.call.outcome == "caller_hangup"
    assert record.call.ended_at is not None
    assert [row.role for row in record.transcripts][:2] == ["agent", "caller"]
    assert record.turns[0].gap_ms is not None


async def test_the_caller_interrupts(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("702"))
    await call.wait_for_sound(10)
    await asyncio.sleep(1.5)
    played = await call.play(trimmed(prompt("privacy-prompt").samples))
    await watch.until(lambda: watch.of("agent.interrupted"))
    # From one second after the caller began until he ended, the line is silent.
    during = call.heard_between(played.first_at + 1.0, played.last_at)
    await call.hang_up()
    finished = await watch.finished()

    assert np.abs(during.astype(np.int32)).max() < 200
    record = await board.engine.store.get_call(finished.call_id)
    assert record is not None
    cut = [row for row in record.transcripts if row.status == "cut"]
    assert len(cut) == 1
    assert 0 < (cut[0].heard_ms or 0) < 8000


async def test_a_backchannel_does_not_stop_the_agent(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("702"))
    await call.wait_for_sound(10)
    await asyncio.sleep(1.0)
    await call.play(await spoken(board, "Okay."))
    await watch.until(lambda: len(watch.of("agent.said")) >= 1, 30)
    await call.hang_up()
    await watch.finished()
    assert not watch.of("agent.interrupted")
    assert watch.of("agent.said")[0].data["status"] == "heard"


async def test_a_person_is_asked_for_and_comes(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    wish = await spoken(board, "I would like to speak to a real person, please.")
    async with Softphone("operator", sip_port=board.pbx.operator_port, auto_answer=True) as desk:
        call = await phone.call(board.pbx.uri("700"))
        await after_greeting(call)
        await call.play(wish)
        operator = await asyncio.wait_for(desk.incoming(), 25)
        await asyncio.sleep(0.3)
        played = await operator.play(trimmed(prompt("queue-thankyou").samples))
        await asyncio.sleep(0.2)
        from_operator = call.heard_between(played.first_at, played.last_at)
        await call.hang_up()
    finished = await watch.finished()

    assert finished.data["result"] == "transferred"
    assert finished.data["next_step"] == "dial:600"
    # The sentence that announced it was spoken to the end.
    assert watch.of("agent.said")[-1].data["status"] == "heard"
    understood = await board.engine.parts.stt.transcribe(Pcm(from_operator, 8000), language="en")
    assert "patience" in understood.text.lower()


async def test_keys_are_words_too(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("702"))
    await call.wait_for_sound(10)
    await call.send_dtmf("42#")
    await watch.until(lambda: watch.of("caller.said"))
    await call.hang_up()
    await watch.finished()
    assert watch.of("agent.interrupted")
    assert watch.texts("caller.said") == "[keys] 42"


async def test_nobody_speaks(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("703"))
    await asyncio.wait_for(call.ended.wait(), 30)
    finished = await watch.finished()
    assert [event.data["kind"] for event in watch.of("agent.prompt")] == [
        "greeting",
        "reprompt",
        "still_there",
        "goodbye",
    ]
    assert watch.of("agent.said")[-1].data["status"] == "heard"
    assert finished.data["result"] == "silence"
    assert call.end_cause == "remote"


async def test_silence_on_the_wire_is_no_dead_line(board: Switchboard, phone: Softphone) -> None:
    """A caller whose telephone sends no packets at all is still talked to."""
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("703"), muted_rtp=True)
    await asyncio.wait_for(call.ended.wait(), 30)
    assert (await watch.finished()).data["result"] == "silence"


@pytest.mark.parametrize("state", ["greeting", "listening", "thinking", "speaking"])
async def test_the_caller_hangs_up(board: Switchboard, phone: Softphone, state: str) -> None:
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("700"))
    await call.wait_for_sound(10)
    if state != "greeting":
        await call.wait_for_silence(500, 30)
    if state in ("thinking", "speaking"):
        await call.play(trimmed(prompt("privacy-prompt").samples))
        await watch.until(lambda: watch.of("caller.said"))
    if state == "speaking":
        await call.wait_for_sound(20)
    await call.hang_up()
    finished = await watch.finished()
    assert finished.data["result"] == "caller_hangup"
    record = await board.engine.store.get_call(finished.call_id)
    assert record is not None
    assert record.call.state == "ended"


async def test_over_chan_websocket(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    question = await spoken(board, "What is your address?")
    call = await phone.call(board.pbx.uri("800"))
    await after_greeting(call)
    await call.play(question)
    await call.wait_for_sound(20)
    await call.wait_for_silence(800, 30)
    await call.hang_up()
    await watch.finished()
    assert "address" in watch.texts("caller.said").lower()
    assert watch.of("turn.finished")


async def test_in_russian(board: Switchboard, phone: Softphone) -> None:
    watch = Watch(board.engine)
    question = await asyncio.to_thread(festival, "Скажите мне ваш адрес, пожалуйста.")
    wish = await asyncio.to_thread(festival, "Я хочу поговорить с человеком.")
    async with Softphone("operator", sip_port=board.pbx.operator_port, auto_answer=True) as desk:
        call = await phone.call(board.pbx.uri("701"))
        await after_greeting(call)
        await call.play(trimmed(question.samples))
        await call.wait_for_sound(20)
        await call.wait_for_silence(900, 40)
        await call.play(trimmed(wish.samples))
        operator = await asyncio.wait_for(desk.incoming(), 25)
        assert operator.answered_at
        await call.hang_up()
    finished = await watch.finished()
    assert re.search("[а-я]{4}", watch.texts("caller.said").lower())
    assert re.search("[а-я]{4}", watch.texts("agent.said").lower())
    assert finished.data["result"] == "transferred"


async def test_asterisk_restarts_in_mid_call(board: Switchboard, phone: Softphone) -> None:
    """The call is lost, its record is not, and the next call works."""
    watch = Watch(board.engine)
    call = await phone.call(board.pbx.uri("702"))
    await call.wait_for_sound(10)
    await board.pbx.restart()
    finished = await watch.finished()
    assert finished.data["result"] == "caller_hangup"
    assert board.engine.ami is not None
    await board.engine.ami.wait_connected(15)
    again = await phone.call(board.pbx.uri("700"))
    await again.wait_for_sound(10)
    await again.hang_up()
