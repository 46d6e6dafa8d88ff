"""Thinking: messages in, a stream of text and tool calls out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. `arguments` are parsed and already fit the tool's JSON schema."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the prompt. `tool_call_id` names the call a `tool` message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model sees it. `parameters` is a JSON schema object."""

    name: str
    description: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """`cached_tokens` of the prompt were found in the KV cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    first_token_ms: float = 0.0


Delta = TextDelta | ToolCall | Usage


class LanguageModel(Protocol):
    name: str

    def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[Delta]:
        """Stream one answer. `cache_key` names the conversation whose prefix may be kept (the call id).
        Until `committed` is set the answer is a guess, and callers who wait go before it.

        Raises ModelError and ModelTimeout. Closing the iterator stops decoding within one token.
        """
        ...

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        """Load, run once and, where messages are given, keep their prefix in the cache.

        With `cache_key`: read `messages` ahead for that conversation, while the caller is listening or
        speaking, so that its next reply has only the new words to read. Raises ModelError.
        """
        ...

    async def forget(self, cache_key: str) -> None:
        """The conversation is over; its cache may go."""
        ...

    async def close(self) -> None: ...
