"""The heard ledger: what was really said and heard, in order.

The language model's context, the transcript, the note in the CRM and the quality score all read it, so
none of them believes in words that a caller cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.dialog.llm.base import Message, ToolCall

INTERRUPTED = "— [interrupted]"
"""After the words of a sentence that the caller heard before cutting it. Never spoken: see guards."""


class Heard(Protocol):
    """A sentence on its way to the caller, as it is at the moment."""

    @property
    def text(self) -> str: ...
    @property
    def language(self) -> str: ...
    @property
    def status(self) -> Literal["queued", "playing", "played", "cut", "unheard"]: ...
    @property
    def heard_ms(self) -> int: ...
    @property
    def total_ms(self) -> int: ...
    @property
    def resumed(self) -> bool: ...
    @property
    def started_at(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class CallerTurn:
    """What the caller said; milliseconds since the call began."""

    text: str
    language: str
    confidence: float
    start_ms: int
    end_ms: int

    def to_json(self, origin: float) -> dict[str, Any]:
        return {
            "who": "caller",
            "text": self.text,
            "language": self.language,
            "confidence": round(self.confidence, 3),
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
        }


@dataclass(frozen=True, slots=True)
class AgentSentence:
    """A sentence of the agent."""

    sentence: Heard

    @property
    def heard_text(self) -> str:
        """The words the caller heard: all, none, or up to the cut (estimated, at a word's border)."""
        sentence = self.sentence
        if sentence.status == "played":
            return sentence.text.strip()
        if sentence.status in ("cut", "playing"):
            return heard_part(sentence.text, sentence.heard_ms, sentence.total_ms)
        return ""

    @property
    def complete(self) -> bool:
        return self.sentence.status == "played"

    def to_json(self, origin: float) -> dict[str, Any]:
        sentence = self.sentence
        started = sentence.started_at
        status: str = sentence.status
        if sentence.resumed and status == "played":
            status = "resumed"
        return {
            "who": "agent",
            "text": sentence.text.strip(),
            "heard": self.heard_text,
            "language": sentence.language,
            "status": status,
            "heard_ms": sentence.heard_ms,
            "total_ms": sentence.total_ms,
            "start_ms": None if started is None else round((started - origin) * 1000),
        }


@dataclass(slots=True)
class ToolUse:
    """A tool the agent used; `result` is None until it has answered."""

    call: ToolCall
    at_ms: int
    result: str | None = None
    ok: bool = False
    took_ms: float = 0.0

    def to_json(self, origin: float) -> dict[str, Any]:
        return {
            "who": "tool",
            "id": self.call.id,
            "name": self.call.name,
            "arguments": self.call.arguments,
            "ok": self.ok,
            "result": self.result,
            "took_ms": round(self.took_ms),
            "start_ms": self.at_ms,
        }


@dataclass(frozen=True, slots=True)
class AgentSpeech:
    """What the agent says in one go. `read` is asked for its sentences whenever the ledger is read."""

    read: Callable[[], Sequence[Heard]]


Entry = CallerTurn | AgentSentence | ToolUse


@dataclass(slots=True)
class Ledger:
    """Entries in the order in which they began. `origin` is the call's start, monotonic seconds."""

    origin: float
    _slots: list[CallerTurn | AgentSpeech | ToolUse] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        """The entries as they are now, each sentence by itself."""
        entries: list[Entry] = []
        for slot in self._slots:
            if isinstance(slot, AgentSpeech):
                entries += [AgentSentence(sentence) for sentence in slot.read()]
            else:
                entries.append(slot)
        return entries

    def caller(
        self, text: str, language: str, confidence: float, *, started_at: float, ended_at: float
    ) -> CallerTurn:
        """A confirmed turn of the caller; times are monotonic seconds."""
        turn = CallerTurn(text, language, confidence, self._ms(started_at), self._ms(ended_at))
        self._slots.append(turn)
        return turn

    def agent(self, read: Callable[[], Sequence[Heard]]) -> None:
        """The agent begins to speak; `read` tells its sentences as they are, also much later.

        So the entry stands where the speech began, and what becomes of it needs no second report.
        """
        self._slots.append(AgentSpeech(read))

    def tool_started(self, call: ToolCall, *, at: float) -> None:
        self._slots.append(ToolUse(call, self._ms(at)))

    def tool_finished(self, call_id: str, *, ok: bool, result: str, took_ms: float) -> None:
        """The answer of a tool that was started. Raises KeyError for one that was not."""
        for entry in reversed(self._slots):
            if isinstance(entry, ToolUse) and entry.call.id == call_id:
                entry.ok, entry.result, entry.took_ms = ok, result, took_ms
                return
        raise KeyError(call_id)

    def messages(self, limit: int) -> list[Message]:
        """The conversation as the language model may know it: at most `limit` messages.

        Only what was heard. A cut sentence is its heard words and a mark; an unheard one is absent;
        a tool that has not answered is absent too. The window moves in steps, so that the prompt's
        beginning, and with it the KV cache, stays the same for several turns.
        """
        return _window(_merge(self.entries), limit)

    def to_json(self) -> list[dict[str, Any]]:
        """Everything, also what was not heard; times in milliseconds since the call began."""
        return [entry.to_json(self.origin) for entry in self.entries]

    def _ms(self, at: float) -> int:
        return round((at - self.origin) * 1000)


def heard_part(text: str, heard_ms: int, total_ms: int) -> str:
    """The whole words of `text` that fit into `heard_ms` of `total_ms`, speech taken as even."""
    text = text.strip()
    if heard_ms <= 0 or total_ms <= 0:
        return ""
    if heard_ms >= total_ms:
        return text
    reach = len(text) * heard_ms / total_ms
    end = 0
    for index, character in enumerate([*text, " "]):
        if character.isspace():
            if index > reach:
                break
            end = index
    return text[:end].rstrip(" \t\n,;:—–-")


def _merge(entries: Sequence[Entry]) -> list[Message]:
    messages: list[Message] = []
    said: list[str] = []

    def flush() -> None:
        if said:
            messages.append(Message("assistant", " ".join(said)))
            said.clear()

    for entry in entries:
        match entry:
            case AgentSentence():
                heard = entry.heard_text
                if heard:
                    said.append(heard if entry.complete else heard + INTERRUPTED)
            case CallerTurn():
                flush()
                if messages and messages[-1].role == "user":
                    # The agent was silenced before a word of its answer was heard.
                    messages[-1] = Message("user", f"{messages[-1].content} {entry.text}")
                else:
                    messages.append(Message("user", entry.text))
            case ToolUse(result=str() as result):
                words = " ".join(said)
                said.clear()
                messages.append(Message("assistant", words, tool_calls=(entry.call,)))
                messages.append(Message("tool", result, tool_call_id=entry.call.id))
            case _:
                pass
    flush()
    return messages


def _window(messages: list[Message], limit: int) -> list[Message]:
    if len(messages) <= limit:
        return messages
    step = max(1, limit // 4)
    start = -(-(len(messages) - limit) // step) * step
    # A tool's answer without its question would be refused by the chat template.
    while start < len(messages) and messages[start].role == "tool":
        start += 1
    return messages[start:]
