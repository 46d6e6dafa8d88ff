"""The tools every call has: end it, give it to a person, take digits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.config import Agent
from engine.dialog.tools.registry import Registry, Tool, ToolContext, ToolResult, tool
from engine.errors import ToolError

DIGITS_TIMEOUT_S = 15.0
_Reason = Annotated[str, Field(max_length=120, description="why, in a few words")]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EndCall(_Arguments):
    reason: _Reason


class Transfer(_Arguments):
    target: str = Field(description="who to connect to")
    reason: _Reason


class CollectDigits(_Arguments):
    prompt: str = Field(max_length=200, description="what to ask the caller to key in")
    max_digits: int = Field(default=20, ge=1, le=40)
    terminator: Literal["#", "*", ""] = "#"


def telephony_tools(agent: Agent) -> list[Tool]:
    """The telephony tools as this agent may use them; no transfer where it has no targets."""
    tools = [
        tool(
            "end_call",
            "Hang up. Only when the caller says goodbye.",
            EndCall,
            _end_call,
        ),
        tool(
            "collect_digits",
            "Ask the caller to key in a number on the telephone: an order, a card, a code.",
            CollectDigits,
            _collect_digits,
            speaks="prompt",
            deadline_s=DIGITS_TIMEOUT_S * 3,
        ),
    ]
    if agent.transfers:
        tools.append(_transfer_tool(agent))
    return tools


def agent_registry(agent: Agent, *more: Tool) -> Registry:
    """The agent's tools, telephony ones and `more`, in the order of its file. Raises ConfigError."""
    known = [*telephony_tools(agent), *more]
    names = [name for name in agent.tools if name != "transfer_to_operator" or agent.transfers]
    return Registry(known).only(names)


def _transfer_tool(agent: Agent) -> Tool:
    described = "; ".join(
        f"{target.name}: {target.description or target.name}" for target in agent.transfers
    )
    made = tool(
        "transfer_to_operator",
        f"Connect the caller to a person. Targets: {described}.",
        Transfer,
        _transfer,
    )
    # The grammar then lets the model write nothing but a known target.
    made.spec.parameters["properties"]["target"]["enum"] = [item.name for item in agent.transfers]
    return made


async def _end_call(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
    context.control.plan_hang_up(arguments["reason"])
    return ToolResult("The call ends after your last words.", after_speech="hang_up")


async def _transfer(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
    wanted = arguments["target"].strip().casefold()
    for target in context.agent.transfers:
        if wanted in (target.name.casefold(), target.to.casefold()):
            context.control.plan_transfer(target.to, arguments["reason"])
            return ToolResult(
                f"The caller is connected to {target.name} after your last words.",
                after_speech="transfer",
            )
    names = ", ".join(target.name for target in context.agent.transfers)
    raise ToolError(f"There is no target {arguments['target']!r}. The targets are: {names}.")


async def _collect_digits(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
    digits = await context.control.collect_digits(
        arguments["max_digits"], arguments["terminator"], DIGITS_TIMEOUT_S
    )
    if not digits:
        return ToolResult("The caller pressed no keys.", ok=False)
    return ToolResult(f"The caller pressed: {' '.join(digits)}")
