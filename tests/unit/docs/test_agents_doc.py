"""docs/agents.md lists every key of an agent's file with its real default, and nothing else."""

from __future__ import annotations

import tomllib

from engine.config import Agent, TransferTarget, VoiceSettings
from tests.unit.docs.reference import DOCS, blocks_of, declared, documented

PAGE = DOCS / "agents.md"


def test_every_key_is_documented_with_its_default() -> None:
    wanted = dict(declared(Agent, {"voices": VoiceSettings, "transfers": TransferTarget}))
    del wanted["id"]  # the file's name
    assert documented(PAGE) == wanted


def test_the_example_is_valid_and_shows_nothing_that_goes_without_saying() -> None:
    (example,) = blocks_of(PAGE, "toml")
    agent = Agent(**tomllib.loads(example))
    assert agent.record and agent.transfers
    default = Agent(
        name=agent.name, languages=agent.languages, greeting=agent.greeting, prompt=agent.prompt
    )
    given = agent.model_dump(exclude_unset=True)
    required = {"name", "languages", "greeting", "prompt"}
    assert not [key for key in given if key not in required and given[key] == getattr(default, key)]
