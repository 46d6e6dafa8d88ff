"""A GGUF file opened by llama.cpp: its weights, its vocabulary and its chat template."""

from __future__ import annotations

import ctypes
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from engine.dialog.llm.base import Message, ToolSpec
from engine.dialog.llm.messages import drop_oldest, one_system
from engine.errors import ModelError

log = logging.getLogger(__name__)

_WARN, _ERROR = 3, 4


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _narrate(level: int, text: bytes, _: object) -> None:
    """What llama.cpp would write on stderr, which is a lot. Levels as in ggml.h."""
    if level in (_WARN, _ERROR):
        how = logging.WARNING if level == _ERROR else logging.DEBUG
        log.log(how, "llama.cpp says", extra={"said": text.decode(errors="replace").strip()})


llama_cpp.llama_log_set(_narrate, ctypes.c_void_p(0))


class LlamaModel:
    """Weights and vocabulary. Raises ModelError when the file cannot be used. Not thread-safe."""

    def __init__(self, path: Path, *, gpu_layers: int) -> None:
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = gpu_layers if gpu_layers >= 0 else 999
        self.path = path
        self.handle: Any = None
        if path.is_file():
            self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.handle:
            raise ModelError(
                f"the language model {path.name} could not be loaded",
                how_to_fix=["run `offhook models verify`", "check the free memory"],
            )
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self._buffer = ctypes.create_string_buffer(256)
        template = self._metadata("tokenizer.chat_template")
        if not template:
            self.close()
            raise ModelError(
                f"{path.name} carries no chat template",
                how_to_fix=["use an instruct model; base models cannot hold a conversation"],
            )
        self._formatter: Any = Jinja2ChatFormatter(
            template,
            eos_token=self._special(llama_cpp.llama_vocab_eos(self.vocab)),
            bos_token=self._special(llama_cpp.llama_vocab_bos(self.vocab)),
        )
        log.info("language model loaded", extra={"model": path.name})

    def close(self) -> None:
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    # --- Tokens --------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text in which the template's marks are marks."""
        data = text.encode()
        room = len(data) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), tokens, room, False, True)
        if count < 0:
            raise ModelError("llama.cpp could not split the prompt into tokens")
        return tokens[:count]

    def piece(self, token: int) -> bytes:
        """The bytes of one token; it may end inside a character."""
        size = llama_cpp.llama_token_to_piece(
            self.vocab,
            token,
            self._buffer,
            len(self._buffer),
            0,
            True,
        )
        return bytes(self._buffer.raw[: max(0, size)])

    def ends(self, token: int) -> bool:
        """Whether this token ends the model's turn."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    # --- Prompt --------------------------------------------------------------------------------

    def prompt(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], limit: int
    ) -> list[int]:
        """The prompt's tokens, the oldest turns dropped until there are at most `limit`.

        Raises ModelError when the system messages and the last turn alone do not fit.
        """
        kept = list(messages)
        while True:
            tokens = self.tokenize(self.render(kept, tools))
            if len(tokens) <= limit:
                return tokens
            shorter = drop_oldest(kept)
            if shorter is None:
                raise ModelError(
                    f"the prompt has {len(tokens)} tokens, and {limit} fit",
                    how_to_fix=["shorten the agent's prompt", "raise models.llm_context"],
                )
            kept = shorter

    def render(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], *, answer: bool = True
    ) -> str:
        """The text of a prompt by the model's own template; with `answer`, up to where it answers."""
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

    def _metadata(self, key: str) -> str:
        size = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), b"", 0)
        if size < 0:
            return ""
        value = ctypes.create_string_buffer(size + 1)
        llama_cpp.llama_model_meta_val_str(
            self.handle,
            key.encode(),
            value,
            size + 1,
        )
        return value.value.decode(errors="replace")

    def _special(self, token: int) -> str:
        return self.piece(token).decode(errors="replace") if token >= 0 else ""


def tool_json(tool: ToolSpec) -> str:
    """The tool as JSON with a stable order of keys, so that the same tools give the same prefix."""
    return json.dumps(
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        ensure_ascii=False,
    )


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
