"""What a page of reference promises, and what the models declare: tables of key, default and meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import engine

ROOT = Path(engine.__file__).parent.parent
DOCS = ROOT / "docs"
_ROW = re.compile(r"^\| `([a-z_.]+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def documented(page: Path) -> dict[str, str]:
    """Each key's default as the page writes it. Every key has one row, and every row says something."""
    rows = _ROW.findall(page.read_text())
    keys = [key for key, _, _ in rows]
    assert len(keys) == len(set(keys))
    assert all(len(meaning) > 5 for _, _, meaning in rows)
    return {key: default for key, default, _ in rows}


def declared(
    model: type[BaseModel], blocks: Mapping[str, type[BaseModel]], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """`blocks` are the fields that hold several values of one model, such as routes."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from declared(type(field.default), blocks, f"{prefix}{name}.")
        elif name in blocks:
            yield from declared(blocks[name], blocks, f"{name}.")
        else:
            yield f"{prefix}{name}", _written(field)


def blocks_of(page: Path, language: str) -> list[str]:
    """The fenced blocks in one language. Fences in a list are indented, and so are their lines."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def _written(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    value = field.default
    if value is None:
        return "*agent's*"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"
