from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from engine.calls.loading import _fixed_phrases, load_parts
from engine.config import Agent, ModelSettings, Settings, SilencePolicy
from engine.dialog.phrases import phrases
from engine.errors import ConfigError, WeightsError

AGENT = Agent(
    id="reception",
    name="Joe",
    languages=("en", "ru"),
    greeting="Hello.",
    prompt="x",
    fillers=("Let me see.",),
    silence=SilencePolicy(goodbye="So long."),
)


def test_every_fixed_word_of_a_call_is_made_ahead() -> None:
    fixed = _fixed_phrases(AGENT)
    assert {("Hello.", "en"), ("Let me see.", "en"), ("So long.", "en")} <= set(fixed)
    assert {(text, "ru") for text in phrases("ru").all()} <= set(fixed)
    assert all(text for text, _ in fixed)


async def test_missing_weights_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(WeightsError) as told:
            await load_parts(
                Settings(models=ModelSettings(folder=tmp_path)), {"reception": AGENT}, stack
            )
    assert told.value.how_to_fix


async def test_a_recogniser_nobody_knows_is_told(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="'ears'"):
            await load_parts(Settings(models=ModelSettings(folder=tmp_path, stt="ears")), {}, stack)
