"""Which engine and which voice speaks a language for an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from engine.config import Agent
from engine.errors import ConfigError
from engine.media.frame import Pcm
from engine.tts.cache import Engine, Phrase, PhraseCache
from engine.tts.failover import Failover


class Voices:
    """TextToSpeech of one agent: each language by the engine, voice and speed its file names.

    The engines are the process's own and are shared by all agents; closing a Voices leaves them alone.
    """

    name = "voices"

    def __init__(self, agent: Agent, engines: Mapping[str, Engine]) -> None:
        """`engines` by the names of VoiceSettings.engine. Raises ConfigError when one is not there."""
        self._agent = agent
        self._engines = engines
        for language in agent.languages:
            wanted = agent.voice(language).engine
            if wanted not in engines:
                others = f"set [voices.{language}] engine to one of: {', '.join(engines)}"
                server = ["set base_url and model under [remote.tts], see docs/remote.md"]
                raise ConfigError(
                    f"agent {agent.id} speaks {language} with {wanted}, which is not available",
                    how_to_fix=[*(server if wanted == "openai" else []), others],
                )

    def speak(self, text: str, *, voice: str = "", language: str) -> AsyncIterator[Pcm]:
        """See TextToSpeech. `voice` empty means the one of the agent's file, which is the usual case."""
        settings = self._agent.voice(language)
        return self._engines[settings.engine].speak(
            text, voice=voice or settings.voice, language=language, speed=settings.speed
        )

    async def warm(self, phrases: Iterable[tuple[str, str]] = ()) -> None:
        """Load the engines of the agent's languages and make (text, language) phrases ready.

        Raises ModelError, WeightsError, ConfigError.
        """
        ready: dict[str, list[Phrase]] = {
            self._agent.voice(language).engine: [] for language in self._agent.languages
        }
        for text, language in phrases:
            settings = self._agent.voice(language)
            phrase = Phrase(text, language, settings.voice, settings.speed)
            ready.setdefault(settings.engine, []).append(phrase)
        for name, wanted in ready.items():
            engine = self._engines[name]
            if isinstance(engine, PhraseCache | Failover):
                await engine.warm(wanted)
            else:
                await engine.warm()

    async def close(self) -> None:
        """Nothing of its own to let go."""
