"""Reads extensions files and says what in them would lose calls. No Asterisk needed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from engine.config import Settings


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `how_to_fix` is empty when it is fine."""

    level: Literal["ok", "warn", "error"]
    title: str
    how_to_fix: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One priority: `same => n(next),Goto(a,s,1)  ; why` is label "next", text "Goto(a,s,1)"."""

    file: Path
    line: int
    label: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.file.name}:{self.line}"


@dataclass
class Dialplan:
    """Contexts to extensions to steps, in the order of the file."""

    contexts: dict[str, dict[str, list[Step]]] = field(default_factory=dict)
    includes: list[Step] = field(default_factory=list)
    """`include => other` lines; the text is the other context's name."""
    missing_files: list[Step] = field(default_factory=list)

    def steps(self) -> Iterator[Step]:
        for extensions in self.contexts.values():
            for steps in extensions.values():
                yield from steps


_SECTION = re.compile(r"\[([^\]]+)\]")
_INCLUDE_FILE = re.compile(r"#(include|tryinclude)\s+[\"<]?([^\"<>;]+)[\">]?")
_SETTING = re.compile(r"(exten|same|include)\s*=>?\s*(.*)")
_PRIORITY = re.compile(r"(?:\d+|n|hint|s)(?:\+\d+)?(?:\(([^)]*)\))?")
_COMMENT = re.compile(r"(?<!\\);.*")


def read(path: Path) -> Dialplan:
    """Parse an extensions file and what it `#include`s from its own folder. Raises OSError."""
    plan = Dialplan()
    _read_into(plan, path, seen=set())
    return plan


def _read_into(plan: Dialplan, path: Path, seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    context = extension = ""
    for number, raw in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if included := _INCLUDE_FILE.match(raw.strip()):
            other = path.parent / included[2].strip()
            if other.is_file():
                _read_into(plan, other, seen)
            elif included[1] == "include" and not any(c in included[2] for c in "*?"):
                plan.missing_files.append(Step(path, number, "", included[2].strip()))
            continue
        line = _COMMENT.sub("", raw).strip()
        if section := _SECTION.match(line):
            context, extension = section[1].strip(), ""
            plan.contexts.setdefault(context, {})
        elif (setting := _SETTING.match(line)) and context:
            extension = _take(plan, context, extension, Step(path, number, setting[1], setting[2]))


def _take(plan: Dialplan, context: str, extension: str, line: Step) -> str:
    """File one `exten`, `same` or `include`; return the extension that a following `same` belongs to."""
    if line.label == "include":
        plan.includes.append(Step(line.file, line.line, "", line.text.split(",")[0].strip()))
        return extension
    rest = line.text
    if line.label == "exten":
        extension, _, rest = rest.partition(",")
        extension = extension.strip().split("/")[0]
    priority, _, text = rest.partition(",")
    if (numbered := _PRIORITY.fullmatch(priority.strip())) and extension:
        step = Step(line.file, line.line, numbered[1] or "", text.strip())
        plan.contexts[context].setdefault(extension, []).append(step)
    return extension


# --- rules ---------------------------------------------------------------------------------------

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_SOCKET = re.compile(r"\bAudioSocket\(([^,)]*),([^,)]*)\)", re.IGNORECASE)
_DIAL = re.compile(r"\bDial\((AudioSocket|WebSocket)/(.*)\)\s*$", re.IGNORECASE)
_AGI = re.compile(r"\bAGI\(agi://([^/,)]+)", re.IGNORECASE)
_JUMP = re.compile(r"\b(?:Goto|Gosub)\((offhook[\w-]*),|[?:](offhook[\w-]*),", re.IGNORECASE)
_APPLICATION = re.compile(r"\s*(\w+)\(")


def check_file(path: Path, settings: Settings | None = None) -> list[Finding]:
    """Lint one extensions file. Ports are compared where `settings` are given."""
    try:
        plan = read(path)
    except OSError as error:
        return [Finding("error", f"{path} cannot be read", str(error))]
    findings = [*_references(plan), *_ports(plan, settings)]
    for context, extensions in plan.contexts.items():
        for extension, steps in extensions.items():
            findings += _conversation(f"{extension}@{context}", steps)
    if not any(
        _SOCKET.search(s.text) or _DIAL.search(s.text) or _JUMP.search(s.text) for s in plan.steps()
    ):
        how = "add `exten => 700,1,Goto(offhook,${EXTEN},1)` and `#include offhook.conf`"
        findings.append(Finding("error", f"{path.name} sends no call to Offhook", how))
    return findings or [Finding("ok", f"{path.name}: nothing in it would lose a call")]


def _references(plan: Dialplan) -> Iterator[Finding]:
    for step in plan.missing_files:
        how = f"copy {step.text} beside {step.file.name}, or correct the #include"
        yield Finding("error", f"{step.where} includes {step.text}, which is not there", how)
    wanted: dict[str, list[Step]] = defaultdict(list)
    for step in plan.includes:
        if step.text.startswith("offhook"):
            wanted[step.text].append(step)
    for step in plan.steps():
        for jump in _JUMP.finditer(step.text):
            wanted[jump[1] or jump[2]].append(step)
    for context, steps in wanted.items():
        if context not in plan.contexts:
            how = "`#include offhook.conf`, which defines it, or correct the name"
            yield Finding(
                "error", f"{steps[0].where} goes to [{context}], which does not exist", how
            )


def _ports(plan: Dialplan, settings: Settings | None) -> Iterator[Finding]:
    if settings is None:
        return
    _, _, advertised = settings.audiosocket.advertise.rpartition(":")
    expected = {
        _SOCKET: (
            "audiosocket",
            int(advertised) if advertised.isdecimal() else settings.audiosocket.port,
        ),
        _AGI: ("agi", settings.agi.port),
    }
    for step in plan.steps():
        for pattern, (section, port) in expected.items():
            if not (found := pattern.search(step.text)):
                continue
            address = found[found.re.groups].strip()
            literal = re.fullmatch(r"[^$]*:(\d+)", address)
            if literal and int(literal[1]) != port:
                title = f"{step.where} uses port {literal[1]}, the engine listens on {port}"
                yield Finding(
                    "error",
                    title,
                    f"write {port}, or change port under [{section}] in offhook.toml",
                )


def _conversation(name: str, steps: list[Step]) -> Iterator[Finding]:
    answered = False
    for index, step in enumerate(steps):
        application = _APPLICATION.match(step.text)
        answered = answered or bool(application and application[1].lower() == "answer")
        socket, dial = _SOCKET.search(step.text), _DIAL.search(step.text)
        if not (socket or dial):
            continue
        if socket:
            yield from _socket(step, socket)
        if dial:
            yield from _dialled(step, dial)
        if not answered:
            title = f"{step.where} connects a line that is not answered"
            yield Finding(
                "error",
                title,
                f"put Answer() before it in {name}; Asterisk closes the socket otherwise",
            )
        if not any(
            "offhook-next" in s.text or "OFFHOOK_NEXT" in s.text for s in steps[index + 1 :]
        ):
            title = f"{step.where}: nothing follows OFFHOOK_NEXT after the conversation"
            how = "end with Goto(offhook-next,s,1), or transfers and fallbacks do nothing"
            yield Finding("error", title, how)


def _socket(step: Step, socket: re.Match[str]) -> Iterator[Finding]:
    if not re.search(r"\bTryExec\(\s*AudioSocket", step.text, re.IGNORECASE):
        title = f"{step.where} runs AudioSocket without TryExec"
        yield Finding(
            "error", title, f"write TryExec({socket[0]}), or any trouble hangs up on the caller"
        )
    if re.fullmatch(_UUID, socket[1].strip()):
        title = f"{step.where} has a UUID written into it"
        how = "use ${OFFHOOK_UUID}, which the AGI step sets for each call; the engine refuses any other"
        yield Finding("error", title, how)


def _dialled(step: Step, dial: re.Match[str]) -> Iterator[Finding]:
    destination, _, rest = dial[2].partition(",")
    if "g" not in rest.partition(",")[2]:
        title = f"{step.where} dials the engine without option g"
        yield Finding(
            "error",
            title,
            f"write Dial({dial[1]}/…,5,g), or the caller is hung up when the agent is done",
        )
    if "/c(" not in destination and ")c(" not in destination:
        title = f"{step.where} leaves the codec to chance"
        yield Finding(
            "error", title, f"write Dial({dial[1]}/…/c(slin)…), or the engine hears noise"
        )
