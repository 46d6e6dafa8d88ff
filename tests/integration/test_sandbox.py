"""The sandbox by itself: a real Asterisk, our phone, somebody else's phone, recorded people."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.lab.sandbox import Sandbox
from engine.lab.sipp import SippOperator
from engine.lab.softphone import CallFailed, Softphone
from engine.lab.voice import VoiceMissing, festival, joined, prompt, transcripts
from tests.integration.calling import NO_ENGINE, correlation

pytestmark = pytest.mark.asterisk


async def test_echo_returns_human_speech_and_keys(pbx: Sandbox) -> None:
    said = joined([prompt("agent-pass"), prompt("vm-goodbye")], gap_s=0.2).samples
    async with Softphone("caller") as phone:
        call = await phone.call(pbx.uri("900"))
        played = await call.play(said)
        await call.wait_for_silence(300)
        heard = call.heard_between(played.first_at - 0.1, played.last_at + 0.5)
        assert correlation(said, heard) > 0.99
        assert correlation(said, call.sent()) > 0.99
        await call.send_dtmf("12*", press_ms=80)
        await call.play(np.zeros(1600, np.int16))
        assert [digit.key for digit in call.digits] == ["1", "2", "*"]
        await call.hang_up()
        assert call.end_cause == "local"


async def test_600_rings_the_operator_and_both_hear_each_other(pbx: Sandbox) -> None:
    question, answer = prompt("vm-intro").samples[:16000], prompt("vm-goodbye").samples
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=pbx.operator_port, auto_answer=True) as desk,
    ):
        call = await phone.call(pbx.uri("600"))
        operator = await desk.incoming()
        await asyncio.gather(call.play(question), operator.play(answer))
        await asyncio.gather(call.wait_for_silence(300), operator.wait_for_silence(300))
        assert correlation(question, operator.heard()) > 0.99
        assert correlation(answer, call.heard()) > 0.99
        await operator.hang_up()
        await call.ended.wait()
        assert call.end_cause == "remote"


async def test_a_busy_operator(pbx: Sandbox) -> None:
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=pbx.operator_port) as desk,
    ):
        calling = asyncio.create_task(phone.call(pbx.uri("600")))
        (await desk.incoming()).refuse(486)
        with pytest.raises(CallFailed) as caught:
            await calling
        assert caught.value.status == 486


async def test_600_by_somebody_elses_phone(pbx: Sandbox) -> None:
    if shutil.which("sipp") is None:
        pytest.skip("sipp is not installed (package sip-tester)")
    said = prompt("agent-pass").samples
    async with SippOperator(pbx.operator_port) as operator, Softphone("caller") as phone:
        call = await phone.call(pbx.uri("600"))
        await call.play(said)
        await call.wait_for_silence(300)
        assert correlation(said, call.heard()) > 0.99
        await call.hang_up()
        await operator.finished()


async def test_somebody_elses_phone_hangs_up(pbx: Sandbox) -> None:
    if shutil.which("sipp") is None:
        pytest.skip("sipp is not installed (package sip-tester)")
    async with SippOperator(pbx.operator_port) as operator, Softphone("caller") as phone:
        call = await phone.call(pbx.uri("600"))
        await call.ended.wait()
        assert call.end_cause == "remote"
        await operator.finished()


async def test_alice_needs_her_password(pbx: Sandbox) -> None:
    async with Softphone("alice", password=pbx.alice_password) as alice:
        await (await alice.call(pbx.uri("900"))).hang_up()
    async with Softphone("alice", password="guessed") as stranger:
        with pytest.raises(CallFailed) as caught:
            await stranger.call(pbx.uri("900"))
        assert caught.value.status == 401


async def test_an_unknown_number(pbx: Sandbox) -> None:
    async with Softphone("caller") as phone:
        with pytest.raises(CallFailed) as caught:
            await phone.call(pbx.uri("555"))
        assert caught.value.status == 404


async def test_901_dials_the_engine_without_asking_it(tmp_path: Path) -> None:
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first.set_result(await reader.readexactly(19))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    where = {**NO_ENGINE, "audiosocket": f"{host}:{port}"}
    async with server, Sandbox(tmp_path, **where) as pbx, Softphone("caller") as phone:
        call = await phone.call(pbx.uri("901"))
        assert (await first)[:3] == b"\x01\x00\x10"  # the call's UUID, sixteen bytes
        await call.ended.wait()
        assert call.end_cause == "remote"


async def test_restart_says_bye_and_comes_back_on_the_same_ports(pbx: Sandbox) -> None:
    async with Softphone("caller") as phone:
        call = await phone.call(pbx.uri("900"))
        first = pbx.pid
        await pbx.restart()
        await call.ended.wait()
        assert call.end_cause == "remote"
        assert pbx.pid != first
        await (await phone.call(pbx.uri("900"))).hang_up()
        await pbx.stop(kill=True)
        assert pbx.pid is None


async def test_two_at_once_and_nothing_is_missing(pbx: Sandbox, tmp_path: Path) -> None:
    async with Sandbox(tmp_path / "other", **NO_ENGINE) as other:
        assert other.sip_port != pbx.sip_port
        for sandbox in (pbx, other):
            assert "PJSIP/operator" in await sandbox.cli("queue show support")
            assert "offhook" in await sandbox.cli("manager show users")
        contexts = await other.cli("dialplan show")
        for context in ("offhook", "offhook-next", "offhook-websocket", "offhook-outbound"):
            assert f"Context '{context}'" in contexts
    problems = [
        line for line in pbx.log_text().splitlines() if " ERROR[" in line or " WARNING[" in line
    ]
    assert problems == []


def test_prompts_have_transcripts_in_both_languages() -> None:
    for language, words in (("en", "password"), ("ru", "пароль")):
        said = transcripts(language)
        assert len(said) > 300
        assert words in said["agent-pass"]
        assert 1 < prompt("agent-pass", language).seconds < 10
    with pytest.raises(VoiceMissing):
        prompt("nobody-said-this")
    with pytest.raises(VoiceMissing):
        prompt("agent-pass", "xx")


def test_festival_speaks_russian() -> None:
    if shutil.which("text2wave") is None:
        pytest.skip("festival is not installed (packages festival, festvox-ru)")
    said = festival("Здравствуйте.")
    assert said.rate == 8000
    assert 0.3 < said.seconds < 3
    assert abs(said.samples.astype(int)).max() > 1000
