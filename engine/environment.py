"""`OFFHOOK_*` in the environment: which names mean a setting, so that a misspelt one is not silent."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from engine.errors import ConfigError

PREFIX = "OFFHOOK_"
NOT_SETTINGS = frozenset({"OFFHOOK_CONFIG", "OFFHOOK_CACHE", "OFFHOOK_TESTS_REQUIRE_ALL"})
"""Read by us, but not as a setting."""
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


def refuse_unknown(settings: type[BaseModel], environment: Mapping[str, str]) -> None:
    """Raise ConfigError when a variable looks like a setting of ours and is none, with the nearest name."""
    known = set(setting_names(settings))
    wrong = [
        name
        for name, value in sorted(environment.items())
        # Settings are read without regard to case.
        if name.upper().startswith(PREFIX)
        and name.upper() not in known | NOT_SETTINGS
        and not _is_service_link(name, value)
    ]
    if not wrong:
        return
    raise ConfigError(
        f"the environment has what is no setting: {', '.join(wrong)}",
        how_to_fix=[*(_advice(name, known) for name in wrong), "docs/settings.md lists them all"],
    )


def setting_names(model: type[BaseModel], prefix: str = PREFIX) -> Iterator[str]:
    """Every variable that means something: each setting, and each section as one JSON object."""
    for key, field in model.model_fields.items():
        name = prefix + key.upper()
        yield name
        if isinstance(field.default, BaseModel):
            yield from setting_names(type(field.default), f"{name}__")


def _advice(name: str, known: set[str]) -> str:
    short = {item.removeprefix(PREFIX): item for item in sorted(known)}
    near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), short, n=1, cutoff=0.6)
    return f"{name}: did you mean {short[near[0]]}?" if near else f"unset {name}"


def _is_service_link(name: str, value: str) -> bool:
    """Kubernetes tells every container of a service `offhook` its address: OFFHOOK_PORT=tcp://…"""
    return bool(_SERVICE_LINK.search(name) or _SERVICE_URL.match(value))
