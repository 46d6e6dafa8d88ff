import asyncio
from typing import Any

import pytest
from pydantic import BaseModel, Field

from engine.config import Agent, TransferTarget
from engine.dialog.llm.base import ToolCall
from engine.dialog.tools.registry import Registry, ToolContext, ToolResult, tool
from engine.dialog.tools.telephony import agent_registry
from engine.errors import ConfigError, ToolError


class Control:
    def __init__(self, digits: str = "") -> None:
        self.digits = digits
        self.planned: list[tuple[str, ...]] = []

    def plan_hang_up(self, reason: str) -> None:
        self.planned.append(("hang_up", reason))

    def plan_transfer(self, to: str, reason: str) -> None:
        self.planned.append(("transfer", to, reason))

    async def collect_digits(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        self.planned.append(("digits", str(max_digits), terminator))
        return self.digits


AGENT = Agent(
    name="A",
    languages=("en",),
    greeting="Hi.",
    prompt="You sell tyres.",
    transfers=(
        TransferTarget(name="operator", to="600", description="anybody"),
        TransferTarget(name="Sales", to="queue:sales"),
    ),
)


class Order(BaseModel):
    quantity: int = Field(gt=0, lt=100)
    station: str


async def order(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
    return ToolResult(f"{arguments['quantity']} ordered at {arguments['station']}")


async def call(
    registry: Registry, name: str, control: Control | None = None, **arguments: Any
) -> ToolResult:
    context = ToolContext(control or Control(), AGENT, "en")
    return (await registry.run(ToolCall("1", name, arguments), context, 0.05)).result


async def test_what_fits_runs() -> None:
    registry = Registry([tool("order", "Order.", Order, order)])
    assert await call(registry, "order", quantity=4, station="Mill") == ToolResult(
        "4 ordered at Mill"
    )
    assert registry.specs[0].parameters["properties"]["quantity"]["exclusiveMaximum"] == 100


async def test_what_does_not_fit_is_explained_to_the_model() -> None:
    registry = Registry([tool("order", "Order.", Order, order)])
    result = await call(registry, "order", quantity=0)
    assert not result.ok
    assert "quantity: Input should be greater than 0" in result.text
    assert "station: Field required" in result.text
    unknown = await call(registry, "sell")
    assert unknown == ToolResult("There is no tool sell. The tools are: order.", ok=False)


async def test_a_tool_that_fails_or_hangs_does_not_break_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def breaks(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        raise ZeroDivisionError

    async def refuses(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        raise ToolError("The shop is closed.")

    async def hangs(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    class Nothing(BaseModel):
        pass

    registry = Registry(
        tool(name, name, Nothing, run)
        for name, run in (("breaks", breaks), ("refuses", refuses), ("hangs", hangs))
    )
    assert "failed" in (await call(registry, "breaks")).text
    assert "a tool failed" in caplog.text
    assert await call(registry, "refuses") == ToolResult("The shop is closed.", ok=False)
    assert (await call(registry, "hangs")).text == "hangs did not answer in time."


async def test_ending_and_transferring_are_only_planned() -> None:
    registry, control = agent_registry(AGENT), Control()
    assert (await call(registry, "end_call", control, reason="done")).after_speech == "hang_up"
    sales = await call(registry, "transfer_to_operator", control, target="sales", reason="prices")
    assert sales.after_speech == "transfer"
    assert control.planned == [("hang_up", "done"), ("transfer", "queue:sales", "prices")]


async def test_an_unknown_target_is_answered_with_the_known_ones() -> None:
    control = Control()
    result = await call(
        agent_registry(AGENT), "transfer_to_operator", control, target="pope", reason="x"
    )
    assert result == ToolResult(
        "There is no target 'pope'. The targets are: operator, Sales.", ok=False
    )
    assert control.planned == []


async def test_digits_are_collected() -> None:
    control = Control("4711")
    result = await call(
        agent_registry(AGENT), "collect_digits", control, prompt="Your order?", max_digits=6
    )
    assert result.text == "The caller pressed: 4 7 1 1"
    assert control.planned == [("digits", "6", "#")]
    nothing = await call(agent_registry(AGENT), "collect_digits", Control(), prompt="Your order?")
    assert not nothing.ok


def test_the_agents_file_decides_which_tools_there_are() -> None:
    alone = AGENT.model_copy(update={"transfers": ()})
    assert [spec.name for spec in agent_registry(alone).specs] == ["end_call", "collect_digits"]
    spec = agent_registry(AGENT).get("transfer_to_operator")
    assert spec is not None
    assert spec.spec.parameters["properties"]["target"]["enum"] == ["operator", "Sales"]
    with pytest.raises(ConfigError, match="no such tools: fly"):
        agent_registry(AGENT.model_copy(update={"tools": ("fly",)}))
