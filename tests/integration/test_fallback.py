"""No engine answers: what the dialplan does for callers by itself."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.lab.sandbox import Sandbox
from engine.lab.sipp import SippOperator
from engine.lab.softphone import Softphone
from engine.lab.voice import prompt, read_wav
from tests.integration.calling import correlation, hears

pytestmark = pytest.mark.asterisk

SAID = prompt("vm-goodbye").samples


def messages(pbx: Sandbox) -> list[Path]:
    return sorted((pbx.folder / "var/messages").glob("*.wav"))


async def test_the_menu_answers_and_0_rings_the_operator(pbx: Sandbox) -> None:
    menu = prompt("vm-reachoper").samples
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=pbx.operator_port, auto_answer=True) as desk,
    ):
        call = await phone.call(pbx.uri("100"))
        await call.wait_for_sound()
        await call.play(np.zeros(len(menu) + 4000, np.int16))
        assert correlation(menu, call.heard()) > 0.99
        await call.send_dtmf("0")
        operator = await desk.incoming()
        await operator.hang_up()


async def test_5_leaves_a_message_and_to_hang_up_ends_it_as_well(pbx: Sandbox) -> None:
    async with Softphone("one") as one, Softphone("other") as other:
        calls = [await phone.call(pbx.uri("700")) for phone in (one, other)]
        for call in calls:
            await call.wait_for_sound()
            await call.send_dtmf("5")
        async with asyncio.timeout(15):
            while len(messages(pbx)) < 2:  # noqa: ASYNC110 - after the tone Asterisk records
                await asyncio.sleep(0.05)
        for call in calls:
            assert correlation(prompt("vm-intro").samples, call.heard()) > 0.99
        # Asterisk strips the last quarter of a second, in which the key sounds.
        whole = np.pad(SAID, (0, 4000))
        await asyncio.gather(*(call.play(whole) for call in calls))
        await calls[0].send_dtmf("#")
        await calls[1].hang_up()
        await hears(calls[0], prompt("vm-msgsaved").samples)
        await calls[0].ended.wait()
        assert calls[0].end_cause == "remote"
    for kept in messages(pbx):
        assert correlation(SAID, read_wav(kept).samples) > 0.99


async def test_a_wrong_key_leads_to_the_queue(pbx: Sandbox) -> None:
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=pbx.operator_port, auto_answer=True) as desk,
    ):
        call = await phone.call(pbx.uri("700"))
        await call.wait_for_sound()
        await call.send_dtmf("9")
        operator = await desk.incoming()
        await operator.play(SAID)
        await call.wait_for_silence(300)
        assert correlation(SAID, call.heard()) > 0.99
        await operator.hang_up()
        # Served: the caller is not offered a message as well.
        await call.ended.wait()
        assert messages(pbx) == []


async def test_straight_to_the_queue_and_somebody_elses_phone_answers(pbx: Sandbox) -> None:
    if shutil.which("sipp") is None:
        pytest.skip("sipp is not installed (package sip-tester)")
    await pbx.cli("dialplan set global OFFHOOK_FALLBACK queue:support")
    async with SippOperator(pbx.operator_port) as operator, Softphone("caller") as phone:
        call = await phone.call(pbx.uri("700"))
        await call.play(np.zeros(8000, np.int16))
        await call.play(SAID)
        await call.wait_for_silence(300)
        # SIPp sends back what it gets: they are connected both ways.
        assert correlation(SAID, call.heard()) > 0.99
        await call.hang_up()
        await operator.finished()


async def test_nobody_in_the_queue_answers(pbx: Sandbox) -> None:
    await pbx.cli("dialplan set global OFFHOOK_FALLBACK queue:support")
    await pbx.cli("dialplan set global OFFHOOK_QUEUE_S 1")
    async with (
        Softphone("caller") as phone,
        Softphone("operator", sip_port=pbx.operator_port) as desk,
    ):
        call = await phone.call(pbx.uri("700"))
        await desk.incoming()  # rings, and nobody is there
        await hears(call, prompt("vm-nobodyavail").samples)
        await call.wait_for_sound()  # the invitation to leave a message
        await call.hang_up()


async def test_a_queue_that_does_not_exist(pbx: Sandbox) -> None:
    await pbx.cli("dialplan set global OFFHOOK_FALLBACK queue:nosuch")
    async with Softphone("caller") as phone:
        call = await phone.call(pbx.uri("700"))
        await hears(call, prompt("vm-nobodyavail").samples)
