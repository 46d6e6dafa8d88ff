"""`offhook bench stt`: word errors and latency on recorded prompts, short window against full window."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

import jiwer

from engine.bench.report import machine, models, spread
from engine.config import Settings
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore
from engine.lab.voice import prompt, transcripts
from engine.stt.faster_whisper import FasterWhisper

UTTERANCES = 60


async def run(settings: Settings, *, calls: int, seconds: float, through: str) -> dict[str, Any]:
    """Sixty prompts in English and in Russian. `calls`, `seconds` and `through` do not matter here."""
    folder = WeightStore(settings.models.folder).path(settings.models.stt_model)
    result: dict[str, Any] = {"bench": "stt"}
    async with AsyncExitStack() as stack:
        workers = Workers()
        stack.push_async_callback(workers.close)
        for name, window in (("cropped", settings.models.stt_window_s), ("full", 0.0)):
            stt = FasterWhisper(
                folder, workers, window_s=window, threads=settings.models.stt_threads
            )
            await stt.warm()
            result[name] = {
                "window_s": window,
                **{language: await _score(stt, language) for language in ("en", "ru")},
            }
            await stt.close()
    return {**result, "machine": machine(), "models": models(settings.models)}


async def _score(stt: FasterWhisper, language: str) -> dict[str, Any]:
    wanted: list[str] = []
    got: list[str] = []
    took: list[float] = []
    for name, text in chosen(language):
        transcript = await stt.transcribe(prompt(name, language), language=language)
        wanted.append(plain(text))
        got.append(plain(transcript.text))
        took.append(transcript.took_ms)
    return {
        "utterances": len(wanted),
        "wer": round(jiwer.wer(wanted, got), 4),
        "took_ms": spread(took),
    }


def chosen(language: str) -> list[tuple[str, str]]:
    """The same prompts every time: plain words only, of at least four, spread over the alphabet."""
    good = [
        (name, text)
        for name, text in sorted(transcripts(language).items())
        if len(text.split()) >= 4 and not re.search(r"[\d(\[*#<]|\.\.\.", text)
    ]
    step = max(1, len(good) // UTTERANCES)
    return good[::step][:UTTERANCES]


def plain(text: str) -> str:
    """Lower case, no punctuation, ё as е: what a listener would call the same words."""
    text = text.casefold().replace("ё", "е").replace("-", " ")
    return " ".join(re.sub(r"[^\w' ]", " ", text).split()) or "-"
