"""`offhook demo`: a real call on this machine, from a SIP telephone through Asterisk to the models and back."""

from __future__ import annotations

import asyncio
import difflib
import json
import logging
import re
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from engine.bench.speech import trimmed
from engine.calls.session import CallSession
from engine.config import Agent, Settings, load_agents
from engine.events import Event
from engine.lab.arrival import arrived
from engine.lab.picture import Said, draw
from engine.lab.softphone import PhoneCall, Softphone
from engine.lab.switchboard import Switchboard, switchboard
from engine.lab.voice import festival, prompt
from engine.media.frame import Pcm, Samples
from engine.media.resample import resample

log = logging.getLogger(__name__)

OPERATOR_PROMPT = "queue-thankyou"
RATE = 8000


@dataclass(frozen=True, slots=True)
class Script:
    """What the caller says. `over` is said over the agent's answer to the line before it."""

    agent: str
    notice: str
    lines: tuple[str, ...]
    over: str
    person: str


SCRIPTS = {
    "en": Script(
        agent="reception",
        notice="This call is recorded.",
        lines=(
            "Hello. What are your opening hours on Saturday?",
            "And how much does it cost to fit four tyres?",
            "Please tell me everything about your shop, the opening hours, the address and the prices.",
        ),
        over="Sorry, stop. What is your address?",
        person="I would like to speak to a real person, please.",
    ),
    "ru": Script(
        agent="reception-ru",
        notice="Разговор записывается.",
        lines=(
            "Здравствуйте. Как вы работаете в субботу?",
            "Сколько это стоит и сколько занимает времени?",
            "Расскажите подробно про ваш магазин, про часы работы, адрес и цены.",
        ),
        over="Подождите. Скажите мне ваш адрес, пожалуйста.",
        person="Я хочу поговорить с человеком.",
    ),
}


@dataclass(slots=True)
class Notes:
    """What the engine told while the call went on."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    interruptions_ms: list[int] = field(default_factory=list)
    finished: dict[str, Any] = field(default_factory=dict)
    finished_ms: int = 0


async def run(settings: Settings, *, keep: bool, language: str, out: Path) -> int:
    """Make the call; 0 when the telephone truly heard the agent and the transfer was bridged."""
    console = Console()
    script = SCRIPTS[language]
    folder = await asyncio.to_thread(out.resolve)
    agents = load_agents(settings.agents)
    agent = agents[script.agent].model_copy(update={"record": True, "record_notice": script.notice})
    with console.status("starting Asterisk, loading the models …"):
        board = switchboard(
            settings,
            {agent.id: agent},
            folder / "run",
            answers={"*": agent.id},
            sip_port=5070 if keep else 0,
        )
        there = await board.__aenter__()
    try:
        with console.status("preparing the caller's voice …"):
            voice = await _caller_voice(there, agent, language)
        ok = await _call(console, there, script, voice, folder)
        if keep:
            await _stay(console, there)
        return 0 if ok else 1
    finally:
        await board.__aexit__(None, None, None)


async def _call(
    console: Console, board: Switchboard, script: Script, voice: dict[str, Samples], folder: Path
) -> bool:
    notes = Notes()
    board.engine.bus.listen(lambda event: _tell(console, notes, event))
    async with (
        Softphone("operator", sip_port=board.pbx.operator_port, auto_answer=True) as desk,
        Softphone("caller") as phone,
    ):
        console.rule("a call to 700")
        call = await phone.call(board.pbx.uri("700"))
        session = board.engine.desk.sessions()[0] if board.engine.desk.sessions() else None
        while session is None:
            await asyncio.sleep(0.02)
            session = next(iter(board.engine.desk.sessions()), None)
        answered_at = call.answered_at
        await _talk(call, script, voice)
        transferred_s, operator_heard = await _transferred(call, desk, voice[script.person])
        heard = call.heard()
        await call.hang_up()
    await asyncio.sleep(0.3)
    place = folder / session.call_id
    await asyncio.to_thread(_save, place, board, session, notes, heard)
    after = 0 if transferred_s is None else round((transferred_s - answered_at) * RATE)
    checks = await _check(board, notes, place, heard, after, operator_heard)
    await asyncio.to_thread(_draw, place, board, session, notes)
    console.rule("what was proved")
    for passed, words in checks:
        console.print(f"[{'green' if passed else 'red'}]{'✔' if passed else '✘'}[/] {words}")
    console.print(f"\nrecordings, transcript, timings and picture: {place}")
    return all(passed for passed, _ in checks)


async def _talk(call: PhoneCall, script: Script, voice: dict[str, Samples]) -> None:
    """The caller's part: waits for its turn like a person, but for the interruption."""
    await call.wait_for_sound(15.0)
    for line in script.lines:
        await call.wait_for_silence(900, 40.0)
        await call.play(voice[line])
        await call.wait_for_sound(20.0)
    await asyncio.sleep(1.2)
    await call.play(voice[script.over])
    await call.wait_for_silence(300, 10.0)
    await call.wait_for_sound(20.0)
    await call.wait_for_silence(900, 40.0)
    await call.play(voice[script.person])


async def _transferred(
    call: PhoneCall, desk: Softphone, words: Samples
) -> tuple[float | None, bool]:
    """When the operator answered, and whether the two heard each other."""
    try:
        async with asyncio.timeout(25.0):
            operator = await desk.incoming()
    except TimeoutError:
        return None, False
    at = operator.answered_at
    greeting = trimmed(prompt(OPERATOR_PROMPT).samples)
    await asyncio.sleep(0.5)
    await operator.play(greeting)
    await call.play(words)
    await asyncio.sleep(0.5)
    sound = operator.heard()
    loud = float(np.sqrt(np.mean(np.square(sound[-len(words) :], dtype=np.float64)))) > 200
    return at, loud


async def _check(
    board: Switchboard,
    notes: Notes,
    place: Path,
    heard: Samples,
    after: int,
    operator_heard: bool,
) -> list[tuple[bool, str]]:
    """Read the telephone's own recording back: only what a listener could hear counts."""
    agent = next(iter(board.engine.agents.values()))
    before = heard[: after or len(heard)]
    if agent.voice(agent.language).engine == "piper":
        text = await _listen(board, before, agent.language)
        wanted = " ".join(
            item.text for item in notes.said if item.who == "agent" and item.status == "heard"
        )
        share, least, what = _recall(wanted, text), 0.6, "words, read back"
    else:
        # Whisper base cannot read a synthetic Russian voice, so the sound itself is looked for.
        sent, rate = await asyncio.to_thread(_agents_side, place / "recording.wav")
        share = await asyncio.to_thread(arrived, sent, before, rate) if rate == RATE else 0.0
        least, what = 0.9, "voice, sound for sound"
    checks = [
        (len(notes.turns) >= 4, f"{len(notes.turns)} turns were answered"),
        (share >= least, f"the telephone heard the agent: {share:.0%} of its {what}"),
        (bool(notes.interruptions_ms), "the caller interrupted and the agent stopped"),
    ]
    bridged = bool(after) and operator_heard
    if bridged:
        from_operator = await _listen(board, heard[after:], "en")
        bridged = _recall("thank you for your patience", from_operator) >= 0.6
    checks.append((bridged, "the operator answered, and both heard each other"))
    return checks


def _agents_side(recording: Path) -> tuple[Samples, int]:
    with wave.open(str(recording), "rb") as file:
        both = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
        return both[:, 1], file.getframerate()


async def _listen(board: Switchboard, sound: Samples, language: str) -> str:
    """Transcribe in stretches cut where it is quiet."""
    texts = []
    for start, end in _stretches(sound):
        part = Pcm(sound[start:end], RATE)
        transcript = await board.engine.parts.stt.transcribe(part, language=language)
        texts.append(transcript.text)
    return " ".join(texts)


def _stretches(
    sound: Samples, quiet_s: float = 0.5, longest_s: float = 20.0
) -> list[tuple[int, int]]:
    frame = RATE // 50
    count = len(sound) // frame
    levels = np.sqrt(
        np.mean(np.square(sound[: count * frame].reshape(count, frame), dtype=np.float64), axis=1)
    )
    loud = np.flatnonzero(levels > 150)
    spans: list[list[int]] = []
    for index in loud:
        if spans and index - spans[-1][1] <= quiet_s * 50 and index - spans[-1][0] < longest_s * 50:
            spans[-1][1] = int(index)
        else:
            spans.append([int(index), int(index)])
    return [(max(0, a - 10) * frame, (b + 11) * frame) for a, b in spans if b - a >= 5]


def _recall(wanted: str, got: str) -> float:
    """The share of the wanted words that were understood, in order; spelling may differ a little."""
    words, found = _plain(wanted), _plain(got)
    if not words:
        return 0.0
    matched = 0
    start = 0
    for word in words:
        for index in range(start, min(start + 25, len(found))):
            if difflib.SequenceMatcher(None, word, found[index]).ratio() >= 0.7:
                matched += 1
                start = index + 1
                break
    return matched / len(words)


def _plain(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


async def _caller_voice(board: Switchboard, agent: Agent, language: str) -> dict[str, Samples]:
    """Each line as telephone sound: a Piper voice made younger, or festival's Russian."""
    script = SCRIPTS[language]
    spoken: dict[str, Samples] = {}
    for line in (*script.lines, script.over, script.person):
        if language == "ru":
            pcm = await asyncio.to_thread(festival, line)
        else:
            chunks = [
                c async for c in board.engine.parts.voices[agent.id].speak(line, language="en")
            ]
            # Played a tenth faster it is another person than the agent.
            raw = Pcm(np.concatenate([c.samples for c in chunks]), round(chunks[0].rate * 1.1))
            pcm = resample(raw, RATE)
        spoken[line] = trimmed(pcm.samples)
    return spoken


def _tell(console: Console, notes: Notes, event: Event) -> None:
    at, data = event.offset_ms / 1000, event.data
    match event.type:
        case "caller.said":
            notes.said.append(
                Said("caller", data["text"], data["start_ms"] / 1000, data["end_ms"] / 1000)
            )
            console.print(f"[dim]{at:6.1f}[/] [bold cyan]caller[/]  {data['text']}")
        case "agent.said":
            start = data["start_ms"] / 1000
            end = start + data["heard_ms"] / 1000
            notes.said.append(Said("agent", data["text"], start, end, data["status"]))
            mark = {"heard": "", "cut": " [red]✂ cut[/]", "unheard": " [dim](not heard)[/]"}[
                data["status"]
            ]
            console.print(f"[dim]{at:6.1f}[/] [bold yellow]agent [/]  {data['text']}{mark}")
        case "turn.finished":
            notes.turns.append(dict(data))
            stages = "  ".join(f"{k} {v} ms" for k, v in data["stages_ms"].items() if v is not None)
            console.print(f"[dim]{at:6.1f}           {stages}[/]")
        case "agent.interrupted":
            notes.interruptions_ms.append(data["at_ms"])
            console.print(
                f"[dim]{at:6.1f}[/] [red]the caller interrupts; silent {data['stop_ms']} ms after his first sound[/]"
            )
        case "tool.finished":
            console.print(f"[dim]{at:6.1f}[/] [magenta]tool    {data['name']}[/]")
        case "call.finished":
            notes.finished, notes.finished_ms = dict(data), event.offset_ms
            console.print(
                f"[dim]{at:6.1f}[/] the engine is done: {data['result']}, next {data['next_step']}"
            )
        case _:
            pass


def _save(
    place: Path, board: Switchboard, session: CallSession, notes: Notes, heard: Samples
) -> None:
    place.mkdir(parents=True, exist_ok=True)
    recording = board.settings.data / "recordings" / f"{session.call_id}.wav"
    (place / "recording.wav").write_bytes(recording.read_bytes())
    with wave.open(str(place / "heard.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(heard.astype("<i2").tobytes())
    _json(place / "transcript.json", {"call": session.call_id, "entries": session.ledger.to_json()})
    _json(
        place / "timings.json",
        {
            "call": session.call_id,
            "outcome": notes.finished,
            "turns": notes.turns,
            "interruptions_ms": notes.interruptions_ms,
        },
    )


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _draw(place: Path, board: Switchboard, session: CallSession, notes: Notes) -> None:
    with wave.open(str(place / "recording.wav"), "rb") as file:
        rate = file.getframerate()
        both = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").reshape(-1, 2)
    callers = [item for item in notes.said if item.who == "caller"]
    turns = [
        {"at_s": item.end_s, **turn["stages_ms"]}
        for item, turn in zip(callers, notes.turns, strict=False)
    ]
    finished = notes.finished_ms / 1000
    draw(
        place / "call.png",
        title=f"{session.ticket.agent.name}: a call of {len(both) / rate:.0f} s, {len(notes.turns)} turns",
        rate=rate,
        caller=both[:, 0],
        agent=both[:, 1],
        said=notes.said,
        turns=turns,
        interruptions_s=[at / 1000 for at in notes.interruptions_ms],
        transfer_s=finished if notes.finished.get("result") == "transferred" else None,
    )


async def _stay(console: Console, board: Switchboard) -> None:
    pbx = board.pbx
    console.rule("running; Ctrl-C ends it")
    console.print(f"SIP server  127.0.0.1:{pbx.sip_port} (UDP)")
    console.print(f"user        alice\npassword    {pbx.alice_password}\ndial        700")
    await asyncio.Event().wait()
