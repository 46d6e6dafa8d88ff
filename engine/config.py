"""Settings: `offhook.toml`, then `OFFHOOK_*` in the environment. A key nobody knows is an error, in both.

Nested keys in the environment are joined by two underscores: OFFHOOK_AMI__SECRET=…
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from engine.environment import refuse_unknown
from engine.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AudioSocketSettings(Section):
    host: str = "127.0.0.1"
    port: int = 9092
    advertise: str = ""
    """host:port Asterisk should dial, where it is not the one we listen on."""
    uuid_ttl_s: float = 10.0
    """A UUID minted by the AGI step is refused after this many seconds."""


class WebSocketSettings(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 9094


class AgiSettings(Section):
    host: str = "127.0.0.1"
    port: int = 4573


class AmiSettings(Section):
    host: str = "127.0.0.1"
    port: int = 5038
    username: str = "offhook"
    secret: SecretStr = SecretStr("")


class HttpSettings(Section):
    host: str = "127.0.0.1"
    port: int = 8080


class RemoteSettings(Section):
    """A server with OpenAI's interface, asked in place of a model of our own."""

    base_url: str = ""
    api_key: SecretStr = SecretStr("")
    model: str = ""
    fallback_to_local: bool = True
    """The local model stays loaded and answers where the server fails."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parts = urlsplit(value)
        plain = parts.hostname and not (parts.username or parts.query or parts.fragment)
        if value and (parts.scheme not in ("http", "https") or not plain):
            raise ValueError("must look like http://host:port/v1; a key belongs in api_key")
        return value


class RemoteLlmSettings(RemoteSettings):
    first_token_s: float = Field(default=2.0, gt=0)
    extra: dict[str, Any] = {}
    """Sent with each request, such as chat_template_kwargs = {enable_thinking = false}."""


class RemoteSttSettings(RemoteSettings):
    deadline_s: float = Field(default=3.0, gt=0)


class RemoteTtsSettings(RemoteSettings):
    voice: str = ""
    rate: int = Field(default=24_000, ge=8000, le=48_000)
    """Of the server's `pcm`, in samples per second."""
    first_sound_s: float = Field(default=2.0, gt=0)


class Remotes(Section):
    llm: RemoteLlmSettings = RemoteLlmSettings()
    stt: RemoteSttSettings = RemoteSttSettings()
    tts: RemoteTtsSettings = RemoteTtsSettings()


class ModelSettings(Section):
    folder: Path = Path("models/weights")
    profile: Literal["embedded", "cpu", "gpu"] = "embedded"
    stt: str = "faster-whisper"
    """faster-whisper | onnx-asr | openai"""
    stt_model: str = "whisper-base-int8"
    stt_window_s: float = 10.0
    """The shortest window Whisper's encoder sees, silence after the utterance included. 0: always 30 s."""
    stt_threads: int = 1
    """Threads for one utterance…"""
    stt_at_once: int = 2
    """…and utterances heard at the same time."""
    llm: Literal["llama.cpp", "openai"] = "llama.cpp"
    llm_model: str = "qwen2.5-coder-0.5b-instruct-iq4_nl"
    llm_threads: int = 2
    llm_context: int = 4096
    """Tokens of one conversation: prompt and answer."""
    llm_cells: int = 16_384
    """Tokens kept for all conversations together; what calls of one agent begin with counts once."""
    tts_model: str = "en_US-joe-medium"
    vad: Literal["silero", "webrtc"] = "silero"
    turn_model: str = "smart-turn-v3.2-cpu"


class LimitSettings(Section):
    calls: int = 8
    """More calls than this at once are sent to the fallback by the AGI step."""
    call_s: float = 1800.0
    drain_s: float = 120.0
    """On SIGTERM: how long active calls may go on before the agent says goodbye."""
    llm_timeout_s: float = 30.0
    llm_attempts: int = 3
    message_chars: int = 4000


class RecordingSettings(Section):
    format: Literal["wav", "opus"] = "wav"
    """opus: encoded after the call, where `opusenc` is installed."""


class RouteSettings(Section):
    """Which agent answers which called number. `number` is exact, or a prefix ending in `*`."""

    number: str
    agent: str
    when_full: str = "menu"
    """What happens when no agent can take the call: hangup | menu | message | queue:NAME | dial:EXTEN"""
    record: bool | None = None
    """Overrides the agent's own setting."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="OFFHOOK_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    data: Path = Path("var")
    """Recordings, the database, caches."""
    database: str = ""
    """SQLAlchemy URL; empty means SQLite inside `data`."""
    agents: Path = Path("agents")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False
    audiosocket: AudioSocketSettings = AudioSocketSettings()
    websocket: WebSocketSettings = WebSocketSettings()
    agi: AgiSettings = AgiSettings()
    ami: AmiSettings = AmiSettings()
    http: HttpSettings = HttpSettings()
    models: ModelSettings = ModelSettings()
    remote: Remotes = Remotes()
    limits: LimitSettings = LimitSettings()
    recording: RecordingSettings = RecordingSettings()
    routes: tuple[RouteSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment wins over the file, whose values arrive as init arguments.
        return env_settings, init_settings

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite+aiosqlite:///{self.data / 'offhook.sqlite3'}"


# --- Agents ------------------------------------------------------------------------------------


class TurnPolicy(Section):
    """How patient the agent is. All times in milliseconds."""

    speculate_ms: int = 80
    """A pause this long starts transcription and thinking, before the turn is known to be over."""
    judge_ms: int = 200
    """After this much silence the turn model is asked; with less it has nothing to go by."""
    min_silence_ms: int = 350
    """The turn is over after this much silence when the turn model is sure the caller has finished."""
    max_silence_ms: int = 1200
    """…and after this much whatever the turn model thinks."""
    complete_probability: float = 0.9
    adaptive: bool = True
    """Wait longer for a caller who pauses much or dictates, less for a yes or no that was asked for."""
    barge_in: bool = True
    barge_in_ms: int = 120
    """Speech over the agent must last this long to silence it."""
    resume_ms: int = 1000
    """A false interruption is resumed after this much silence."""
    backchannels: tuple[str, ...] = ()
    """Words that do not interrupt, beside the ones known for each language."""


class SilencePolicy(Section):
    """Nobody speaks: ask again, ask whether anyone is there, say goodbye. Empty words: the language's own."""

    reprompt_s: float = 10.0
    still_there_s: float = 10.0
    goodbye_s: float = 10.0
    reprompt: str = ""
    still_there: str = ""
    goodbye: str = ""


class ToolPolicy(Section):
    deadline_s: float = 10.0
    filler_after_ms: int = 800
    progress_every_s: float = 5.0


class VoiceSettings(Section):
    engine: Literal["piper", "espeak", "openai"] = "piper"
    voice: str = ""
    """Empty: the profile's voice (piper), the language's own (espeak), remote.tts.voice (openai)."""
    speed: float = 1.0


class TransferTarget(Section):
    """Where a caller can be sent. `to` is an extension in the dialplan's context, or queue:NAME."""

    name: str
    to: str
    description: str = ""


class Agent(Section):
    """One agent, from one TOML file. The file's name without `.toml` is its id."""

    id: str = ""
    name: str
    languages: tuple[Literal["en", "ru", "uk"], ...] = Field(min_length=1)
    greeting: str
    prompt: str
    voices: dict[str, VoiceSettings] = {}
    tools: tuple[str, ...] = ("end_call", "transfer_to_operator", "collect_digits")
    transfers: tuple[TransferTarget, ...] = ()
    record: bool = False
    record_notice: str = ""
    """Said before the greeting when the call is recorded. Required with `record`."""
    turns: TurnPolicy = TurnPolicy()
    silence: SilencePolicy = SilencePolicy()
    tool_policy: ToolPolicy = ToolPolicy()
    max_reply_tokens: int = 120
    history_messages: int = Field(default=20, ge=2, le=40)
    fillers: tuple[str, ...] = ()
    min_confidence: float = 0.35
    """Below this the caller is asked to repeat; after two such requests the call is transferred."""
    fallback: str = "menu"
    """OFFHOOK_NEXT when the engine fails in mid-call: hangup | menu | message | queue:NAME | dial:EXTEN"""

    @model_validator(mode="after")
    def _recording_is_announced(self) -> Agent:
        if self.record and not self.record_notice.strip():
            raise ValueError("`record = true` needs `record_notice`: callers must be told")
        return self

    @property
    def language(self) -> str:
        """The language the agent speaks first."""
        return self.languages[0]

    @property
    def version(self) -> str:
        """Names exactly this agent: 12 hexadecimal digits that change with any of its values."""
        content = self.model_dump(mode="json")
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def voice(self, language: str) -> VoiceSettings:
        return self.voices.get(language) or local_voice(language)


def local_voice(language: str) -> VoiceSettings:
    """Who speaks a language where nothing is said about it, and where the server's voice fails."""
    return VoiceSettings() if language == "en" else VoiceSettings(engine="espeak")


# --- Loading -----------------------------------------------------------------------------------


def load_settings(path: Path | None = None) -> Settings:
    """Read `path`, else $OFFHOOK_CONFIG, else ./offhook.toml or /etc/offhook/offhook.toml where present.

    Raises ConfigError with one line for each wrong key.
    """
    refuse_unknown(Settings, os.environ)
    if path is None and (named := os.environ.get("OFFHOOK_CONFIG")):
        path = Path(named)
    if path is None:
        candidates = (Path("offhook.toml"), Path("/etc/offhook/offhook.toml"))
        path = next((p for p in candidates if _is_there(p)), None)
    values = _read_toml(path) if path else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        where = f"{path} or the environment" if path else "the environment"
        raise ConfigError(
            f"not valid in {where}:\n{_lines(error)}",
            how_to_fix=["correct the keys named above; docs/settings.md lists them all"],
        ) from error
    except SettingsError as error:
        raise ConfigError(
            f"the environment is not valid: {error}",
            how_to_fix=["a section or a list is written as JSON there, see docs/settings.md"],
        ) from error


def load_agent(path: Path) -> Agent:
    """Read one agent file. Raises ConfigError."""
    try:
        return Agent(**{**_read_toml(path), "id": path.stem})
    except ValidationError as error:
        raise ConfigError(
            f"agent {path} is not valid:\n{_lines(error)}",
            how_to_fix=["correct the keys named above; docs/agents.md describes an agent file"],
        ) from error


def load_agents(folder: Path) -> dict[str, Agent]:
    """All agents of a folder by id. Raises ConfigError, also when there is none."""
    agents = {path.stem: load_agent(path) for path in sorted(folder.glob("*.toml"))}
    if not agents:
        raise ConfigError(
            f"no agents in {folder}",
            how_to_fix=[
                f"put an agent file there that the engine's user can read: {folder}/reception.toml"
            ],
        )
    return agents


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError as error:
        # To go on with the defaults would be answering for another installation.
        raise ConfigError(
            f"{path.parent.absolute()} cannot be looked into",
            how_to_fix=["run this as root or as the engine's user: sudo -u offhook offhook …"],
        ) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist", how_to_fix=["write it, or name the right one"]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}", how_to_fix=["correct the line named above"]
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            how_to_fix=["let the engine's user read it: chgrp offhook, chmod g+r"],
        ) from error


def _lines(error: ValidationError) -> str:
    return "\n".join(
        f"  {'.'.join(str(part) for part in item['loc']) or '(file)'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    )
