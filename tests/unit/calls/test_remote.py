"""Which models the settings put together: a server's, a local one, or both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.calls import remote
from engine.calls.loading import load_parts
from engine.config import Agent, Settings
from engine.dialog.llm.base import Message, TextDelta
from engine.errors import ConfigError, WeightsError
from engine.inference.weights import WeightStore
from engine.media.frame import Pcm
from engine.tts.cache import PhraseCache
from engine.tts.espeak import Espeak
from tests.peers.openai_server import Answer, openai_server
from tests.peers.speech_server import Heard, Spoken, speech_server

ROOT = Path(__file__).parents[3]
THERE = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}


def settings(models: dict[str, Any], **servers: dict[str, Any]) -> Settings:
    return Settings(models=models, remote=servers)  # type: ignore[arg-type]


def agent(*languages: str, engine: str = "openai") -> Agent:
    return Agent(
        id="r",
        name="R",
        languages=languages,  # type: ignore[arg-type]
        greeting="Hello.",
        prompt="Be brief.",
        voices={language: {"engine": engine} for language in languages},  # type: ignore[misc]
    )


def never() -> Any:
    raise AssertionError("the local model is not wanted")


@pytest.mark.parametrize(
    ("server", "key"), [({}, "base_url"), ({"base_url": THERE["base_url"]}, "model")]
)
def test_what_is_missing_is_told_with_its_name(server: dict[str, Any], key: str) -> None:
    wanted = settings({"llm": "openai", "stt": "openai"}, llm=server, stt=server, tts=server)
    made = (
        ("llm", lambda: remote.language_model(wanted, never)),
        ("stt", lambda: remote.recogniser(wanted, never)),
        ("tts", lambda: remote.voice(wanted, {})),
    )
    for section, make in made:
        with pytest.raises(ConfigError, match=f"remote.{section}.{key} is empty") as told:
            make()
        assert "docs/remote.md" in told.value.how_to_fix[0]


def test_without_servers_the_local_ones_are_taken() -> None:
    assert remote.language_model(settings({}), lambda: "local") == "local"  # type: ignore[arg-type,return-value,comparison-overlap]
    assert remote.recogniser(settings({}), lambda: "local") == "local"  # type: ignore[arg-type,return-value,comparison-overlap]


def test_the_voices_behind_a_servers_are_those_of_the_languages() -> None:
    with_both = settings({})
    without = settings({}, tts={**THERE, "fallback_to_local": False})
    speaks = agent("en", "ru")
    assert [v.engine for v in remote.voices_of(speaks, with_both)] == [
        "openai",
        "openai",
        "piper",
        "espeak",
    ]
    assert [v.engine for v in remote.voices_of(speaks, without)] == ["openai", "openai"]
    espeak = agent("en", engine="espeak")
    assert [v.engine for v in remote.voices_of(espeak, with_both)] == ["espeak"]


async def test_a_voice_has_the_local_ones_behind_it_where_that_is_wanted() -> None:
    local = {"espeak": PhraseCache(Espeak()), "piper": PhraseCache(Espeak())}
    alone = remote.voice(settings({}, tts={**THERE, "fallback_to_local": False}), local)
    assert isinstance(alone, PhraseCache)
    both = remote.voice(settings({}, tts=THERE), local)
    assert not isinstance(both, PhraseCache) and both.stats().state == "closed"
    for engine in (alone, both):
        await engine.close()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.mark.models
async def test_an_engine_without_any_local_model_but_the_turn_model(stack: AsyncExitStack) -> None:
    try:
        WeightStore(ROOT / "models" / "weights").path("smart-turn-v3.2-cpu")
    except WeightsError as error:
        pytest.skip(f"{error}; {error.how_to_fix[0]}")
    tone = np.full(2400, 2000, dtype="<i2").tobytes()
    hearing = [Heard({"text": "Good day."})] * 2
    llm = await stack.enter_async_context(openai_server(*[Answer(["Fine."])] * 9))
    stt = await stack.enter_async_context(speech_server(*hearing))
    tts = await stack.enter_async_context(speech_server(*[Spoken([tone])] * 200))
    alone = {"model": "m", "fallback_to_local": False}
    wanted = settings(
        {"folder": str(ROOT / "models" / "weights"), "llm": "openai", "stt": "openai"},
        llm={**alone, "base_url": llm.url, "extra": {"seed": 7}},
        stt={**alone, "base_url": stt.url},
        tts={**alone, "base_url": tts.url, "voice": "af", "rate": 16_000},
    )
    inner = await stack.enter_async_context(AsyncExitStack())
    parts = await load_parts(wanted, {"r": agent("en")}, inner)
    deltas = [delta async for delta in parts.llm.reply([Message("user", "Hi")])]
    assert deltas[0] == TextDelta("Fine.") and llm.requests[-1]["seed"] == 7
    speech = Pcm(np.full(8000, 900, dtype=np.int16), 8000)
    assert (await parts.stt.transcribe(speech, language="en")).text == "Good day."
    sound = [pcm async for pcm in parts.voices["r"].speak("Hello.", language="en")]
    assert sound[0].rate == 16_000 and tts.told[0]["voice"] == "af"
    said = len(tts.told)
    assert [pcm async for pcm in parts.voices["r"].speak("Hello.", language="en")]
    assert len(tts.told) == said, "the greeting is in the cache"
