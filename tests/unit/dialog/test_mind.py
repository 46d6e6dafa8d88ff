import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from engine.config import Agent, LimitSettings, ToolPolicy, TransferTarget
from engine.dialog.history import Ledger
from engine.dialog.llm.base import Delta, Message, TextDelta, ToolCall, ToolSpec, Usage
from engine.dialog.mind import Mind, Say, Thought, ToolFinished, ToolStarted
from engine.dialog.phrases import phrases
from engine.dialog.tools.registry import Tool, ToolContext, ToolResult, tool
from engine.dialog.tools.telephony import agent_registry
from engine.errors import ModelError, ModelTimeout

HOUSE = phrases("en")
Step = str | ToolCall | Exception | Usage


class ScriptedModel:
    """Answers reply by reply from a script; text comes in small pieces."""

    name = "scripted"

    def __init__(self, *script: Sequence[Step]) -> None:
        self.script = list(script)
        self.asked: list[tuple[list[Message], list[str], int]] = []
        self.closed = 0
        self.warmed: list[Message] = []

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] = (),
        *,
        max_tokens: int = 200,
        cache_key: str = "",
        committed: asyncio.Event | None = None,
    ) -> AsyncIterator[Delta]:
        self.asked.append((list(messages), [spec.name for spec in tools], max_tokens))
        steps = self.script.pop(0)
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, str):
                    for at in range(0, len(step), 7):
                        yield TextDelta(step[at : at + 7])
                        await asyncio.sleep(0)
                else:
                    yield step
        finally:
            self.closed += 1

    async def warm(
        self,
        messages: Sequence[Message] = (),
        tools: Sequence[ToolSpec] = (),
        *,
        cache_key: str = "",
    ) -> None:
        self.warmed = list(messages)

    async def forget(self, cache_key: str) -> None:
        pass

    async def close(self) -> None:
        pass


class Control:
    def __init__(self) -> None:
        self.planned: list[tuple[str, ...]] = []

    def plan_hang_up(self, reason: str) -> None:
        self.planned.append(("hang_up", reason))

    def plan_transfer(self, to: str, reason: str) -> None:
        self.planned.append(("transfer", to, reason))

    async def collect_digits(self, max_digits: int, terminator: str, timeout_s: float) -> str:
        return "12"


def agent(**changes: Any) -> Agent:
    values: dict[str, Any] = {
        "name": "A",
        "languages": ("en", "ru"),
        "greeting": "Hi.",
        "prompt": "You sell tyres. Four wheels cost 60 euros.",
        "transfers": (TransferTarget(name="operator", to="600"),),
        "tool_policy": ToolPolicy(deadline_s=5, filler_after_ms=10, progress_every_s=0.01),
        "fillers": ("Let me see.",),
    }
    return Agent(**(values | changes))


class World:
    def __init__(self, model: ScriptedModel, *tools: Tool, **changes: Any) -> None:
        self.agent = agent(**changes)
        self.model = model
        self.control = Control()
        self.ledger = Ledger(origin=0.0)
        self.committed = asyncio.Event()
        names = (*self.agent.tools, *(item.spec.name for item in tools))
        registry = agent_registry(self.agent.model_copy(update={"tools": names}), *tools)
        self.mind = Mind(
            self.agent,
            model,
            registry,
            self.ledger,
            self.control,
            now=datetime(2025, 11, 21, 14, 5),
            limits=LimitSettings(llm_attempts=3),
            first_wait_s=0.001,
        )

    async def think(
        self, heard: str, language: str = "en", *, commit: bool = True
    ) -> list[Thought]:
        if commit:
            self.committed.set()
        return [item async for item in self.mind.think(heard, language, committed=self.committed)]


def said(thoughts: Sequence[Thought]) -> list[str]:
    return [thought.text for thought in thoughts if isinstance(thought, Say)]


class Nothing(BaseModel):
    pass


def stock_tool(release: asyncio.Event) -> Tool:
    async def run(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        await release.wait()
        return ToolResult("It is in stock.")

    return tool("stock", "Look into the stock.", Nothing, run)


async def test_sentences_stream_out_and_nothing_is_written_down() -> None:
    world = World(
        ScriptedModel(["Four wheels cost 60 euros. ", "**Anything else?**", Usage(9, 3, 2)])
    )
    thoughts = await world.think("What does it cost?")
    assert thoughts == [
        Say("Four wheels cost 60 euros.", "en"),
        Usage(9, 3, 2),
        Say("Anything else?", "en"),
    ]
    assert world.ledger.entries == []
    messages, tools, max_tokens = world.model.asked[0]
    assert messages[-1] == Message("user", "What does it cost?")
    assert tools == ["end_call", "transfer_to_operator", "collect_digits"]
    assert max_tokens == world.agent.max_reply_tokens


async def test_what_is_prepared_is_the_beginning_of_the_prompt() -> None:
    world = World(ScriptedModel(["Yes."]))
    await world.mind.prepare()
    await world.think("Open?")
    assert len(world.model.warmed) == 2
    assert world.model.asked[0][0][:2] == world.model.warmed


async def test_a_guess_runs_no_tool_until_the_turn_is_confirmed() -> None:
    call = ToolCall("c1", "end_call", {"reason": "done"})
    world = World(ScriptedModel(["Glad to help. ", call]))
    thoughts: list[Thought] = []
    spoke = asyncio.Event()

    async def think() -> None:
        async for thought in world.mind.think("That was it", "en", committed=world.committed):
            thoughts.append(thought)
            spoke.set()

    task = asyncio.create_task(think())
    await spoke.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert thoughts == [Say("Glad to help.", "en")] and world.control.planned == []
    world.committed.set()
    await task
    assert thoughts[1] == ToolStarted("end_call", {"reason": "done"}, "c1")
    assert isinstance(thoughts[2], ToolFinished) and thoughts[2].after_speech == "hang_up"
    assert world.control.planned == [("hang_up", "done")]
    assert len(world.model.asked) == 1


async def test_a_silent_transfer_by_the_model_is_announced_by_the_house() -> None:
    call = ToolCall("c1", "transfer_to_operator", {"target": "operator", "reason": "prices"})
    world = World(ScriptedModel([call]))
    assert said(await world.think("I have a difficult question")) == [HOUSE.transferring]
    assert world.control.planned == [("transfer", "600", "prices")]


async def test_a_slow_tool_is_filled_and_its_result_goes_back_to_the_model() -> None:
    release = asyncio.Event()
    stock = stock_tool(release)
    world = World(ScriptedModel([ToolCall("c1", "stock", {})], ["Yes, we have it."]), stock)
    world.committed.set()
    says: list[Say] = []
    async for thought in world.mind.think("Is it in stock?", "en", committed=world.committed):
        if isinstance(thought, Say):
            says.append(thought)
        if len(says) == 3:
            release.set()
    assert [say.filler for say in says] == [*[True] * (len(says) - 2), False, False]
    assert says[0].text == "Let me see." and says[1].text in HOUSE.progress
    assert [say.text for say in says[-2:]] == ["Yes,", "we have it."]
    answer = world.model.asked[1][0][-2:]
    assert answer == [
        Message("assistant", "", tool_calls=(ToolCall("c1", "stock", {}),)),
        Message("tool", "It is in stock.", tool_call_id="c1"),
    ]


async def test_wrong_arguments_go_back_to_the_model() -> None:
    wrong = ToolCall("c1", "transfer_to_operator", {"target": "pope", "reason": "x"})
    right = ToolCall("c2", "transfer_to_operator", {"target": "operator", "reason": "x"})
    world = World(ScriptedModel([wrong], [right]))
    thoughts = await world.think("Something odd")
    finished = [item for item in thoughts if isinstance(item, ToolFinished)]
    assert [item.ok for item in finished] == [False, True]
    assert "The targets are: operator" in world.model.asked[1][0][-1].content


async def test_tools_go_round_three_times_at_most() -> None:
    release = asyncio.Event()
    release.set()
    stock = stock_tool(release)
    rounds = [[ToolCall(f"c{n}", "stock", {})] for n in range(3)]
    world = World(ScriptedModel(*rounds, ["It is there."]), stock)
    assert said(await world.think("Is it in stock?")) == ["It is there."]
    assert world.model.asked[-1][1] == []


async def test_digits_are_asked_for_aloud_and_without_filler() -> None:
    call = ToolCall("c1", "collect_digits", {"prompt": "Please key in your order number."})
    world = World(ScriptedModel([call], ["Thank you, order one two."]))
    assert said(await world.think("Where is my order?")) == [
        "Please key in your order number.",
        "Thank you,",
        "order one two.",
    ]


async def test_asking_for_a_person_does_not_ask_the_model() -> None:
    world = World(ScriptedModel())
    thoughts = await world.think("Соедините с оператором", "ru")
    assert said(thoughts) == [phrases("ru").transferring]
    assert world.control.planned == [("transfer", "600", "asked for a person")]
    world = World(ScriptedModel(["Nobody is here."]), transfers=())
    assert said(await world.think("Operator, please")) == ["Nobody is here."]


async def test_goodbye_is_answered_at_once() -> None:
    world = World(ScriptedModel())
    assert said(await world.think("Thanks, bye!")) == [HOUSE.farewell]
    assert world.control.planned == [("hang_up", "the caller said goodbye")]


async def test_a_model_that_recovers_is_asked_again_before_a_word_is_said() -> None:
    world = World(ScriptedModel([ModelError("oom")], [ModelTimeout("slow")], ["Here I am."]))
    assert said(await world.think("Hello?")) == ["Here I am."]
    assert world.control.planned == []


async def test_a_model_that_fails_gives_the_call_to_a_person() -> None:
    world = World(ScriptedModel(*[[ModelError("oom")]] * 3))
    assert said(await world.think("Hello?")) == [HOUSE.trouble]
    assert world.control.planned == [("transfer", "600", "technical trouble")]
    alone = World(ScriptedModel(*[[ModelError("oom")]] * 3), transfers=())
    assert said(await alone.think("Hello?")) == [HOUSE.trouble_alone]


async def test_after_words_were_said_a_failure_is_not_repeated() -> None:
    world = World(ScriptedModel(["We are open. And ", ModelError("oom")]))
    assert said(await world.think("Open?")) == ["We are open.", HOUSE.trouble]
    assert len(world.model.asked) == 1


async def test_nothing_to_say_is_said_politely() -> None:
    world = World(ScriptedModel([" \n"]))
    assert said(await world.think("Hm?", "ru")) == [phrases("ru").nothing]


async def test_a_reply_in_circles_is_cut_and_the_model_stopped() -> None:
    world = World(ScriptedModel(["We are open. " * 50]))
    assert said(await world.think("Open?")) == ["We are open."]
    assert world.model.closed == 1


async def test_closing_stops_the_tool_and_the_model() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def run(context: ToolContext, arguments: dict[str, Any]) -> ToolResult:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    world = World(ScriptedModel([ToolCall("c1", "hang", {})]), tool("hang", "Hang.", Nothing, run))
    world.committed.set()
    async with aclosing(world.mind.think("Go", "en", committed=world.committed)) as thoughts:
        async for _ in thoughts:
            if started.is_set():
                break
    assert stopped.is_set() and world.model.closed == 1
