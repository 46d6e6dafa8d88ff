"""Continuous batching: all replies of all calls are written in one loop, a step at a time.

    submit ──▶ waiting ──sequence──▶ at work ──plan──▶ step: evaluate, sample ──▶ script goes on
                                        ▲                                            │
                                        └────────────────────────────────────────────┘

A reply is a script: a generator that yields what shall be evaluated next and gets the token that the
model then chose. The loop is one piece of work on the model's lane; it runs while anybody wants
anything, and looks between two steps at who has left, come or been confirmed.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from engine.dialog.llm.llama_model import LlamaModel
from engine.dialog.llm.llama_sequences import Kept, LlamaSequences, Part, Sampler, shared
from engine.errors import ModelError
from engine.inference.batching import Want, plan
from engine.inference.pool import Priority

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """Bring the sequence to exactly these tokens; with a sampler, answer with the next one."""

    tokens: list[int]
    sampler: Sampler | None


@dataclass(frozen=True, slots=True)
class Write:
    """Append the token that was chosen last, and answer with the next one."""


Script = Generator[Read | Write, int, None]
"""What it is sent is a token, or -1 after a `Read` without a sampler."""


@dataclass(eq=False, slots=True)
class Job:
    """One reply, or one reading ahead. `done` is called once, on the loop's thread."""

    key: str
    script: Callable[[LlamaModel, Job], Script]
    priority: Callable[[], Priority]
    done: Callable[[Exception | None], None]
    stop: threading.Event = field(default_factory=threading.Event)
    cached: int = 0
    """How many of the first prompt's tokens were here already."""
    number: int = 0
    since: float = field(default_factory=time.monotonic)
    served: int = -1
    kept: Kept | None = None
    target: list[int] = field(default_factory=list)
    sampler: Sampler | None = None
    running: Script | None = None


@dataclass(frozen=True, slots=True)
class BatchStats:
    """`wait_ms`: how long the latest job waited for its first step; `per_step`: replies in the latest."""

    waiting: int
    running: int
    steps: int
    wait_ms: float
    per_step: int


class LlamaBatch:
    """Owns the model and its context."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        cells: int,
        threads: int,
        gpu_layers: int,
        crowded: Callable[[], bool],
    ) -> None:
        """`context` bounds one conversation, `cells` all of them together, both in tokens.
        `crowded` tells whether anybody else needs the processor now."""
        self.context = context
        self._path = path
        self._cells = max(cells, context)
        self._threads = threads
        self._gpu_layers = gpu_layers
        self._crowded = crowded
        self._model: LlamaModel | None = None
        self._sequences: LlamaSequences | None = None
        self._lock = threading.Lock()
        self._new: list[Job] = []
        self._forgotten: list[str] = []
        self._closing = False
        self._numbers = itertools.count()
        self._looping = False
        self._waiting: list[Job] = []
        self._jobs: dict[int, Job] = {}
        self._steps = 0
        self._wait_ms = 0.0
        self._per_step = 0

    # --- From any thread -----------------------------------------------------------------------

    def submit(self, job: Job) -> bool:
        """Take a job in. True: nobody works, so have `run` called on the lane."""
        with self._lock:
            job.number = next(self._numbers)
            self._new.append(job)
            start, self._looping = not self._looping, True
        return start

    def forget(self, key: str) -> None:
        """The conversation is over; its sequence goes with the next step."""
        with self._lock:
            self._forgotten.append(key)

    def shut(self) -> None:
        """Refuse what is waiting and at work, so that the lane becomes free."""
        self._closing = True

    def stats(self) -> BatchStats:
        waiting = len(self._new) + len(self._waiting)
        return BatchStats(waiting, len(self._jobs), self._steps, self._wait_ms, self._per_step)

    # --- On the lane's thread ------------------------------------------------------------------

    @property
    def model(self) -> LlamaModel:
        """The loaded model. Raises ModelError."""
        if self._model is None:
            self._model = LlamaModel(self._path, gpu_layers=self._gpu_layers)
        return self._model

    @property
    def sequences(self) -> LlamaSequences:
        if self._sequences is None:
            self._sequences = LlamaSequences(self.model, cells=self._cells, threads=self._threads)
        return self._sequences

    def run(self) -> None:
        """Work until nobody wants anything."""
        while self._take_new():
            if self._closing:
                self._end_all(ModelError("the models are shutting down"))
                continue
            try:
                self._begin()
                self._step()
            except ModelError as error:
                self._end_all(error)
            except Exception as error:
                # A loop that dies would leave every caller waiting; each of them is told instead.
                log.exception("the language model's loop failed")
                self._end_all(ModelError(f"the language model failed: {error}"))

    def close(self) -> None:
        if self._sequences is not None:
            self._sequences.close()
            self._sequences = None
        if self._model is not None:
            self._model.close()
            self._model = None

    def _take_new(self) -> bool:
        with self._lock:
            self._waiting += self._new
            self._new = []
            forgotten, self._forgotten = self._forgotten, []
            self._looping = bool(self._waiting or self._jobs)
        if self._sequences is not None:
            for key in forgotten:
                self._sequences.forget(key)
        return self._looping

    def _begin(self) -> None:
        """Start the scripts of those who wait, as far as there are sequences for them."""
        still: list[Job] = []
        for job in sorted(self._waiting, key=lambda job: (job.priority(), job.number)):
            if job.stop.is_set():
                self._end(job, None)
            elif job.running is None and not self._first(job):
                continue
            elif (kept := self.sequences.take(job.key, job.target)) is None:
                still.append(job)
            else:
                job.kept, job.cached = kept, len(kept.tokens)
                self._jobs[job.number] = job
        self._waiting = still

    def _first(self, job: Job) -> bool:
        """Run a script to its first wish. False when it ended or failed there."""
        try:
            job.running = job.script(self.model, job)
            wish = next(job.running)
        except StopIteration:
            self._end(job, None)
            return False
        except ModelError as error:
            self._end(job, error)
            return False
        assert isinstance(wish, Read), "a script begins by reading"
        job.target, job.sampler = wish.tokens, wish.sampler
        return True

    def _step(self) -> None:
        for job in [job for job in self._jobs.values() if job.stop.is_set()]:
            self._end(job, None)
        if not self._jobs:
            return
        wants = [
            Want(
                job.number,
                int(job.priority() != Priority.TURN),
                len(job.target) - len(_kept(job).tokens),
                job.number,
                job.served,
            )
            for job in self._jobs.values()
        ]
        shares = plan(wants, self._steps)
        parts: list[Part] = []
        for share in shares:
            job = self._jobs[share.number]
            kept = _kept(job)
            start = len(kept.tokens)
            tokens = job.target[start : start + share.tokens]
            last = start + len(tokens) == len(job.target)
            parts.append(Part(kept, tokens, last and job.sampler is not None))
            if job.served < 0:
                self._wait_ms = (time.monotonic() - job.since) * 1000
            job.served = self._steps
        busy = max(1, self._threads // 2)
        self.sequences.use_threads(busy if self._crowded() else self._threads)
        self._steps += 1
        self._per_step = len(shares)
        try:
            places = self.sequences.step(parts)
        except ModelError as error:
            # What one cannot have, fewer may: the youngest guess or reply makes room for the others.
            youngest = max(shares, key=lambda share: (share.tokens > 1, share.number))
            self._end(self._jobs[youngest.number], error)
            return
        for share, part, place in zip(shares, parts, places, strict=True):
            job = self._jobs[share.number]
            if len(_kept(job).tokens) == len(job.target):
                self._go_on(job, place if part.answers else -1)

    def _go_on(self, job: Job, place: int) -> None:
        """The sequence is where the script wanted it: send it the next token, take its next wish."""
        token = -1
        if place >= 0 and job.sampler is not None:
            token = job.sampler.sample(self.sequences.context, place)
        assert job.running is not None
        try:
            wish = job.running.send(token)
        except StopIteration:
            self._end(job, None)
            return
        except ModelError as error:
            self._end(job, error)
            return
        kept = _kept(job)
        if isinstance(wish, Write):
            if len(kept.tokens) + 1 >= self.context:
                self._end(job, None)  # it has said all that fits
                return
            job.target = [*kept.tokens, token]
        else:
            self.sequences.cut(kept, shared(kept.tokens, wish.tokens[:-1]))
            job.target, job.sampler = wish.tokens, wish.sampler

    def _end_all(self, error: ModelError) -> None:
        waiting, self._waiting = self._waiting, []
        for job in [*self._jobs.values(), *waiting]:
            self._end(job, error)

    def _end(self, job: Job, error: Exception | None) -> None:
        self._jobs.pop(job.number, None)
        if job.kept is not None:
            job.kept.busy = False
            job.kept = None
        running, job.running = job.running, None
        if running is not None:
            running.close()
        job.done(error)


def _kept(job: Job) -> Kept:
    assert job.kept is not None, "a job at work has a sequence"
    return job.kept
