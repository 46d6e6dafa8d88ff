"""Models that do their work by the script: hearing, thinking and speaking take virtual time.

The caller's sound carries its words. Each 20 ms frame of speech begins with the number of the word that is
being said, so the recogniser understands exactly the words that are in the sound it is given: a word
counts when at least half of it is there.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.calls.parts import Parts
from engine.config import Agent, LimitSettings
from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec
from engine.errors import ModelError
from engine.media.frame import FRAME_S, Pcm, Samples
from engine.stt.base import Transcript

RATE = 8000
FRAME_SAMPLES = 160
LOUD = 1000
CHARACTER_S = 0.05
"""The agent says twenty characters a second: a sentence of 20 characters takes one."""

Step = str | float | ToolCall | Exception
"""What the language model does next: says text, takes seconds, asks for a tool, fails."""


def noise(length: int, seed: int) -> Samples:
    """Loud, and like no other noise: the echo guard must not take the caller for the agent."""
    generator = np.random.default_rng(seed)
    return generator.integers(-LOUD, LOUD, length).astype(np.int16)


class Words:
    """The words callers say, by the numbers their sound carries. Number 1 is a noise without words."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[str, int, float]] = {}
        self._frames = 0

    def speech(self, text: str, seconds: float, confidence: float) -> list[Samples]:
        """The frames of `text`, its words spread evenly; an empty text is a cough."""
        count = round(seconds / FRAME_S)
        words = text.split()
        numbers = [1] * count
        for index, word in enumerate(words):
            number = len(self._said) + 2
            start, end = (round(count * at / len(words)) for at in (index, index + 1))
            numbers[start:end] = [number] * (end - start)
            self._said[number] = word, end - start, confidence
        return [self._frame(number) for number in numbers]

    def _frame(self, number: int) -> Samples:
        self._frames += 1
        samples = noise(FRAME_SAMPLES, self._frames)
        samples[0] = number
        return samples

    def heard(self, audio: Pcm) -> tuple[str, float]:
        """What can be understood, and how sure it is."""
        whole = len(audio.samples) // FRAME_SAMPLES * FRAME_SAMPLES
        marks = audio.samples[:whole].reshape(-1, FRAME_SAMPLES)[:, 0]
        frames = Counter(int(mark) for mark in marks)
        found = [
            (word, confidence)
            for number, (word, length, confidence) in self._said.items()
            if frames[number] * 2 >= length
        ]
        text = " ".join(word for word, _ in found)
        return text, min((confidence for _, confidence in found), default=1.0)


@dataclass
class Hearing:
    """A recogniser that takes `takes_s` for whatever it hears; `fails` is raised instead."""

    words: Words
    takes_s: float = 0.2
    fails: Exception | None = None
    name: str = "scripted"
    asked: int = 0

    async def transcribe(
        self, audio: Pcm, *, language: str | None, languages: tuple[str, ...] = (), prompt: str = ""
    ) -> Transcript:
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if self.fails is not None:
            raise self.fails
        text, confidence = self.words.heard(audio)
        spoken = language or ("ru" if re.search("[а-я]", text) else languages[0])
        return Transcript(text, spoken, confidence, took_ms=self.takes_s * 1000)

    async def warm(self) -> None: ...
    async def close(self) -> None: ...


@dataclass
class Thinking:
    """A language model that answers what it is told, by the last message; else "All right."."""

    answers: Mapping[str, Sequence[Step]]
    takes_s: float = 0.2
    """Until its first word."""
    name: str = "scripted"
    asked: list[list[Message]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    fails_ahead: Exception | None = None

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[Delta]:
        self.asked.append(list(messages))
        await asyncio.sleep(self.takes_s)
        for step in self.answers.get(messages[-1].content, ("All right.",)):
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                yield TextDelta(step) if isinstance(step, str) else step

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        if self.fails_ahead is not None:
            raise self.fails_ahead

    async def forget(self, cache_key: str) -> None:
        self.forgotten.append(cache_key)

    async def close(self) -> None: ...

    def talk(self, index: int = -1) -> list[tuple[str, str]]:
        """The conversation as the model was told it in one of its prompts: (role, words)."""
        return [(m.role, m.content) for m in self.asked[index] if m.role != "system"]


@dataclass
class Speaking:
    """A voice with its first sound after `takes_s`; a text in `fails` breaks off after 0.2 s."""

    takes_s: float = 0.1
    fails: Mapping[str, Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def speak(self, text: str, *, language: str) -> AsyncIterator[Pcm]:
        self.asked.append(text)
        await asyncio.sleep(self.takes_s)
        sound = noise(round(len(text) * CHARACTER_S * RATE), zlib.crc32(text.encode()))
        if error := self.fails.get(text):
            yield Pcm(sound[: RATE // 5], RATE)
            raise error
        for start in range(0, len(sound), RATE // 5):
            yield Pcm(sound[start : start + RATE // 5], RATE)


@dataclass
class TurnSense:
    """The turn model: `probability` that the caller has finished, or a failure."""

    says: float = 0.9
    takes_s: float = 0.05
    fails: bool = False

    async def probability(self, audio: Pcm) -> float:
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise ModelError("no opinion")
        return self.says


class LoudnessVad:
    def probability(self, samples: Samples) -> float:
        return float(np.abs(samples).max() > LOUD / 4)


def make_parts(agent: Agent, words: Words, **models: Any) -> Parts:
    """`stt`, `llm`, `voice`, `turn_model`, `spare` and `limits` replace the usual ones."""
    voice = models.get("voice") or Speaking()

    async def prepare(agents: Mapping[str, Agent]) -> Mapping[str, Speaking]:
        return dict.fromkeys(agents, voice)

    return Parts(
        stt=models.get("stt") or Hearing(words),
        llm=models.get("llm") or Thinking({}),
        voices={agent.id: voice},
        turn_model=models.get("turn_model") or TurnSense(),
        make_vad=lambda rate: LoudnessVad(),
        limits=models.get("limits") or LimitSettings(),
        prepare=prepare,
        spare=models.get("spare") or (lambda: True),
    )
