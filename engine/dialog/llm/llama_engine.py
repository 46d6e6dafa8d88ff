"""One llama.cpp context and the conversations that share it. Everything here runs on one thread.

The context holds one sequence. A call's next turn starts with what was evaluated for the last one, so
only the new words cost time. When another call comes between, the sequence is copied out (about 12 KB a
token for a 0.5B model, a memcpy) and copied back on the call's next turn, which is some hundred times
cheaper than evaluating it again.
"""

from __future__ import annotations

import codecs
import ctypes
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

# OpenMP's threads spin where they meet. When another process holds a core that costs seconds: in short
# runs on 2 shared cores a prompt of 24 tokens took up to 10 s, and up to 0.3 s with this value, while
# decoding alone kept 55 of 57 tokens/s. libgomp reads it once, when loaded; an operator's value wins.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import jinja2
import llama_cpp
import numpy as np
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.llama_grammar import LlamaGrammar
from numpy.typing import NDArray

from engine.dialog.llm.base import Message, ToolSpec
from engine.dialog.llm.messages import drop_oldest, one_system
from engine.errors import ModelError

log = logging.getLogger(__name__)

SLICE_TOKENS = 64
"""A prompt is evaluated in slices of this many tokens, so that a cancelled call stops soon."""
WORTH_SAVING = 48
"""A sequence that differs from the next one by fewer tokens is not copied out or in."""
_SAVED_BYTES = 512 * 1024 * 1024

Tokens = NDArray[np.intc]


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float = 0.2
    top_p: float = 0.9
    top_k: int = 40
    min_p: float = 0.05
    repeat_penalty: float = 1.05


class SavedSequences:
    """Copies of evaluated sequences by conversation, the least recently used thrown out by size."""

    def __init__(self, limit_bytes: int = _SAVED_BYTES) -> None:
        self._entries: OrderedDict[str, tuple[Tokens, Any]] = OrderedDict()
        self._limit = limit_bytes
        self.bytes = 0

    def put(self, key: str, tokens: Tokens, data: Any) -> None:
        self.drop(key)
        self._entries[key] = (tokens, data)
        self.bytes += len(data)
        while self.bytes > self._limit and self._entries:
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= len(entry[1])

    def best(self, prompt: Tokens) -> tuple[int, Tokens, Any] | None:
        """The entry that shares most with `prompt`: (shared tokens, its tokens, its data)."""
        found = max(
            ((common_prefix(tokens, prompt), key) for key, (tokens, _) in self._entries.items()),
            default=None,
        )
        if found is None:
            return None
        shared, key = found
        self._entries.move_to_end(key)
        tokens, data = self._entries[key]
        return shared, tokens, data

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0


class LlamaEngine:
    """Loads on first use. Not thread-safe: one lane owns it."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        threads: int,
        gpu_layers: int,
        crowded: Callable[[], bool],
    ) -> None:
        """`crowded` tells whether anybody else needs the processor now."""
        self._path = path
        self._crowded = crowded
        self._context = context
        self._threads = threads
        self._gpu_layers = gpu_layers
        self._llama: Any = None  # its types are incomplete
        self._formatter: Any = None
        self._saved = SavedSequences()
        self._owner = ""

    @property
    def llama(self) -> Any:
        """The loaded model. Raises ModelError."""
        if self._llama is None:
            self._load()
        return self._llama

    def _load(self) -> None:
        try:
            llama = llama_cpp.Llama(
                str(self._path),
                n_ctx=self._context,
                n_threads=self._threads,
                n_threads_batch=self._threads,
                n_gpu_layers=self._gpu_layers,
                verbose=False,
            )
        # llama-cpp-python raises ValueError for a broken file and a missing one alike.
        except (ValueError, OSError, RuntimeError) as error:
            raise ModelError(
                f"the language model {self._path.name} could not be loaded: {error}",
                how_to_fix=["run `offhook models verify`", "check the free memory"],
            ) from error
        template = llama.metadata.get("tokenizer.chat_template")
        if not template:
            raise ModelError(
                f"{self._path.name} carries no chat template",
                how_to_fix=["use an instruct model; base models cannot hold a conversation"],
            )
        self._formatter = Jinja2ChatFormatter(
            template,
            eos_token=_piece(llama, llama.token_eos()),
            bos_token=_piece(llama, llama.token_bos()),
        )
        self._llama = llama
        log.info("language model loaded", extra={"model": self._path.name})

    def close(self) -> None:
        self._saved.clear()
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    def forget(self, key: str) -> None:
        self._saved.drop(key)
        if self._owner == key:
            self._owner = ""

    # --- Prompt --------------------------------------------------------------------------------

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], room: int
    ) -> list[int]:
        """The prompt's tokens, the oldest turns dropped until `room` tokens are left for the answer.

        Raises ModelError when the system messages and the last turn alone do not fit.
        """
        kept = list(messages)
        limit = self._context - room
        while True:
            tokens = self.llama.tokenize(
                self.render(kept, tools).encode(), add_bos=False, special=True
            )
            if len(tokens) <= limit:
                return list(tokens)
            shorter = drop_oldest(kept)
            if shorter is None:
                raise ModelError(
                    f"the prompt has {len(tokens)} tokens and the context {self._context}",
                    how_to_fix=["shorten the agent's prompt", "raise models.llm_context"],
                )
            kept = shorter

    def render(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, answer: bool = True
    ) -> str:
        _ = self.llama  # loads the template
        self._formatter.add_generation_prompt = answer
        last: Exception | None = None
        for attempt in (messages, one_system(messages)):
            try:
                response = self._formatter(
                    messages=[_for_template(message) for message in attempt],
                    tools=[_tool_for_template(tool) for tool in tools] or None,
                    enable_thinking=False,
                )
            # Templates refuse what their model was not trained on (a second system message, say).
            except (ValueError, TypeError, jinja2.TemplateError) as error:
                last = error
                continue
            return str(response.prompt)
        raise ModelError(f"the chat template refused the messages: {last}") from last

    # --- Decoding ------------------------------------------------------------------------------

    def prefill(self, tokens: list[int], key: str, stopped: Callable[[], bool]) -> int:
        """Bring the context to `tokens`; returns how many of them were there already."""
        llama = self.llama
        prompt = np.asarray(tokens, dtype=np.intc)
        live: Tokens = np.array(llama.input_ids[: llama.n_tokens], dtype=np.intc)
        shared = common_prefix(live, prompt)
        if self._owner and self._owner != key and len(live) - shared >= WORTH_SAVING:
            self._save(self._owner, live)
        best = self._saved.best(prompt)
        if (
            best is not None
            and best[0] >= shared + WORTH_SAVING
            and self._restore(best[1], best[2])
        ):
            shared = best[0]
        self._owner = key
        # The last token is always evaluated again, for its logits.
        keep = min(shared, len(tokens) - 1)
        if keep < llama.n_tokens:
            if keep and llama._ctx.kv_cache_seq_rm(-1, keep, -1):
                llama.n_tokens = keep
            else:  # nothing in common, or a model whose memory cannot be cut (recurrent, sliding)
                llama.reset()
                keep = 0
        for start in range(keep, len(tokens), SLICE_TOKENS):
            if stopped():
                break
            self._eval(tokens[start : start + SLICE_TOKENS])
        return keep

    def generate(
        self, tokens: list[int], sampling: Sampling, grammar: LlamaGrammar | None = None
    ) -> Iterator[str]:
        """Pieces of text after `tokens`, one per model token (empty inside a character)."""
        llama = self.llama
        threads = 0
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        stream = llama.generate(
            tokens,
            temp=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repeat_penalty=sampling.repeat_penalty,
            grammar=grammar,
        )
        vocabulary = llama._model.vocab
        try:
            for token in stream:
                if llama_cpp.llama_vocab_is_eog(vocabulary, token):
                    return
                yield decoder.decode(llama.detokenize([token], special=True))
                # Decoding waits for memory: all threads are a quarter faster alone on the machine, but
                # beside other work half of them are twice as fast (docs/benchmarks.md).
                wanted = max(1, self._threads // 2) if self._crowded() else self._threads
                if wanted != threads:
                    threads = wanted
                    llama_cpp.llama_set_n_threads(llama._ctx.ctx, threads, self._threads)
                if llama.n_tokens >= self._context - 1:
                    return
        # llama.cpp reports a failed decode with RuntimeError and a bad argument with ValueError.
        except (RuntimeError, ValueError) as error:
            llama.reset()
            raise ModelError(f"decoding failed: {error}") from error
        finally:
            stream.close()

    def tokenize(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def keep(self, key: str) -> None:
        """Copy the live sequence out under `key`, as the beginning many conversations share."""
        llama = self.llama
        self._save(key, np.array(llama.input_ids[: llama.n_tokens], dtype=np.intc))
        self._owner = ""

    def _eval(self, tokens: list[int]) -> None:
        try:
            self.llama.eval(tokens)
        except (RuntimeError, ValueError) as error:
            self.llama.reset()
            raise ModelError(f"evaluating the prompt failed: {error}") from error

    def _save(self, key: str, live: Tokens) -> None:
        context = self.llama._ctx.ctx
        size = llama_cpp.llama_state_seq_get_size(context, 0)
        data = (ctypes.c_uint8 * size)()
        if size and llama_cpp.llama_state_seq_get_data(context, data, size, 0) == size:
            self._saved.put(key, live, data)

    def _restore(self, tokens: Tokens, data: Any) -> bool:
        llama = self.llama
        if llama_cpp.llama_state_seq_set_data(llama._ctx.ctx, data, len(data), 0) == 0:
            log.warning("a saved conversation could not be restored and is evaluated again")
            llama._ctx.kv_cache_clear()
            llama.reset()
            return False
        llama.n_tokens = len(tokens)
        llama.input_ids[: len(tokens)] = tokens
        return True


def common_prefix(first: Tokens, second: Tokens) -> int:
    """How many leading tokens two sequences share."""
    length = min(len(first), len(second))
    different = np.flatnonzero(first[:length] != second[:length])
    return int(different[0]) if len(different) else length


@lru_cache(maxsize=64)
def grammar_for(schema: str) -> LlamaGrammar:
    """Raises ModelError for a schema that cannot be turned into a grammar."""
    try:
        return LlamaGrammar.from_json_schema(schema, verbose=False)
    # The converter is plain Python over somebody's schema: it raises whatever it trips over.
    except Exception as error:
        raise ModelError(f"no grammar for the tools' schema: {error}") from error


def _for_template(message: Message) -> dict[str, Any]:
    content = message.content
    if message.role in ("user", "tool"):
        # A caller or a tool must not be able to write the marks that separate the messages.
        content = content.replace("<|", "< |").replace("<tool_", "< tool_")
    value: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        value["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _tool_for_template(tool: ToolSpec) -> dict[str, Any]:
    return {"type": "function", "function": json.loads(tool_json(tool))}


def tool_json(tool: ToolSpec) -> str:
    """The tool as JSON with a stable order of keys, so that the same tools give the same prefix."""
    return json.dumps(
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        ensure_ascii=False,
    )


def _piece(llama: Any, token: int) -> str:
    if token < 0:
        return ""
    return str(llama.detokenize([token], special=True).decode(errors="replace"))
