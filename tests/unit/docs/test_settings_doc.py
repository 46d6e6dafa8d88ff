"""docs/settings.md lists every setting with its real default, and nothing else."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import engine
from engine.config import RouteSettings, Settings

DOC = Path(engine.__file__).parent.parent / "docs" / "settings.md"


def declared(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from declared(type(field.default), f"{prefix}{name}.")
        elif name == "routes":
            yield from declared(RouteSettings, "routes.")
        else:
            yield f"{prefix}{name}", written(field)


def written(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if value is None:
        return "*agent's*"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


def test_every_setting_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.+?) \| (.+) \|$", DOC.read_text(), re.MULTILINE)
    documented = [(key, default) for key, default, _ in rows]
    assert len(documented) == len(set(documented))
    assert dict(documented) == dict(declared(Settings))
    assert all(len(meaning) > 5 for _, _, meaning in rows)


def test_the_example_is_valid() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOC.read_text(), re.DOTALL)
    settings = Settings(**tomllib.loads(example))
    assert settings.routes[0].number == "700"
