"""How a model writes a tool call into its text, and how to notice that before a word of it is spoken.

The trained form is `<tool_call>{"name": …, "arguments": {…}}</tool_call>` (Hermes, Qwen). Small models
also forget the tag or put the object between code fences, and write `<tools>` where they mean
`<tool_call>`; thinking models put `<think>…</think>` first. None of this may reach the caller's ear.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.dialog.llm.base import ToolSpec

TAG = "<tool_call>"
_TAGS = (TAG, "<tools>", "<function_call>", "<function-call>")
_THINK, _THINK_END = "<think>", "</think>"
_HIDDEN = ("</tool_call>", "</tools>", "</function_call>", "</function-call>", _THINK_END)
_MARKS = (*_TAGS, _THINK, *_HIDDEN)
_FENCE = re.compile(r"```[a-z]*\s*")
_PARTIAL_FENCE = re.compile(r"`{1,3}|```[a-z]*\s*")


@dataclass(frozen=True, slots=True)
class Opening:
    """A call has begun. `name` is known where the model skipped the tag; `tail` is what followed."""

    name: str = ""
    tail: str = ""


class ToolCallScanner:
    """Text in, in pieces; speakable text out, as early as it cannot be the start of a call any more.

    Once `opening` is set the scanner is spent: what follows is the call, for the caller to decode.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._heads = tuple((name, f'{{"name":"{name}"') for name in names)
        self._held = ""
        self._thinking = False
        self.opening: Opening | None = None

    def feed(self, text: str) -> str:
        """Add one piece; returns what may be spoken of it and of what was held back."""
        self._held += text
        out: list[str] = []
        while self._held and self.opening is None:
            if self._thinking:
                if not self._skip_thought():
                    break
                continue
            start = _first(self._held, "<`{")
            out.append(self._held[:start])
            self._held = self._held[start:]
            if not self._held:
                break
            taken = self._take()
            if taken is None:
                break
            out.append(taken)
        return "".join(out)

    def end(self) -> str:
        """The reply is over: what was held back was text after all, unless it is half a mark."""
        held, self._held = self._held, ""
        if self._thinking or held.startswith(("<", "{", "`")):
            # Half a tag or half an object says nothing to a caller.
            return ""
        return held

    def _skip_thought(self) -> bool:
        end = self._held.find(_THINK_END)
        if end < 0:
            self._held = self._held[-len(_THINK_END) :]
            return False
        self._held = self._held[end + len(_THINK_END) :]
        self._thinking = False
        return True

    def _take(self) -> str | None:
        """Decide about what is held, which starts with a trigger character. None: wait for more."""
        held = self._held
        if held[0] == "<":
            return self._take_mark(held)
        body = _FENCE.sub("", held, count=1) if held.startswith("```") else held
        if body.startswith("{"):
            compact = re.sub(r"\s+", "", body)
            for name, head in self._heads:
                if compact.startswith(head):
                    self.opening = Opening(name, body)
                    return ""
            waiting = any(head.startswith(compact) for _, head in self._heads)
        else:
            waiting = _PARTIAL_FENCE.fullmatch(held) is not None
        if waiting:
            return None
        self._held = held[1:]
        return held[0]

    def _take_mark(self, held: str) -> str | None:
        for mark in _MARKS:
            if held.startswith(mark):
                rest = held[len(mark) :]
                if mark in _TAGS:
                    self.opening = Opening("", rest)
                elif mark == _THINK:
                    self._thinking, self._held = True, rest
                else:
                    self._held = rest
                return ""
        if any(mark.startswith(held) for mark in _MARKS):
            return None
        self._held = held[1:]
        return "<"


def call_schema(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """The JSON schema of one call of any of `tools`, name first."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": inline_refs(tool.parameters or {"type": "object"}),
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"oneOf": calls}


def inline_refs(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its local `$defs` put where they are used, and titles, which tell a model nothing, gone."""
    definitions: dict[str, Any] = schema.get("$defs", {})

    def walk(node: Any, *, names: bool = False) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        reference = node.get("$ref", "")
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            return walk(definitions[reference.removeprefix("#/$defs/")])
        return {
            key: walk(value, names=key == "properties")
            for key, value in node.items()
            # Under `properties` the keys are the tool's own, and one may be called "title".
            if names or key not in ("$defs", "title")
        }

    result: dict[str, Any] = walk(schema)
    return result


def parse_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments from the first JSON object in `text`, or None. Text after it is ignored."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
    except json.JSONDecodeError:
        return None
    arguments = value.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError:
            return None
    name = value.get("name")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return name, arguments


def _first(text: str, characters: str) -> int:
    found = (text.find(character) for character in characters)
    return min((index for index in found if index >= 0), default=len(text))
