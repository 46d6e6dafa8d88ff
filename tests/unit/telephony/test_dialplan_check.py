from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.config import AgiSettings, AudioSocketSettings, RouteSettings, Settings
from engine.telephony import dialplan_check
from engine.telephony.ami import AmiClient
from engine.telephony.dialplan_check import Finding, check, shipped_dialplan, shown_steps
from engine.telephony.dialplan_lint import check_file, read
from tests.peers.ami_server import Action, AmiServer, Link

# What the console of Asterisk 22.10.1 printed, byte for byte but for the name of the builder.
VERSION = "Asterisk 22.10.1+dfsg+~cs6.17.60671434-1 built by nobody @ builder on a unknown running Linux on 2026-07-20 21:35:32 UTC"
MODULES_HEAD = "Module                         Description                              Use Count  Status      Support Level"
APP_AUDIOSOCKET = f"""{MODULES_HEAD}
app_audiosocket.so             AudioSocket Application                  0          Running          extended
1 modules loaded"""
NO_MODULE = f"{MODULES_HEAD}\n0 modules loaded"
OFFHOOK = """[ Context 'offhook' created by 'pbx_config' ]
  '_[+0-9s]!' =>    1. Answer()                                   [offhook.conf:28]
                    2. GotoIf($["${AGISTATUS}/${OFFHOOK_STATUS}" != "SUCCESS/OK"]?next) [offhook.conf:34]
                    3. TryExec(AudioSocket(${OFFHOOK_UUID},${OFFHOOK_AUDIO})) [offhook.conf:35]
     [next]         4. Goto(offhook-next,s,1)                     [offhook.conf:37]

-= 1 extension (4 priorities) in 1 context. =-"""
NO_CONTEXT = (
    "There is no existence of 'offhook-menu' context\nCommand 'dialplan show offhook-menu' failed."
)
EXTENSION = """[ Context 'from-internal' created by 'pbx_config' ]
  '600' =>          1. Answer()                                   [extensions.conf:4]
                    2. Echo()                                     [extensions.conf:5]

-= 1 extension (2 priorities) in 1 context. =-"""
NO_EXTENSION = "There is no existence of 999@from-internal extension\nCommand 'dialplan show 999@from-internal' failed."
GLOBALS = "   OFFHOOK_HOST=127.0.0.1:4599\n\n    -- 1 variable(s)"
QUEUE = """offhook has 0 calls (max unlimited) in 'ringall' strategy (0s holdtime, 0s talktime), W:0, C:0, A:0, SL:0.0%, SL2:0.0% within 0s
   No Members
   No Callers"""

OURS = """
[offhook]
exten => _[+0-9s]!,1,Answer()
 same => n,GotoIf($["${AGISTATUS}/${OFFHOOK_STATUS}" != "SUCCESS/OK"]?next)
 same => n,TryExec(AudioSocket(${OFFHOOK_UUID},${OFFHOOK_AUDIO}))   ; the conversation
 same => n(next),Goto(offhook-next,s,1)
[offhook-menu]
exten => s,1,Answer()
[offhook-websocket]
exten => s,1,Answer()
"""


class Console:
    """An AMI peer whose Command action prints what `says` holds; modules it does not know are running."""

    def __init__(self) -> None:
        self.says: dict[str, str] = {
            "core show version": VERSION,
            "dialplan show globals": GLOBALS,
            "dialplan show offhook": OFFHOOK,
            "dialplan show offhook-menu": NO_CONTEXT,
            "dialplan show offhook-websocket": NO_CONTEXT.replace("-menu", "-websocket"),
            "dialplan show 600@from-internal": EXTENSION,
            "dialplan show 999@from-internal": NO_EXTENSION,
            "queue show offhook": QUEUE,
            "module show like chan_websocket.so": NO_MODULE,
        }

    async def answer(self, link: Link, action: Action) -> None:
        command = action["Command"][0]
        if module := re.fullmatch(r"module show like (\w+)\.so", command):
            running = APP_AUDIOSOCKET.replace("app_audiosocket", module[1])
            said = self.says.get(command, running)
        else:
            said = self.says.get(command, f"No such queue: {command.split()[-1]}.")
        response = "Error" if said.endswith("failed.") else "Success"
        head = [f"Response: {response}", f"ActionID: {action['ActionID'][0]}"]
        head.append("Message: Command output follows")
        lines = head + [f"Output: {line}" for line in said.split("\n")]
        link.raw(("\r\n".join(lines) + "\r\n\r\n").encode())


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
async def server(console: Console) -> AsyncIterator[AmiServer]:
    async with AmiServer() as server:
        server.on("Command", console.answer)
        yield server


@pytest.fixture
async def ami(server: AmiServer) -> AsyncIterator[AmiClient]:
    async with AmiClient("127.0.0.1", server.port, "engine", "s3cret") as ami:
        await ami.wait_connected(10)
        yield ami


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    ours = tmp_path / "offhook.conf"
    ours.write_text(OURS)
    monkeypatch.setattr(dialplan_check, "shipped_dialplan", lambda: ours)
    (tmp_path / "reception.toml").write_text(
        'name = "Reception"\nlanguages = ["en"]\ngreeting = "Hello."\nprompt = "Be brief."\n'
        'transfers = [{name = "a", to = "600"}, {name = "b", to = "999"}, {name = "c", to = "queue:vip"}]\n'
    )
    return Settings(
        agents=tmp_path,
        agi=AgiSettings(port=4599),
        routes=(RouteSettings(number="*", agent="reception", when_full="dial:6 00"),),
    )


def problems(findings: list[Finding]) -> dict[str, str]:
    return {finding.title: finding.level for finding in findings if finding.level != "ok"}


async def test_each_trouble_on_a_real_console_is_told(ami: AmiClient, settings: Settings) -> None:
    findings = await check(ami, settings)
    assert problems(findings) == {
        "chan_websocket is not loaded: [offhook-websocket] cannot be used; AudioSocket can": "warn",
        "[offhook-menu] is not in the dialplan": "error",
        "[offhook-websocket] is not in the dialplan": "warn",
        "AGI does not answer on 127.0.0.1:4599": "error",
        "AudioSocket does not answer on 127.0.0.1:9092": "error",
        "queue offhook has no members": "warn",
        "agent reception, transfer b sends callers to 999@from-internal, which does not exist": "error",
        "agent reception, transfer c sends callers to queue vip, which does not exist": "error",
        "route * sends callers to 'dial:6 00', which cannot be dialled": "error",
    }
    assert all(finding.how_to_fix for finding in findings if finding.level != "ok")
    fine = {finding.title for finding in findings if finding.level == "ok"}
    assert {"app_audiosocket runs", "[offhook] is in the dialplan"} <= fine
    assert "600@from-internal exists (agent reception, transfer a)" in fine


async def test_missing_modules_and_an_old_asterisk_are_errors(
    console: Console, ami: AmiClient, settings: Settings
) -> None:
    console.says["module show like app_audiosocket.so"] = NO_MODULE
    console.says["core show version"] = "Asterisk 16.28.0 built by pbuilder @ buildd"
    found = problems(await check(ami, settings))
    assert found["app_audiosocket is not loaded: the engine cannot hear calls"] == "error"
    assert found["Asterisk 16.28.0 is too old"] == "error"


async def test_an_edited_context_is_a_warning(
    console: Console, ami: AmiClient, settings: Settings
) -> None:
    console.says["dialplan show offhook"] = OFFHOOK.replace("TryExec(AudioSocket", "(AudioSocket")
    found = problems(await check(ami, settings))
    assert found["[offhook] is not the one shipped with this version (_[+0-9s]!)"] == "warn"


async def test_a_different_agi_port_in_the_dialplan_is_an_error(
    console: Console, ami: AmiClient, settings: Settings
) -> None:
    console.says["dialplan show globals"] = "\n    -- 0 variable(s)"
    found = problems(await check(ami, settings))
    assert found["the dialplan asks port 4573, the engine listens on 4599"] == "error"


async def test_ports_that_answer_are_fine(ami: AmiClient, settings: Settings) -> None:
    def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        agi, sound = AgiSettings(port=port), AudioSocketSettings(host="0.0.0.0", port=port)
        reached = settings.model_copy(update={"agi": agi, "audiosocket": sound})
        findings = await check(ami, reached)
    assert {f"AGI answers on 127.0.0.1:{port}", f"AudioSocket answers on 127.0.0.1:{port}"} <= {
        finding.title for finding in findings if finding.level == "ok"
    }


async def test_without_a_link_there_is_one_finding(settings: Settings) -> None:
    down = AmiClient("127.0.0.1", 1, "engine", "s3cret")
    [finding] = await check(down, settings)
    assert finding.level == "error" and "no AMI link" in finding.title


async def test_without_the_right_to_run_commands_it_says_which_right(
    server: AmiServer, ami: AmiClient, settings: Settings
) -> None:
    async def refuse(link: Link, action: Action) -> None:
        link.error(action, "Permission denied")

    server.on("Command", refuse)
    [finding] = await check(ami, settings)
    assert "Permission denied" in finding.title and "write=" in finding.how_to_fix


def test_shown_dialplan_is_read_with_labels_and_origins() -> None:
    assert shown_steps(OFFHOOK) == {
        "_[+0-9s]!": [
            "Answer()",
            'GotoIf($["${AGISTATUS}/${OFFHOOK_STATUS}" != "SUCCESS/OK"]?next)',
            "TryExec(AudioSocket(${OFFHOOK_UUID},${OFFHOOK_AUDIO}))",
            "Goto(offhook-next,s,1)",
        ]
    }


# --- files ---------------------------------------------------------------------------------------


def lint(folder: Path, text: str) -> list[str]:
    file = folder / "extensions.conf"
    file.write_text(text)
    return [finding.title for finding in check_file(file, Settings()) if finding.level == "error"]


def test_the_shipped_dialplan_has_no_faults() -> None:
    path = shipped_dialplan()
    [finding] = check_file(path, Settings())
    assert finding.level == "ok"
    contexts = {"offhook", "offhook-next", "offhook-menu", "offhook-queue", "offhook-message"}
    assert contexts | {"offhook-outbound", "offhook-websocket"} <= set(read(path).contexts)


def test_the_shipped_dialplan_runs_nothing_after_a_hangup() -> None:
    for context, extensions in read(shipped_dialplan()).contexts.items():
        assert "h" not in extensions, context


def test_every_jump_of_the_shipped_dialplan_lands() -> None:
    plan = read(shipped_dialplan())
    for context, extensions in plan.contexts.items():
        for steps in extensions.values():
            labels = {step.label for step in steps if step.label}
            for step in steps:
                for label in re.findall(r"\?(\w+)\)$", step.text):
                    assert label in labels, f"{context}: {step.text}"


GOOD = """
#include offhook.conf
[from-trunk]
exten => _X.,1,Goto(offhook,${EXTEN},1)
"""


def test_a_file_that_includes_ours_is_fine(tmp_path: Path) -> None:
    (tmp_path / "offhook.conf").write_text(shipped_dialplan().read_text())
    assert lint(tmp_path, GOOD) == []


def test_a_missing_include_and_its_contexts_are_told(tmp_path: Path) -> None:
    assert lint(tmp_path, GOOD) == [
        "extensions.conf:2 includes offhook.conf, which is not there",
        "extensions.conf:4 goes to [offhook], which does not exist",
    ]


def test_a_file_without_us_is_told_so(tmp_path: Path) -> None:
    assert lint(tmp_path, "[a]\nexten => 1,1,Dial(PJSIP/1)\n") == [
        "extensions.conf sends no call to Offhook"
    ]


OWN = """
[own]
exten => 700,1,Answer()
 same => n,AGI(agi://127.0.0.1:4573/inbound)
 same => n,TryExec(AudioSocket(${OFFHOOK_UUID},127.0.0.1:9092))
 same => n,GotoIf($["${OFFHOOK_NEXT}" = "hangup"]?bye)
 same => n(bye),Hangup()
"""


def test_somebody_s_own_careful_dialplan_is_fine(tmp_path: Path) -> None:
    assert lint(tmp_path, OWN) == []


@pytest.mark.parametrize(
    ("old", "new", "title"),
    [
        (
            "TryExec(AudioSocket(${OFFHOOK_UUID},127.0.0.1:9092))",
            "AudioSocket(${OFFHOOK_UUID},127.0.0.1:9092)",
            "extensions.conf:5 runs AudioSocket without TryExec",
        ),
        ("Answer()", "Progress()", "extensions.conf:5 connects a line that is not answered"),
        (
            "${OFFHOOK_UUID}",
            "40325ec2-5efd-4bd3-805f-53576e581d13",
            "extensions.conf:5 has a UUID written into it",
        ),
        (":9092", ":9093", "extensions.conf:5 uses port 9093, the engine listens on 9092"),
        (":4573", ":4574", "extensions.conf:4 uses port 4574, the engine listens on 4573"),
        (
            "OFFHOOK_NEXT",
            "NEXT",
            "extensions.conf:5: nothing follows OFFHOOK_NEXT after the conversation",
        ),
        (
            "TryExec(AudioSocket(${OFFHOOK_UUID},127.0.0.1:9092))",
            "Dial(WebSocket/offhook/c(slin)f(json),5)",
            "extensions.conf:5 dials the engine without option g",
        ),
        (
            "TryExec(AudioSocket(${OFFHOOK_UUID},127.0.0.1:9092))",
            "Dial(AudioSocket/127.0.0.1:9092/${OFFHOOK_UUID},,g)",
            "extensions.conf:5 leaves the codec to chance",
        ),
        (
            "Hangup()",
            "Goto(offhook-menu,s,1)",
            "extensions.conf:7 goes to [offhook-menu], which does not exist",
        ),
    ],
)
def test_each_mistake_in_somebody_s_own_dialplan_is_told(
    tmp_path: Path, old: str, new: str, title: str
) -> None:
    assert lint(tmp_path, OWN.replace(old, new)) == [title]


def test_an_unreadable_file_is_a_finding(tmp_path: Path) -> None:
    [finding] = check_file(tmp_path / "nowhere.conf")
    assert finding.level == "error"
