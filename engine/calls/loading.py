"""Loads and warms every model before the first ring."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from engine.calls import remote
from engine.calls.parts import Parts
from engine.config import Agent, Settings
from engine.dialog import prompt
from engine.dialog.llm.base import LanguageModel
from engine.dialog.llm.llama_cpp import LlamaCpp
from engine.dialog.phrases import phrases
from engine.dialog.tools.telephony import agent_registry
from engine.errors import ConfigError
from engine.inference.pool import Workers
from engine.inference.weights import WeightStore
from engine.stt.base import SpeechToText
from engine.stt.faster_whisper import LANE as STT_LANE
from engine.stt.faster_whisper import FasterWhisper
from engine.stt.onnx_asr import OnnxAsr
from engine.tts.cache import Engine, PhraseCache
from engine.tts.espeak import Espeak
from engine.tts.piper import Piper
from engine.tts.voices import Voices
from engine.turns.semantic import SmartTurn
from engine.turns.vad import make_vad
from engine.turns.vad_batch import SileroBatch

log = logging.getLogger(__name__)


async def load_parts(
    settings: Settings, agents: Mapping[str, Agent], stack: AsyncExitStack
) -> Parts:
    """Everything the agents need. Raises WeightsError and ConfigError before anything is loaded."""
    started = time.monotonic()
    models = settings.models
    store = WeightStore(models.folder)
    workers = Workers({STT_LANE: models.stt_at_once})
    stack.push_async_callback(workers.close)
    stt = remote.recogniser(settings, lambda: _hearing(settings, store, workers))
    turn_model = SmartTurn(store.path(models.turn_model), workers)
    llm = remote.language_model(settings, lambda: _thinking(settings, store, workers))
    engines = _voices(settings, store, workers)
    if any(
        voice.engine == "piper"
        for agent in agents.values()
        for voice in remote.voices_of(agent, settings)
    ):
        store.path(models.tts_model)
    vads = SileroBatch()
    stack.push_async_callback(vads.close)
    if models.vad == "silero":
        await asyncio.to_thread(vads.load)
    for closing in (stt.close, llm.close, *(engine.close for engine in engines.values())):
        stack.push_async_callback(closing)

    async def prepare(agents: Mapping[str, Agent]) -> Mapping[str, Voices]:
        voices = {name: Voices(agent, engines) for name, agent in agents.items()}
        for name, agent in agents.items():
            await voices[name].warm(_fixed_phrases(agent))
            await llm.warm(prompt.system_prefix(agent), agent_registry(agent).specs)
        return voices

    await asyncio.gather(stt.warm(), turn_model.warm(), llm.warm())
    voices = await prepare(agents)
    log.info("models are warm", extra={"took_s": round(time.monotonic() - started, 1)})
    return Parts(
        stt=stt,
        llm=llm,
        voices=voices,
        turn_model=turn_model,
        make_vad=lambda rate: make_vad(models.vad, rate, vads),
        limits=settings.limits,
        prepare=prepare,
        spare=lambda: not workers.full(STT_LANE),
    )


def _thinking(settings: Settings, store: WeightStore, workers: Workers) -> LanguageModel:
    models = settings.models
    return LlamaCpp(
        store.path(models.llm_model),
        workers,
        threads=models.llm_threads,
        context=models.llm_context,
        cells=models.llm_cells,
        gpu_layers=-1 if models.profile == "gpu" else 0,
        timeout_s=settings.limits.llm_timeout_s,
    )


def _voices(settings: Settings, store: WeightStore, workers: Workers) -> dict[str, Engine]:
    """By the names of VoiceSettings.engine; `openai` only where its server is told."""
    piper = Piper(store, workers, default_voice=settings.models.tts_model)
    engines: dict[str, Engine] = {"piper": PhraseCache(piper), "espeak": PhraseCache(Espeak())}
    if settings.remote.tts.base_url:
        engines["openai"] = remote.voice(settings, engines)
    return engines


def _hearing(settings: Settings, store: WeightStore, workers: Workers) -> SpeechToText:
    """`openai`: the one behind it."""
    models = settings.models
    if models.stt in ("faster-whisper", "openai"):
        return FasterWhisper(
            store.path(models.stt_model),
            workers,
            window_s=models.stt_window_s,
            threads=models.stt_threads,
            at_once=models.stt_at_once,
            device="cuda" if models.profile == "gpu" else "cpu",
        )
    if models.stt == "onnx-asr":
        return OnnxAsr(models.stt_model, workers)
    raise ConfigError(
        f"models.stt = {models.stt!r} is not known",
        how_to_fix=["use faster-whisper, onnx-asr or openai"],
    )


def _fixed_phrases(agent: Agent) -> list[tuple[str, str]]:
    """What every call may say word for word: made once, here."""
    silence = agent.silence
    own = [agent.greeting, agent.record_notice, *agent.fillers]
    own += [silence.reprompt, silence.still_there, silence.goodbye]
    fixed = [(text, agent.language) for text in own if text]
    return fixed + [(text, lang) for lang in agent.languages for text in phrases(lang).all()]
