"""One llama.cpp context in which many conversations lie side by side.

Its memory is a pool of cells, one a token. A cell may belong to several sequences at once, so the prompt
that all calls of an agent begin with lies there once. A conversation keeps its sequence between turns;
when cells or sequences run out, the one unused for longest goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import llama_cpp
import numpy as np

from engine.dialog.llm.llama_model import LlamaModel
from engine.errors import ModelError

SEQUENCES = 64
"""Conversations and shared beginnings kept at once."""
WORTH_SHARING = 16
"""A sequence that has fewer tokens more in common with a prompt is not worth changing over to."""
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float = 0.2
    top_p: float = 0.9
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.05


@dataclass(eq=False, slots=True)
class Kept:
    """A sequence: the tokens it holds, whose it is, and whether a reply is at work on it."""

    number: int
    key: str = ""
    tokens: list[int] = field(default_factory=list)
    used: int = 0
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens to append to a sequence in one step; with `answers`, the next one is then sampled."""

    sequence: Kept
    tokens: Sequence[int]
    answers: bool


class LlamaSequences:
    """The context. `cells` bounds the tokens of all sequences together. Not thread-safe."""

    def __init__(self, model: LlamaModel, *, cells: int, threads: int) -> None:
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = cells
        options.n_batch = options.n_ubatch = _BATCH
        options.n_seq_max = SEQUENCES
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        options.no_perf = True
        if not llama_cpp.llama_supports_gpu_offload():
            # On a processor flash attention reads a prompt a quarter slower (docs/benchmarks.md).
            options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.context: Any = llama_cpp.llama_init_from_model(model.handle, options)
        if not self.context:
            raise ModelError(
                "there is no memory for the language model's context",
                how_to_fix=["lower models.llm_context", "free memory on the machine"],
            )
        self._memory: Any = llama_cpp.llama_get_memory(self.context)
        self._batch: Any = llama_cpp.llama_batch_init(_BATCH, 0, 1)
        self._kept = [Kept(number) for number in range(SEQUENCES)]
        self._uses = 0
        self._threads = threads
        self._in_use = threads

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self.context)

    def use_threads(self, threads: int) -> None:
        """For the steps to come; never more than the context was made with."""
        threads = min(threads, self._threads)
        if threads != self._in_use:
            self._in_use = threads
            llama_cpp.llama_set_n_threads(self.context, threads, self._threads)

    # --- Sequences -----------------------------------------------------------------------------

    def take(self, key: str, prompt: Sequence[int]) -> Kept | None:
        """The sequence that `key` shall write in, holding as much of `prompt` as is here already.

        Mark it not `busy` when done. None while every sequence is at work.
        """
        mine = next((kept for kept in self._kept if kept.key == key and key), None)
        if mine is not None and mine.busy:
            mine = None
        best = max(self._kept, key=lambda kept: shared(kept.tokens, prompt))
        common = shared(best.tokens, prompt)
        if mine is None:
            idle = [kept for kept in self._kept if not kept.busy and kept is not best]
            if not idle:
                return None
            mine = min(idle, key=lambda kept: kept.used if kept.tokens else -1)
            self._empty(mine)
        own = shared(mine.tokens, prompt)
        if best is not mine and common >= own + WORTH_SHARING:
            self._empty(mine)
            llama_cpp.llama_memory_seq_cp(self._memory, best.number, mine.number, 0, common)
            mine.tokens = best.tokens[:common]
            best.used = self._tick()
        mine.key, mine.busy, mine.used = key, True, self._tick()
        self.cut(mine, min(shared(mine.tokens, prompt), len(prompt) - 1))
        return mine

    def cut(self, kept: Kept, length: int) -> None:
        """Forget what comes after the first `length` tokens."""
        if length >= len(kept.tokens):
            return
        if length and llama_cpp.llama_memory_seq_rm(self._memory, kept.number, length, -1):
            del kept.tokens[length:]
        else:  # nothing left, or a model whose memory cannot be cut (recurrent, sliding window)
            self._empty(kept)

    def forget(self, key: str) -> None:
        for kept in self._kept:
            if kept.key == key and not kept.busy:
                self._empty(kept)

    def _empty(self, kept: Kept) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, kept.number, -1, -1)
        kept.tokens = []
        kept.key = ""

    def _forget_oldest(self) -> bool:
        idle = [kept for kept in self._kept if kept.tokens and not kept.busy]
        if not idle:
            return False
        self._empty(min(idle, key=lambda kept: kept.used))
        return True

    def _tick(self) -> int:
        self._uses += 1
        return self._uses

    # --- Steps ---------------------------------------------------------------------------------

    def step(self, parts: Sequence[Part]) -> list[int]:
        """Evaluate; returns for each part its place in the batch's output.

        Raises ModelError when it does not fit, or fails: then the sequences are as they were.
        """
        batch, places, size = self._batch, [], 0
        for part in parts:
            start = len(part.sequence.tokens)
            for offset, token in enumerate(part.tokens):
                batch.token[size] = token
                batch.pos[size] = start + offset
                batch.n_seq_id[size] = 1
                batch.seq_id[size][0] = part.sequence.number
                batch.logits[size] = 0
                size += 1
            batch.logits[size - 1] = int(part.answers)
            places.append(size - 1)
        batch.n_tokens = size
        while (code := llama_cpp.llama_decode(self.context, batch)) == 1:
            if not self._forget_oldest():
                raise ModelError(
                    "the language model's context is full",
                    how_to_fix=["raise models.llm_cells, or lower limits.calls"],
                )
        if code != 0:
            for part in parts:  # what was evaluated before it failed
                llama_cpp.llama_memory_seq_rm(
                    self._memory, part.sequence.number, len(part.sequence.tokens), -1
                )
            raise ModelError(f"llama.cpp failed to decode (code {code})")
        for part in parts:
            part.sequence.tokens.extend(part.tokens)
        return places


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two sequences have in common."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    different = np.flatnonzero(np.asarray(first[:length]) != np.asarray(second[:length]))
    return int(different[0])


class Sampler:
    """How a reply's next token is chosen. `grammar` is GBNF text. Close it."""

    def __init__(self, model: LlamaModel, how: Sampling, grammar: str = "") -> None:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self._chain: Any = chain

        def add(sampler: Any) -> None:
            llama_cpp.llama_sampler_chain_add(chain, sampler)

        if grammar:
            made = llama_cpp.llama_sampler_init_grammar(model.vocab, grammar.encode(), b"root")
            if not made:
                self.close()
                raise ModelError("llama.cpp refused the grammar of the tools")
            add(made)
        words = llama_cpp.llama_vocab_n_tokens(model.vocab)
        add(llama_cpp.llama_sampler_init_penalties(words, 64, how.repeat_penalty, 0.0, 0.0))
        add(llama_cpp.llama_sampler_init_top_k(how.top_k))
        add(llama_cpp.llama_sampler_init_top_p(how.top_p, 1))
        add(llama_cpp.llama_sampler_init_min_p(how.min_p, 1))
        add(llama_cpp.llama_sampler_init_temp(how.temperature))
        add(llama_cpp.llama_sampler_init_dist(llama_cpp.LLAMA_DEFAULT_SEED))

    def sample(self, context: Any, place: int) -> int:
        """The next token after the batch's output at `place`."""
        return int(llama_cpp.llama_sampler_sample(self._chain, context, place))

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
