"""The models that run on other machines, with the local ones behind them where the settings want that."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.config import Agent, RemoteSettings, Settings, VoiceSettings, local_voice
from engine.dialog.llm import failover as llm_failover
from engine.dialog.llm import openai_compatible as llm_server
from engine.dialog.llm.base import LanguageModel
from engine.errors import ConfigError
from engine.inference.model_server import ModelServer
from engine.stt import failover as stt_failover
from engine.stt import openai_compatible as stt_server
from engine.stt.base import SpeechToText
from engine.tts import failover as tts_failover
from engine.tts import openai_compatible as tts_server
from engine.tts.cache import Engine, PhraseCache


def language_model(settings: Settings, local: Callable[[], LanguageModel]) -> LanguageModel:
    """What `models.llm` names; `local` makes the one in this process. Raises ConfigError."""
    if settings.models.llm != "openai":
        return local()
    remote = settings.remote.llm
    model = llm_server.OpenAiCompatible(
        server_of("llm", remote),
        remote.model,
        extra=remote.extra,
        first_token_s=remote.first_token_s,
        timeout_s=settings.limits.llm_timeout_s,
        patient=not remote.fallback_to_local,
    )
    return llm_failover.Failover(model, local()) if remote.fallback_to_local else model


def recogniser(settings: Settings, local: Callable[[], SpeechToText]) -> SpeechToText:
    """What `models.stt` names; `local` makes the one in this process. Raises ConfigError."""
    if settings.models.stt != "openai":
        return local()
    remote = settings.remote.stt
    model = stt_server.OpenAiCompatible(
        server_of("stt", remote), remote.model, deadline_s=remote.deadline_s
    )
    return stt_failover.Failover(model, local()) if remote.fallback_to_local else model


def voice(settings: Settings, local: Mapping[str, Engine]) -> PhraseCache | tts_failover.Failover:
    """The engine `openai` of the agents' voices; `local` are those in this process. Raises ConfigError."""
    remote = settings.remote.tts
    engine = PhraseCache(
        tts_server.OpenAiCompatible(
            server_of("tts", remote),
            remote.model,
            default_voice=remote.voice,
            rate=remote.rate,
            first_sound_s=remote.first_sound_s,
        )
    )
    if not remote.fallback_to_local:
        return engine
    return tts_failover.Failover(engine, lambda language: local[local_voice(language).engine])


def voices_of(agent: Agent, settings: Settings) -> list[VoiceSettings]:
    """Whoever may speak for an agent, those behind a server's voice included."""
    own = [agent.voice(language) for language in agent.languages]
    if not settings.remote.tts.fallback_to_local:
        return own
    return own + [
        local_voice(lang) for lang in agent.languages if agent.voice(lang).engine == "openai"
    ]


def server_of(section: str, remote: RemoteSettings) -> ModelServer:
    """Raises ConfigError where the address or the model is not told."""
    for key in ("base_url", "model"):
        if not getattr(remote, key):
            raise ConfigError(
                f"remote.{section}.{key} is empty, and a model server is to be asked",
                how_to_fix=[f"set {key} under [remote.{section}], see docs/remote.md"],
            )
    return ModelServer(remote.base_url, api_key=remote.api_key.get_secret_value())
