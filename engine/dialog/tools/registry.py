"""Tools: what the model may do, checked before it is done.

A pydantic model describes a tool's arguments: it makes the schema the model sees and checks what the
model sends. What is wrong goes back to the model as a sentence it can act on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from engine.config import Agent
from engine.dialog.llm.base import ToolCall, ToolSpec
from engine.dialog.llm.tool_format import inline_refs
from engine.errors import ConfigError, ToolError

log = logging.getLogger(__name__)


class CallControl(Protocol):
    """What tools may do to the call. The call session implements it."""

    def plan_hang_up(self, reason: str) -> None:
        """Remember to hang up once the agent has spoken to the end."""
        ...

    def plan_transfer(self, to: str, reason: str) -> None:
        """Remember to transfer to `to` (an extension, or queue:NAME) once the agent has spoken."""
        ...

    async def collect_digits(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        """Keys the caller presses, without the terminator: until it, `max_digits`, or the timeout.

        What the agent is saying is finished first; the first key silences it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The call a tool acts in. `heard` is what the caller said to bring the tool about."""

    control: CallControl
    agent: Agent
    language: str
    heard: str = ""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`text` goes to the model. `after_speech` says that the call leaves the agent: no more is asked."""

    text: str
    after_speech: Literal["hang_up", "transfer"] | None = None
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `arguments` made `spec.parameters` and checks what arrives; see `tool`.

    `side_effects` False lets it run while the caller's turn is still a guess.
    `speaks` names the argument the caller hears before it runs; such a tool then waits for the caller,
    so no filler is said over it, and `deadline_s` replaces the agent's.
    """

    spec: ToolSpec
    run: Callable[[ToolContext, dict[str, Any]], Awaitable[ToolResult]]
    side_effects: bool
    arguments: type[BaseModel]
    speaks: str = ""
    deadline_s: float | None = None


def tool(
    name: str,
    description: str,
    arguments: type[BaseModel],
    run: Callable[[ToolContext, dict[str, Any]], Awaitable[ToolResult]],
    *,
    side_effects: bool = True,
    speaks: str = "",
    deadline_s: float | None = None,
) -> Tool:
    """A tool whose schema comes from its arguments' model."""
    schema = inline_refs(arguments.model_json_schema())
    schema.pop("description", None)
    spec = ToolSpec(name, description, schema)
    return Tool(spec, run, side_effects, arguments, speaks, deadline_s)


@dataclass(frozen=True, slots=True)
class Outcome:
    result: ToolResult
    took_ms: float


class Registry:
    """The tools of one agent."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {item.spec.name: item for item in tools}

    @property
    def specs(self) -> list[ToolSpec]:
        return [item.spec for item in self._tools.values()]

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    def only(self, names: Sequence[str]) -> Registry:
        """The tools of these names, in this order. Raises ConfigError for a name nobody knows."""
        unknown = [name for name in names if name not in self._tools]
        if unknown:
            raise ConfigError(
                f"no such tools: {', '.join(unknown)}",
                how_to_fix=[f"choose from: {', '.join(sorted(self._tools))}"],
            )
        return Registry(self._tools[name] for name in names)

    async def run(self, call: ToolCall, context: ToolContext, deadline_s: float) -> Outcome:
        """Check the arguments, then run within the deadline. Never raises but for cancellation."""
        started = time.monotonic()
        try:
            result = await self._run(call, context, deadline_s)
        except ToolError as error:
            result = ToolResult(error.message, ok=False)
        except TimeoutError:
            log.warning("a tool missed its deadline", extra={"tool": call.name})
            result = ToolResult(f"{call.name} did not answer in time.", ok=False)
        # A tool is anybody's code; the call must survive it, and the log must say what happened.
        except Exception:
            log.exception("a tool failed", extra={"tool": call.name})
            result = ToolResult(
                f"{call.name} failed. Tell the caller, and offer a person.", ok=False
            )
        return Outcome(result, (time.monotonic() - started) * 1000)

    async def _run(self, call: ToolCall, context: ToolContext, deadline_s: float) -> ToolResult:
        found = self._tools.get(call.name)
        if found is None:
            known = ", ".join(sorted(self._tools)) or "none"
            raise ToolError(f"There is no tool {call.name}. The tools are: {known}.")
        try:
            arguments = found.arguments.model_validate(call.arguments)
        except ValidationError as error:
            raise ToolError(corrections(call.name, error)) from error
        async with asyncio.timeout(found.deadline_s or deadline_s):
            return await found.run(context, arguments.model_dump())


def corrections(name: str, error: ValidationError) -> str:
    """What was wrong with a tool's arguments, for the model to do better."""
    lines = [
        f"{'.'.join(str(part) for part in item['loc']) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    return f"{name} was not run. Correct the arguments: {'; '.join(lines)}."
