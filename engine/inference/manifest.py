"""The list of models: `models/manifest.toml`, read into frozen values."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import WeightsError

_ENGINE = Path(__file__).resolve().parents[1]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelPart(Entry):
    """One member of one wheel. `wheel` is `name==version`, exactly."""

    wheel: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$")
    member: str


class ModelFile(Entry):
    """One file of a model. `size` in bytes; size and sha256 are None where the hub states them."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    size: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    parts: tuple[WheelPart, ...] = ()


class Model(Entry):
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str
    role: Literal["stt", "llm", "tts", "turn"]
    licence: str
    source: Literal["wheels", "hub", "derived"]
    repository: str = ""
    """owner/name on the hub."""
    folder: str = ""
    """Where in the repository the files are."""
    revision: str = "main"
    base: str = ""
    """Id of the model that a derived one is made from on this machine."""
    quantize: Literal["", "iq4_nl"] = ""
    """What llama.cpp makes of the base's weights."""
    files: tuple[ModelFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _source_is_complete(self) -> Model:
        if self.source == "hub" and not self.repository:
            raise ValueError("a model from the hub needs `repository`")
        if self.source == "wheels":
            for file in self.files:
                if not file.parts or file.size is None or file.sha256 is None:
                    raise ValueError(f"{file.name}: needs `parts`, `size` and `sha256`")
        if self.source == "derived" and not (self.base and self.quantize and len(self.files) == 1):
            raise ValueError("a derived model needs `base`, `quantize` and one file")
        return self

    @property
    def wheels(self) -> tuple[str, ...]:
        """The requirements to download, each once, in order."""
        return tuple(dict.fromkeys(part.wheel for file in self.files for part in file.parts))

    @property
    def size(self) -> int | None:
        """Bytes of all files, or None while one is not known."""
        sizes = [file.size for file in self.files]
        return sum(size for size in sizes if size) if None not in sizes else None


class Manifest(Entry):
    profiles: dict[str, tuple[str, ...]]
    models: dict[str, Model]

    @model_validator(mode="after")
    def _profiles_name_models(self) -> Manifest:
        for profile, ids in self.profiles.items():
            if unknown := [id for id in ids if id not in self.models]:
                raise ValueError(f"profile {profile} names unknown models: {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _bases_can_be_fetched(self) -> Manifest:
        for model in self.models.values():
            if model.source != "derived":
                continue
            base = self.models.get(model.base)
            if base is None or base.source == "derived":
                raise ValueError(f"{model.id}: its base {model.base} is no model that is fetched")
            if len(base.files) != 1 or not base.files[0].name.endswith(".gguf"):
                raise ValueError(f"{model.id}: its base {model.base} is not one GGUF file")
        return self

    def model(self, model_id: str) -> Model:
        """Raises WeightsError when there is no such model."""
        try:
            return self.models[model_id]
        except KeyError:
            raise WeightsError(
                f"no model is called {model_id!r}",
                how_to_fix=[
                    f"name one of: {', '.join(sorted(self.models))}",
                    "`offhook models list` shows what each of them is",
                ],
            ) from None

    def profile(self, name: str) -> tuple[Model, ...]:
        """The models of one profile. Raises WeightsError when there is no such profile."""
        if name not in self.profiles:
            raise WeightsError(
                f"no profile is called {name!r}",
                how_to_fix=[f"name one of: {', '.join(sorted(self.profiles))}"],
            )
        return tuple(self.models[model_id] for model_id in self.profiles[name])


def manifest_path() -> Path:
    """In a checkout the file beside the package, in an installed wheel the copy inside it."""
    checkout = _ENGINE.parent / "models" / "manifest.toml"
    return checkout if checkout.is_file() else _ENGINE / "data" / "models" / "manifest.toml"


def load_manifest(path: Path | None = None) -> Manifest:
    """Read `path`, else the project's own manifest. Raises WeightsError."""
    path = path or manifest_path()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        models = {id: {"id": id, **fields} for id, fields in raw.get("models", {}).items()}
        return Manifest.model_validate({**raw, "models": models})
    except OSError as error:
        raise WeightsError(
            f"the list of models cannot be read: {error}", how_to_fix=["install offhook again"]
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise WeightsError(f"{path} is not a valid list of models: {error}") from error
