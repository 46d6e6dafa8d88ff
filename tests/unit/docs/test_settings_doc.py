"""docs/settings.md lists every setting with its real default, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.config import RouteSettings, Settings
from tests.unit.docs.reference import DOCS, ROOT, blocks_of, declared, documented

PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def test_every_setting_is_documented_with_its_default() -> None:
    wanted = dict(declared(Settings, {"routes": RouteSettings}))
    assert documented(DOCS / "settings.md") == wanted


def test_the_example_is_valid() -> None:
    (example,) = blocks_of(DOCS / "settings.md", "toml")
    assert Settings(**tomllib.loads(example)).routes[0].number == "700"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_other_pages_are_valid_too(page: Path) -> None:
    for text in blocks_of(page, "toml"):
        values = tomllib.loads(text)
        if "greeting" not in values:
            Settings(**values)
