"""The command as an operator runs it: a process of its own, its output and its exit status."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import engine
from engine.cli import checks, main
from engine.config import Settings, load_agents, load_settings
from engine.events import utc_now
from engine.storage.db import open_database
from engine.storage.records import CallStore
from engine.storage.rows import CallRow, ToolRow, TranscriptRow, TurnRow
from engine.telephony.dialplan_check import shipped_dialplan
from tests.peers.ami_server import Action, AmiServer, Link

ROOT = Path(engine.__file__).parent.parent


@dataclass
class Ran:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """Runs `offhook` in a folder that has settings and one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "agents").mkdir()
        (folder / "agents" / "reception.toml").write_text(
            'name = "R"\nlanguages = ["en"]\ngreeting = "Hello."\nprompt = "Be brief."\n'
        )
        self.settings("")

    def settings(self, text: str) -> None:
        (self.folder / "offhook.toml").write_text(f'data = "var"\n{text}')

    async def run(self, *arguments: str, **environment: str) -> Ran:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("OFFHOOK_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "engine",
            *arguments,
            cwd=self.folder,
            env=clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"} | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path)


Here = Callable[..., Ran]


@pytest.fixture
def here(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Here]:
    """The same command inside this process: much faster, and a bench can be replaced."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["offhook", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, out, err)

    monkeypatch.chdir(operator.folder)
    monkeypatch.setenv("COLUMNS", "200")
    for name in [name for name in os.environ if name.startswith("OFFHOOK_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def asterisk() -> AsyncIterator[AmiServer]:
    async with AmiServer() as server:
        yield server


# --- the command itself --------------------------------------------------------------------------


async def test_help_is_there_and_loads_nothing_heavy(operator: Operator) -> None:
    told = await operator.run("--help")
    assert told.status == 0
    for command in (
        "serve",
        "doctor",
        "models",
        "dialplan",
        "call",
        "calls",
        "db",
        "bench",
        "demo",
    ):
        assert f" {command} " in told.out
    heavy = ("sqlalchemy", "alembic", "pydantic", "numpy", "aiohttp", "onnxruntime", "panoramisk")
    code = f"import sys, engine.cli; print([m for m in {heavy} if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.strip() == b"[]"


async def test_the_version_is_the_one_of_the_package(operator: Operator) -> None:
    told = await operator.run("--version")
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert told.out == f"offhook {packaged}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("call", "12345"),
        ("call", "1;rm -rf", "--agent", "reception"),
        ("call", "1", "--agent", "reception", "--channel", "PJSIP/trunk"),
        ("bench", "turn", "--calls", "0"),
        ("bench", "turn", "--through", "smoke"),
        ("models", "list", "--profile", "huge"),
        ("models", "fetch", "x", "--profile", "cpu"),
        ("calls", "list", "--limit", "many"),
        ("dialplan", "install"),
    ],
)
def test_bad_arguments_are_status_2_and_one_clear_error(
    here: Here, arguments: tuple[str, ...]
) -> None:
    told = here(*arguments)
    assert told.status == 2 and "Error" in told.err and told.out == ""


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        (("db", "check"), "", "there is no database"),
        (("calls", "list"), "", "there is no database"),
        (("calls", "list"), "surprise = 1\n", "surprise"),
        (("-c", "none.toml", "calls", "list"), "", "none.toml does not exist"),
        (("db", "upgrade"), 'database = "mysql://x"\n', "not supported"),
        (("models", "verify", "no-such-model"), "", "no-such-model"),
        (("call", "1", "--agent", "nobody"), "", "no agent is called 'nobody'"),
    ],
)
def test_what_went_wrong_is_said_with_a_way_out(
    operator: Operator, here: Here, arguments: tuple[str, ...], settings: str, sentence: str
) -> None:
    operator.settings(settings)
    told = here(*arguments)
    assert told.status == 1 and told.out == ""
    assert told.err.startswith("error ") and sentence in told.err


# --- the database --------------------------------------------------------------------------------


async def fill(operator: Operator) -> None:
    database = await open_database(f"sqlite+aiosqlite:///{operator.folder / 'var/offhook.sqlite3'}")
    store = CallStore(database, operator.folder / "var/spool")
    await store.start()
    await store.call_started(
        CallRow("call-1", "inbound", "+15550100", "100", utc_now(), "reception")
    )
    store.call_answered("call-1", utc_now(), language="en")
    store.transcript("call-1", TranscriptRow("caller", "Are you [open]?", 500, 900, 0.9, "en"))
    cut = TranscriptRow("agent", "Yes, until six.", 1500, 2000, None, "en", "cut", 500)
    store.transcript("call-1", cut)
    store.tool("call-1", ToolRow(2100, "end_call", {}, "done", True, 3))
    store.turn("call-1", TurnRow(1, 900, gap_ms=600))
    store.event("call-1", 2500, "call.finished")
    store.call_finished("call-1", "completed", "", utc_now(), "hangup")
    await store.close()
    await database.dispose()


async def test_calls_are_listed_and_told_as_a_story(operator: Operator) -> None:
    await fill(operator)
    listed = await operator.run("calls", "list")
    assert listed.status == 0 and "call-1" in listed.out and "completed" in listed.out
    rows = (await operator.run("calls", "list", "--json")).json
    assert [(row["id"], row["from_number"]) for row in rows] == [("call-1", "+15550100")]

    story = (await operator.run("calls", "show", "call-1")).out.splitlines()
    told = [line.split(maxsplit=2)[1:] for line in story[4:]]
    assert [kind for kind, _ in told] == ["caller", "turn", "agent", "tool", "event"]
    assert told[0][1] == "Are you [open]?" and told[2][1] == "Yes, until six.  [cut]"
    record = (await operator.run("calls", "show", "call-1", "--json")).json
    assert record["call"]["outcome"] == "completed" and len(record["transcripts"]) == 2

    missing = await operator.run("calls", "show", "call-2")
    assert missing.status == 1 and "there is no call call-2" in missing.err


async def test_the_database_is_upgraded_and_checked(operator: Operator) -> None:
    assert (await operator.run("db", "upgrade")).out == "the database has schema 0001\n"
    checked = await operator.run("db", "check", "--json")
    assert checked.status == 0
    assert checked.json == {"current": "0001", "head": "0001", "up_to_date": True, "problems": []}


# --- the dialplan --------------------------------------------------------------------------------


async def test_the_dialplan_is_shown_installed_and_checked(operator: Operator) -> None:
    shipped = shipped_dialplan().read_text()
    assert (await operator.run("dialplan", "show")).out == shipped
    target = operator.folder / "asterisk"
    assert (await operator.run("dialplan", "install", "--to", str(target))).status == 1
    target.mkdir()
    (target / "manager.conf").write_text("the admin's own")
    installed = await operator.run("dialplan", "install", "--to", str(target))
    assert installed.status == 0 and "#include offhook.conf" in installed.err
    assert (target / "offhook.conf").read_text() == shipped
    assert (target / "manager.conf").read_text() == "the admin's own"
    assert (target / "offhook-examples" / "manager.conf").is_file()

    (target / "offhook.conf").write_text("changed")
    again = await operator.run("dialplan", "install", "--to", str(target))
    assert again.status == 1 and (target / "offhook.conf").read_text() == "changed"
    forced = await operator.run("dialplan", "install", "--to", str(target), "--force")
    assert forced.status == 0 and (target / "offhook.conf").read_text() == shipped
    assert (target / "offhook.conf.old").read_text() == "changed"

    checked = await operator.run("dialplan", "check", str(target / "offhook.conf"), "--json")
    assert checked.status == 0 and checked.json["ok"] is True
    broken = target / "broken.conf"
    broken.write_text("[a]\nexten => 1,1,Hangup()\n")
    checked = await operator.run("dialplan", "check", str(broken))
    assert checked.status == 1 and "error broken.conf sends no call to Offhook" in checked.out


# --- Asterisk ------------------------------------------------------------------------------------


def point_at(operator: Operator, asterisk: AmiServer, secret: str = "s3cret") -> None:
    operator.settings(
        f'[ami]\nport = {asterisk.port}\nusername = "engine"\nsecret = "{secret}"\n'
        "[agi]\nport = 1\n[audiosocket]\nport = 1\n"
    )


@pytest.mark.parametrize(
    ("response", "cause", "result"), [("Success", "0", "answered"), ("Failure", "17", "busy")]
)
async def test_a_call_is_placed_through_asterisk(
    operator: Operator, asterisk: AmiServer, response: str, cause: str, result: str
) -> None:
    async def place(link: Link, action: Action) -> None:
        action_id = action["ActionID"][0]
        link.success(action, Message="Originate successfully queued")
        link.event("OriginateResponse", ActionID=action_id, Response=response, Reason="4")
        link.event("Hangup", Uniqueid=action_id, Cause=cause)

    asterisk.on("Originate", place)
    point_at(operator, asterisk)
    told = await operator.run("call", "+15550100", "--agent", "reception", "--json")
    assert told.json["result"] == result
    assert told.status == (0 if result == "answered" else 1)
    sent = await asterisk.received("Originate")
    assert sent["Channel"] == ["PJSIP/+15550100@trunk"]
    assert sent["Context"] == ["offhook-outbound"] and sent["Exten"] == ["+15550100"]
    assert sent["Variable"] == ["OFFHOOK_JOB=agent=reception"]


async def test_doctor_asks_asterisk_and_names_every_trouble(
    operator: Operator, asterisk: AmiServer
) -> None:
    async def console(link: Link, action: Action) -> None:
        link.success(action, Output="Asterisk 22.4.0 built by someone")

    asterisk.on("Command", console)
    point_at(operator, asterisk)
    told = await operator.run("doctor", "--json", OFFHOOK_MODELS__FOLDER="nowhere")
    assert told.status == 1 and told.json["ok"] is False
    found = {item["title"]: item for item in told.json["findings"]}
    assert any(title.startswith("AMI at 127.0.0.1") for title in found)
    assert found["Asterisk 22.4.0"]["level"] == "ok"
    missing = next(item for title, item in found.items() if title.startswith("model whisper"))
    assert missing["level"] == "error" and "offhook models fetch" in missing["how_to_fix"]
    assert all(item["how_to_fix"] for item in found.values() if item["level"] == "error")


async def test_doctor_says_what_is_wrong_with_the_settings(operator: Operator) -> None:
    operator.settings("[limits]\ncalls = 'many'\n")
    told = await operator.run("doctor")
    assert told.status == 1 and "limits.calls" in told.out
    told = await operator.run("doctor", OFFHOOK_AMI_SECRET="x")
    assert told.status == 1 and "did you mean OFFHOOK_AMI__SECRET?" in told.out


async def test_doctor_checks_agents_routes_disk_and_database(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(operator)
    operator.settings('[[routes]]\nnumber = "100"\nagent = "ghost"\n[models]\nfolder = "nowhere"\n')
    (operator.folder / "var/spool").mkdir()
    (operator.folder / "var/spool/rejected.jsonl").write_text("{}\n")
    monkeypatch.chdir(operator.folder)
    settings = load_settings(operator.folder / "offhook.toml")
    found = {item.title: item.level for item in await checks.everything(settings)}
    assert found["the settings are valid"] == "ok"
    assert found["agents: reception"] == "ok"
    assert found["route 100 names agent 'ghost', which does not exist"] == "error"
    assert found["the database has schema 0001"] == "ok"
    assert found["no AMI secret is set: transfers and outgoing calls cannot work"] == "error"
    assert any(title.startswith("the database refused some records") for title in found)
    assert any("free for var" in title for title in found)
    assert any(title.startswith("clock ") for title in found)


async def test_doctor_says_what_to_do_about_everything_that_is_not_well(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operator.folder)
    monkeypatch.setattr("engine.cli.clock.is_synchronised", lambda: False)
    troubles = {
        "[[routes]]\nnumber = '1'\nagent = 'ghost'\n": "agent 'ghost', which does not exist",
        "agents = 'nowhere'\n": "no agents in nowhere",
        "database = '://'\n": "`database` is not an SQLAlchemy URL",
        "database = 'mysql://x/y'\n": "which is not supported",
        "[ami]\nport = 1\nsecret = 'x'\n": "",
        "[models]\nllm_model = 'none'\n": "no model is called 'none'",
    }
    monkeypatch.setattr(checks, "AMI_WAIT_S", 0.3)
    for text, sentence in troubles.items():
        operator.settings(text)
        found = await checks.everything(load_settings())
        assert any(sentence in item.title and item.level == "error" for item in found), text
        assert [item for item in found if item.level != "ok" and not item.how_to_fix] == []
        assert "the clock is not synchronised: call records get wrong times" in [
            item.title for item in found if item.level == "warn"
        ]


def test_the_models_needed_are_those_of_the_agents(operator: Operator) -> None:
    (operator.folder / "agents" / "ru.toml").write_text(
        'name = "R"\nlanguages = ["ru", "uk"]\ngreeting = "-"\nprompt = "-"\n'
        '[voices.ru]\nengine = "piper"\nvoice = "ru_RU-irina-medium"\n'
    )
    settings = load_settings(operator.folder / "offhook.toml")
    wanted = checks.needed_models(settings, load_agents(operator.folder / "agents"))
    assert wanted == [
        settings.models.stt_model,
        settings.models.llm_model,
        settings.models.turn_model,
        settings.models.tts_model,
        "ru_RU-irina-medium",
    ]


def test_models_are_listed_by_profile(here: Here) -> None:
    rows = here("models", "list", "--profile", "embedded", "--json").json
    assert rows and all("embedded" in row["profiles"] for row in rows)
    assert {row["state"] for row in rows} == {"missing"}, "this folder has no weights"


# --- what is measured and shown elsewhere --------------------------------------------------------


def test_a_bench_gets_what_was_asked_and_prints_what_it_found(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(settings: Settings, **asked: object) -> dict[str, object]:
        assert settings.data == Path("var")
        return {"gap_ms": {"p50": 700.5, "p99": None}, "asked": str(asked)}

    module = ModuleType("engine.bench.turn")
    monkeypatch.setattr(module, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "engine.bench.turn", module)
    asked = ("bench", "turn", "--calls", "3", "--seconds", "5", "--through", "asterisk")
    found = here(*asked, "--json").json
    assert found["asked"] == "{'calls': 3, 'seconds': 5.0, 'through': 'asterisk'}"
    lines = [line.split() for line in here(*asked).out.splitlines()]
    assert ["gap_ms.p50", "700.5"] in lines and ["gap_ms.p99", "-"] in lines


def test_the_demo_gets_its_options_and_gives_the_status(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    async def run(settings: Settings, **options: object) -> int:
        assert settings.data == Path("var")
        asked.append(options)
        return 3

    module = ModuleType("engine.lab.demo")
    monkeypatch.setattr(module, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "engine.lab.demo", module)
    assert here("demo", "--keep", "--language", "ru", "--out", "x").status == 3
    assert asked == [{"keep": True, "language": "ru", "out": Path("x")}]
