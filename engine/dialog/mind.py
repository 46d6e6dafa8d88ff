"""What the caller said becomes a stream of things to say and to do.

    heard ──► clear wish? ──yes──► house phrase, tool
                  │no
                  ▼
              messages ──► model ──► sentences ──► Say, Say, …
                  ▲          │ tool call
                  │          ▼
                  └──── committed? tool runs (filler, progress) ──► result

A thought may be a guess: it begins before the caller's turn is known to be over. So nothing is written to
the ledger here, and a tool with side effects waits for `committed`. The session writes down what it
takes from a committed thought.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from engine.aio import backoff, cancel_and_wait
from engine.config import Agent, LimitSettings
from engine.dialog import prompt
from engine.dialog.guards import ReplyGuard, intent
from engine.dialog.history import Ledger
from engine.dialog.llm.base import LanguageModel, Message, TextDelta, ToolCall, Usage
from engine.dialog.phrases import phrases
from engine.dialog.sentences import Piece, SentenceSplitter
from engine.dialog.tools.registry import CallControl, Outcome, Registry, ToolContext
from engine.errors import ModelError

log = logging.getLogger(__name__)

TOOL_ROUNDS = 3
"""A reply may use tools this many times; then the model must answer without."""


@dataclass(frozen=True, slots=True)
class Say:
    """A sentence, or the first clause of one (`early`). `filler`: said while a tool keeps us waiting."""

    text: str
    language: str
    filler: bool = False
    early: bool = False


@dataclass(frozen=True, slots=True)
class ToolStarted:
    name: str
    arguments: dict[str, Any]
    id: str


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """`after_speech` tells that the call ends or leaves once the agent has spoken."""

    id: str
    name: str
    ok: bool
    result: str
    took_ms: float
    after_speech: Literal["hang_up", "transfer"] | None = None


Thought = Say | ToolStarted | ToolFinished | Usage


class Mind:
    """The agent's thinking in one call. `now` is the call's local start, kept for all its prompts.

    `cache_key` is the call's id: it names the conversation for the model's prefix cache.
    """

    def __init__(
        self,
        agent: Agent,
        model: LanguageModel,
        tools: Registry,
        ledger: Ledger,
        control: CallControl,
        *,
        now: datetime,
        cache_key: str = "",
        limits: LimitSettings | None = None,
        first_wait_s: float = 0.3,
    ) -> None:
        self._agent = agent
        self._model = model
        self._tools = tools
        self._ledger = ledger
        self._control = control
        self._now = now
        self._cache_key = cache_key
        self._limits = limits or LimitSettings()
        self._first_wait_s = first_wait_s
        self._fillers = itertools.count()
        self._ids = itertools.count(1)

    async def prepare(self) -> None:
        """Read the conversation as it stands ahead of the caller's next words."""
        messages = [
            *prompt.system_prefix(self._agent),
            prompt.time_note(self._now, self._agent.language),
            *self._ledger.messages(self._agent.history_messages),
        ]
        try:
            await self._model.warm(messages, self._tools.specs, cache_key=self._cache_key)
        except ModelError as error:
            # The first reply will fail the same way, and then the caller is told.
            log.warning("the prompt could not be prepared", extra={"code": error.code})

    async def think(
        self, heard: str, language: str, *, committed: asyncio.Event
    ) -> AsyncGenerator[Thought, None]:
        """Answer `heard` in `language`; these words are not in the ledger yet.

        Closing the iterator stops model and tool.

        Never raises a ModelError: when the model fails for good, the caller is told and transferred.
        """
        wish = intent(heard, language)
        context = ToolContext(self._control, self._agent, language, heard)
        if wish == "operator" and self._tools.get("transfer_to_operator"):
            thoughts = self._leave(context, self._transfer_call("asked for a person"), committed)
        elif wish == "goodbye" and self._tools.get("end_call"):
            thoughts = self._leave(
                context, self._call("end_call", {"reason": "the caller said goodbye"}), committed
            )
        else:
            thoughts = self._answer(context, committed)
        async with aclosing(thoughts) as stream:
            async for thought in stream:
                yield thought

    # --- By the model --------------------------------------------------------------------------

    async def _answer(
        self, context: ToolContext, committed: asyncio.Event
    ) -> AsyncGenerator[Thought, None]:
        messages = prompt.build(
            self._agent,
            self._ledger.messages(self._agent.history_messages),
            context.heard,
            context.language,
            now=self._now,
            message_chars=self._limits.message_chars,
        )
        rules = f"{self._agent.prompt}\n{prompt.house_rules(self._agent)}"
        reply = _Reply(
            ReplyGuard(rules, [spec.name for spec in self._tools.specs]),
            context.language,
            committed,
        )
        for round_ in range(TOOL_ROUNDS + 1):
            said = len(reply.said)
            try:
                async with aclosing(self._ask(messages, reply, round_ < TOOL_ROUNDS)) as stream:
                    async for thought in stream:
                        yield thought
            except ModelError as error:
                log.warning("the language model failed in a call", extra={"code": error.code})
                async with aclosing(self._give_up(context, committed)) as stream:
                    async for thought in stream:
                        yield thought
                return
            call = reply.taken_call()
            if call is None:
                break
            async with aclosing(self._use(call, context, committed)) as stream:
                async for thought in stream:
                    if isinstance(thought, ToolFinished):
                        finished = thought
                    yield thought
            if finished.after_speech is not None:
                if not reply.said:
                    yield self._house(_farewell(finished.after_speech, context.language), context)
                return
            words = " ".join(reply.said[said:])
            messages += [
                Message("assistant", words, tool_calls=(call,)),
                Message("tool", finished.result, tool_call_id=call.id),
            ]
        if not reply.said:
            yield self._house(phrases(context.language).nothing, context)

    async def _ask(
        self, messages: Sequence[Message], reply: _Reply, tools: bool
    ) -> AsyncGenerator[Thought, None]:
        """One answer of the model, asked again while it fails before a word was said."""
        waits = backoff(self._first_wait_s, 5.0)
        for attempt in range(1, self._limits.llm_attempts + 1):
            said = len(reply.said)
            try:
                async with aclosing(self._stream(messages, reply, tools)) as stream:
                    async for thought in stream:
                        yield thought
                return
            except ModelError as error:
                last = attempt == self._limits.llm_attempts
                if last or not error.retryable or len(reply.said) > said:
                    raise
                log.info("asking the language model again", extra={"attempt": attempt})
                await asyncio.sleep(next(waits))

    async def _stream(
        self, messages: Sequence[Message], reply: _Reply, tools: bool
    ) -> AsyncGenerator[Thought, None]:
        splitter = SentenceSplitter()
        answer = self._model.reply(
            messages,
            self._tools.specs if tools else (),
            max_tokens=self._agent.max_reply_tokens,
            cache_key=self._cache_key,
            committed=reply.committed,
        )
        async with aclosing(answer) as deltas:  # type: ignore[type-var]  # an async generator in fact
            async for delta in deltas:
                match delta:
                    case TextDelta(text):
                        for say in reply.take(splitter.feed(text)):
                            yield say
                        if reply.guard.stopped:
                            log.warning("a reply was stopped", extra={"why": reply.guard.stopped})
                            return
                    case ToolCall():
                        reply.call = delta
                    case Usage():
                        yield delta
        for say in reply.take(splitter.end()):
            yield say

    # --- Tools ---------------------------------------------------------------------------------

    async def _use(
        self, call: ToolCall, context: ToolContext, committed: asyncio.Event
    ) -> AsyncGenerator[Thought, None]:
        """Run one tool, filling the silence. The last thought is its ToolFinished."""
        found = self._tools.get(call.name)
        if found is None or found.side_effects:
            await committed.wait()
        yield ToolStarted(call.name, call.arguments, call.id)
        quiet = found is not None and bool(found.speaks)
        if found is not None and found.speaks:
            words = call.arguments.get(found.speaks)
            if isinstance(words, str) and words.strip():
                yield Say(words.strip(), context.language)
        policy = self._agent.tool_policy
        work = asyncio.create_task(
            self._tools.run(call, context, policy.deadline_s), name=f"tool {call.name}"
        )
        try:
            wait_s: float | None = None if quiet else policy.filler_after_ms / 1000
            first = True
            while not (await asyncio.wait({work}, timeout=wait_s))[0]:
                yield self._filler(context.language, first=first)
                first, wait_s = False, policy.progress_every_s
            outcome: Outcome = work.result()
        finally:
            await cancel_and_wait(work)
        result = outcome.result
        yield ToolFinished(
            call.id, call.name, result.ok, result.text, outcome.took_ms, result.after_speech
        )

    def _filler(self, language: str, *, first: bool) -> Say:
        house = phrases(language)
        if first:
            # The agent's own fillers are in its first language.
            own = self._agent.fillers if language == self._agent.language else ()
            choices = own or house.filler
        else:
            choices = house.progress
        return Say(choices[next(self._fillers) % len(choices)], language, filler=True)

    # --- Without the model ---------------------------------------------------------------------

    async def _leave(
        self, context: ToolContext, call: ToolCall, committed: asyncio.Event
    ) -> AsyncGenerator[Thought, None]:
        """Say the house phrase and let the call end or go."""
        kind: Literal["hang_up", "transfer"] = "hang_up" if call.name == "end_call" else "transfer"
        yield self._house(_farewell(kind, context.language), context)
        async with aclosing(self._use(call, context, committed)) as stream:
            async for thought in stream:
                yield thought

    async def _give_up(
        self, context: ToolContext, committed: asyncio.Event
    ) -> AsyncGenerator[Thought, None]:
        house = phrases(context.language)
        if not self._agent.transfers:
            yield self._house(house.trouble_alone, context)
            return
        yield self._house(house.trouble, context)
        await committed.wait()
        self._control.plan_transfer(self._agent.transfers[0].to, "technical trouble")

    def _transfer_call(self, reason: str) -> ToolCall:
        target = self._agent.transfers[0].name
        return self._call("transfer_to_operator", {"target": target, "reason": reason})

    def _call(self, name: str, arguments: dict[str, Any]) -> ToolCall:
        return ToolCall(f"house_{next(self._ids)}", name, arguments)

    @staticmethod
    def _house(text: str, context: ToolContext) -> Say:
        return Say(text, context.language)


class _Reply:
    """What one think has said so far, and the call the model asks for."""

    def __init__(self, guard: ReplyGuard, language: str, committed: asyncio.Event) -> None:
        self.guard = guard
        self.committed = committed
        self.said: list[str] = []
        self.call: ToolCall | None = None
        self._language = language

    def taken_call(self) -> ToolCall | None:
        call, self.call = self.call, None
        return call

    def take(self, pieces: Sequence[Piece]) -> list[Say]:
        says = []
        for piece in pieces:
            text = self.guard.clean(piece.text)
            if text:
                self.said.append(text)
                says.append(Say(text, self._language, early=piece.early))
        return says


def _farewell(kind: Literal["hang_up", "transfer"], language: str) -> str:
    house = phrases(language)
    return house.farewell if kind == "hang_up" else house.transferring
