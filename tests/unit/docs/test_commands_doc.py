"""What a page tells people to type: our own commands exist with those options, and run where they can."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli import app
from tests.unit.docs.reference import DOCS, ROOT, blocks_of

PAGES = [ROOT / "README.md", ROOT / "dialplan" / "README.md", *sorted(DOCS.glob("*.md"))]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("OFFHOOK_")} | {
    "PYTHONPATH": str(ROOT)
}
SYSTEM = frozenset(
    [
        "apt",
        "asterisk",
        "cat",
        "cd",
        "chmod",
        "cp",
        "curl",
        "install",
        "journalctl",
        "ln",
        "python3",
        "set",
        "sqlite3",
        "systemctl",
        "useradd",
        ".",
    ]
)
"""Commands of the machine's own; a page may not tell of one that is in no list."""
_OURS = re.compile(r"(?:(?:\S*/)?bin/)?offhook")
_IN_THE_REPOSITORY = re.compile(
    r"(scripts|systemd|agents|dialplan|asterisk|models|docs|tests|requirements)\b"
)


def commands(page: Path) -> Iterator[list[str]]:
    """Each simple command of the page's shell blocks and of its inline code, as words."""
    lines = [line for text in blocks_of(page, "sh") for line in text.splitlines()]
    for text in blocks_of(page, "console"):
        lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    inline = re.findall(r"`([^`\n]+)`", page.read_text())
    lines += [
        code for code in inline if re.match(r"(\./scripts/|scripts/|offhook |systemctl )", code)
    ]
    for line in lines:
        # An ellipsis stands for "and so on", and in a file's first line for its content.
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def everything() -> list[tuple[str, list[str]]]:
    found = [(page.name, words) for page in PAGES for words in commands(page)]
    return [(page, words[3:] if words[:2] == ["runuser", "-u"] else words) for page, words in found]


ALL = [(page, words[1:] if words[0] == "--" else words) for page, words in everything()]
OURS = [(page, words[1:]) for page, words in ALL if _OURS.fullmatch(words[0])]


def told(item: object) -> str:
    return " ".join(item) if isinstance(item, list) else str(item)


def parse_only() -> Any:
    """The whole command, every option and argument of it, with nothing behind."""
    waiting = [root := typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        command.callback = lambda **_: None
        waiting += getattr(command, "commands", {}).values()
    return root


def status(words: list[str]) -> int:
    """0: the command exists and takes these arguments; 2: it does not, and stderr says why."""
    with pytest.raises(SystemExit) as ended:
        parse_only().main(args=list(words), prog_name="offhook")
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_pages_do_tell_commands() -> None:
    assert {"serve", "doctor"} <= {words[0] for page, words in OURS if page == "README.md"}
    assert ["systemctl", "reload", "offhook"] in [words for _, words in ALL]
    assert len(OURS) > 15


@pytest.mark.parametrize(("page", "words"), OURS, ids=told)
def test_our_commands_take_these_arguments(
    page: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(words) == 0, f"{page}: offhook {told(words)}: {capsys.readouterr().err}"


@pytest.mark.parametrize(
    "words",
    [
        ["doktor"],
        ["serve", "--port", "1"],
        ["call", "12345"],
        ["models", "list", "x"],
        ["db", "fix"],
    ],
    ids=told,
)
def test_a_command_or_option_that_is_not_there_is_noticed(words: list[str]) -> None:
    assert status(words) == 2


@pytest.mark.parametrize("command", sorted({words[0] for _, words in OURS if words[0].isalpha()}))
def test_their_help_says_what_they_do(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status([command, "--help"]) == 0
    assert f"Usage: offhook {command} " in capsys.readouterr().out


@pytest.mark.parametrize(("page", "words"), ALL, ids=told)
def test_scripts_files_and_programs_exist(page: str, words: list[str]) -> None:
    program, *arguments = words
    if "scripts/" in program:
        script = ROOT / program
        assert script.is_file() and script.stat().st_mode & 0o111, f"{page}: {program}"
        if script.name == "demo":
            assert status(["demo", *arguments]) == 0
    else:
        known = program in SYSTEM or _OURS.fullmatch(program) or program == "venv/bin/pip"
        assert known, f"{page}: what is {program}?"
    for word in arguments:
        if _IN_THE_REPOSITORY.match(word):
            assert (ROOT / word).exists(), f"{page}: there is no {word}"


def test_the_unit_named_in_commands_is_the_one_shipped() -> None:
    named = {words[2] for _, words in ALL if words[0] == "systemctl" and len(words) == 3}
    assert named <= {"offhook", "--now"}
    assert (ROOT / "systemd" / "offhook.service").is_file()


# --- those that run here --------------------------------------------------------------------------


def runnable() -> list[list[str]]:
    """Complete commands that need no Asterisk, no weights and no network."""
    wanted = (["--version"], ["models", "list"], ["dialplan", "install"], ["db"], ["calls", "list"])
    said = [words for _, words in OURS if any(words[: len(head)] == head for head in wanted)]
    always = (
        ["--version"],
        ["models", "list"],
        ["dialplan", "show"],
        ["db", "upgrade"],
        ["calls", "list"],
    )
    return [list(words) for words in dict.fromkeys(map(tuple, [*always, *said]))]


def test_what_can_run_here_runs(tmp_path: Path) -> None:
    etc = tmp_path / "asterisk"
    etc.mkdir()
    for words in runnable():
        here = [word.replace("/etc/asterisk", str(etc)) for word in words]
        ran = subprocess.run(
            [sys.executable, "-m", "engine", *here],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, f"offhook {told(words)}: {ran.stderr}"
        if words == ["--version"]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert ran.stdout == f"offhook {project['version']}\n"
    assert (etc / "offhook.conf").is_file(), "the pages tell how to install the dialplan"
    checked = subprocess.run(
        [sys.executable, "-m", "engine", "dialplan", "check", etc / "offhook.conf"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
