"""`offhook bench endpoint`: how well it is known that the caller has finished, in virtual time.

Recorded people, with the pauses they make; the real voice detector, turn model and endpointer:

    natural    one sentence with a pause of 200 ms or more in it, as it was spoken
    sentences  several sentences with such pauses between them
    thinking   one sentence, broken off where it is quiet for a moment, and continued 0.3, 0.5 or 0.8 s later

A turn that ends before the last sound is a false cut-off. At true ends the wait is counted from the last
sound. Every utterance is heard once, and then replayed to each policy with the judgements of the turn model
at the moments they came: nobody waits for anything.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from engine.bench.report import machine, models, spread
from engine.bench.speech import trimmed
from engine.calls.ears import Ears
from engine.config import Settings, TurnPolicy
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore
from engine.lab.timeline import LOUD, RATE, rms
from engine.lab.voice import prompt, transcripts
from engine.media.frame import FRAME_S, Frame, Samples, frame_bytes
from engine.turns.endpoint import Endpointer, PauseHeld, TurnOver
from engine.turns.semantic import SmartTurn
from engine.turns.vad import make_vad

UTTERANCES = 40
"""Of each kind and language at most."""
THINKING_MS = (300, 500, 800)
LONGEST_S = 10.0
_SAMPLES = frame_bytes(RATE) // 2
_Item = TypeVar("_Item")
_BEFORE_S = 0.5
_AFTER_S = 3.0
_REPLY_S = 3.0
_NOISE = 10 ** (-66 / 20) * 32768
_PAUSE = round(0.200 / FRAME_S)
_DIP = round(0.060 / FRAME_S)


@dataclass(frozen=True, slots=True)
class Said:
    """`pause_ms` is the pause that was put in; 0 where the speaker made it, or there is none."""

    language: str
    kind: str
    pause_ms: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class Listened:
    """What the ears and the turn model made of one utterance. Times in seconds."""

    said: Said
    frames: list[tuple[float, bool, float | None]]
    judged: dict[float, tuple[float, float]]
    """When a pause was long enough to judge -> the probability, and how long the model took."""
    last_sound: float


@dataclass(frozen=True, slots=True)
class Verdict:
    said: Said
    cut: bool
    wait_ms: float | None
    """From the last sound to the end of the turn, or of what was left of it after a cut; None where
    nothing was. So all policies are compared on the same ends, not each on those it did not cut."""


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """`calls`, `seconds` and `through` do not matter here. Raises VoiceMissing and WeightsError."""
    workers = Workers()
    try:
        model = SmartTurn(
            WeightStore(settings.models.folder).path(settings.models.turn_model), workers
        )
        await model.warm()
        listened = [
            await listen(said, model, settings)
            for language in ("en", "ru")
            for said in material(language)
        ]
    finally:
        await workers.close()
    return {
        "bench": "endpoint",
        "utterances": len(listened),
        "judgement_ms": spread(
            [took * 1000 for heard in listened for _, took in heard.judged.values()]
        ),
        "default": told(replay(listened, TurnPolicy()), in_full=True),
        "one_caller": told(as_one_caller(listened, TurnPolicy()), in_full=True),
        "sweep": [
            {**values, **told(replay(listened, TurnPolicy(**values)))} for values in policies()
        ],
        "machine": machine(),
        "models": models(settings.models),
    }


def policies() -> Iterator[dict[str, Any]]:
    """What is tried beside the defaults."""
    for low, high, complete in itertools.product(
        (250, 300, 350, 450, 600), (800, 1000, 1200, 1600), (0.5, 0.7, 0.9)
    ):
        yield {
            "min_silence_ms": low,
            "max_silence_ms": high,
            "complete_probability": complete,
            "adaptive": False,
        }


# --- What is said ---------------------------------------------------------------------------------


def material(language: str) -> list[Said]:
    """The same utterances every time, spread over the alphabet of the prompts' names."""
    natural: list[Said] = []
    sentences: list[Said] = []
    thinking: list[list[Said]] = []
    for name, text in sorted(transcripts(language).items()):
        if not whole(text):
            continue
        samples = trimmed(prompt(name, language).samples)
        if len(samples) > LONGEST_S * RATE:
            continue
        pauses = dips(samples, _PAUSE)
        several = re.search(r"[.!?…]\s+\S", text) is not None
        if several and pauses:
            sentences.append(Said(language, "sentences", 0, samples))
        elif pauses:
            natural.append(Said(language, "natural", 0, samples))
        elif not several and (place := breaking_point(samples)) is not None:
            thinking.append(
                [Said(language, "thinking", ms, broken(samples, place, ms)) for ms in THINKING_MS]
            )
    return [
        *_spread(natural),
        *_spread(sentences),
        *(said for versions in _spread(thinking) for said in versions),
    ]


def whole(text: str) -> bool:
    """A complete sentence of four words or more, not a piece that other prompts go before or behind."""
    return (
        len(text.split()) >= 4
        and text[0].isupper()
        and text[-1] in ".!?"
        and re.search(r"\.\.|…|[\[(<]", text) is None
    )


def dips(samples: Samples, least: int) -> list[tuple[int, int]]:
    """Where it is quiet for `least` frames or more: (first frame, frame after)."""
    pieces = samples[: len(samples) // _SAMPLES * _SAMPLES].reshape(-1, _SAMPLES)
    quiet = [rms(piece) <= LOUD for piece in pieces]
    found: list[tuple[int, int]] = []
    for is_quiet, run in itertools.groupby(range(len(quiet)), key=quiet.__getitem__):
        places = list(run)
        if is_quiet and len(places) >= least:
            found.append((places[0], places[-1] + 1))
    return found


def breaking_point(samples: Samples) -> int | None:
    """The middle, in samples, of the longest quiet moment well inside a sentence: between two words."""
    length = len(samples) / _SAMPLES
    inside = [
        (last - first, first, last)
        for first, last in dips(samples, _DIP)
        if 0.3 * length <= first and last <= 0.75 * length
    ]
    if not inside:
        return None
    _, first, last = max(inside)
    return (first + last) // 2 * _SAMPLES


def broken(samples: Samples, place: int, pause_ms: int) -> Samples:
    return np.concatenate(
        (samples[:place], np.zeros(pause_ms * RATE // 1000, np.int16), samples[place:])
    )


def _spread(items: Sequence[_Item]) -> Sequence[_Item]:
    step = max(1, len(items) // UTTERANCES)
    return items[::step][:UTTERANCES]


# --- How it is heard ------------------------------------------------------------------------------


async def listen(said: Said, model: SmartTurn, settings: Settings) -> Listened:
    """Hear it on a line with faint noise, all pauses of it, and ask the model about each."""
    patient = TurnPolicy(min_silence_ms=60_000, max_silence_ms=60_000)
    ears = Ears(RATE, patient, make_vad(settings.models.vad, RATE))
    before, after = round(_BEFORE_S * RATE), round(_AFTER_S * RATE)
    line = np.pad(said.samples.astype(np.float64), (before, after))
    line += np.random.default_rng(1).normal(0, _NOISE, len(line))
    pcm = np.clip(line.round(), -32768, 32767).astype(np.int16)
    frames: list[tuple[float, bool, float | None]] = []
    judged: dict[float, tuple[float, float]] = {}
    for number in range(len(pcm) // _SAMPLES):
        at = (number + 1) * FRAME_S
        sound = pcm[number * _SAMPLES : (number + 1) * _SAMPLES]
        heard = ears.hear(Frame(sound.tobytes(), RATE, at))
        frames.append((at, heard.speech, heard.onset))
        for event in heard.events:
            if isinstance(event, PauseHeld):
                began = time.perf_counter()
                probability = await model.probability(ears.cut(event.speech_from, event.at))
                judged[at] = probability, time.perf_counter() - began
    return Listened(said, frames, judged, _BEFORE_S + len(said.samples) / RATE)


def replay(listened: Sequence[Listened], policy: TurnPolicy) -> list[Verdict]:
    """Each utterance by a caller of their own."""
    return [verdict(heard, Endpointer(policy)) for heard in listened]


def as_one_caller(listened: Sequence[Listened], policy: TurnPolicy) -> list[Verdict]:
    """All utterances of a language with the same pause by one caller, who so always pauses alike."""
    verdicts: list[Verdict] = []
    callers: dict[tuple[str, str, int], tuple[Endpointer, float]] = {}
    for heard in listened:
        who = heard.said.language, heard.said.kind, heard.said.pause_ms
        endpointer, since = callers.get(who, (Endpointer(policy), 0.0))
        verdicts.append(verdict(heard, endpointer, since))
        callers[who] = endpointer, since + heard.frames[-1][0] + _REPLY_S
    return verdicts


def verdict(heard: Listened, endpointer: Endpointer, since: float = 0.0) -> Verdict:
    """What the endpointer makes of an utterance that begins at `since`, in seconds.

    It is heard to its end, also after a cut: so the endpointer may learn from what follows.
    """
    cut, over_at = False, heard.frames[-1][0]
    coming: list[tuple[float, float, int]] = []
    """Judgements under way: when they are there, the probability, the pause."""
    for at, speech, onset in heard.frames:
        events = []
        while coming and coming[0][0] <= at:
            _, probability, pause_id = coming.pop(0)
            events += endpointer.judge(since + at, probability, pause_id=pause_id)
        begun = None if onset is None else since + onset
        events += endpointer.hear(since + at, speech, begun)
        for event in events:
            if isinstance(event, TurnOver):
                cut = cut or at < heard.last_sound
                over_at = at
            elif isinstance(event, PauseHeld) and at in heard.judged:
                probability, took = heard.judged[at]
                coming.append((at + took, probability, event.pause_id))
    wait_s = over_at - heard.last_sound
    return Verdict(heard.said, cut, wait_s * 1000 if wait_s >= 0 else None)


# --- What is told ---------------------------------------------------------------------------------


def told(verdicts: Sequence[Verdict], *, in_full: bool = False) -> dict[str, Any]:
    """Rates of false cut-offs and waits in milliseconds, for each language; in full, each pause too."""
    return {
        language: _language([v for v in verdicts if v.said.language == language], in_full)
        for language in sorted({v.said.language for v in verdicts})
    }


def _language(verdicts: Sequence[Verdict], in_full: bool) -> dict[str, Any]:
    waits = spread([v.wait_ms for v in verdicts if v.wait_ms is not None])
    result: dict[str, Any] = {
        "cut_rate": _rate(verdicts),
        "wait_p50_ms": waits["p50"],
        "wait_p95_ms": waits["p95"],
    }
    if in_full:
        kinds = sorted({(v.said.kind, v.said.pause_ms) for v in verdicts})
        for kind, pause_ms in kinds:
            chosen = [v for v in verdicts if (v.said.kind, v.said.pause_ms) == (kind, pause_ms)]
            name = f"{kind}_{pause_ms}_ms" if pause_ms else kind
            result[name] = {"utterances": len(chosen), "cut_rate": _rate(chosen)}
    return result


def _rate(verdicts: Sequence[Verdict]) -> float:
    return round(sum(v.cut for v in verdicts) / len(verdicts), 4)
