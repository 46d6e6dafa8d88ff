"""Fitting a conversation to what a model takes."""

from __future__ import annotations

from collections.abc import Sequence

from engine.dialog.llm.base import Message


def drop_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """Without the oldest turn: a message and the tool answers that hang on it. None: nothing to drop."""
    systems = 0
    while systems < len(messages) and messages[systems].role == "system":
        systems += 1
    rest = list(messages[systems + 1 :])
    while rest and rest[0].role == "tool":
        rest.pop(0)
    if not rest:
        return None
    return [*messages[:systems], *rest]


def one_system(messages: Sequence[Message]) -> list[Message]:
    """The leading system messages joined into one, for templates that allow no second."""
    systems = 0
    while systems < len(messages) and messages[systems].role == "system":
        systems += 1
    if systems < 2:
        return list(messages)
    text = "\n\n".join(message.content for message in messages[:systems])
    return [Message("system", text), *messages[systems:]]
