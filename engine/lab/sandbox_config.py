"""Fills the sandbox's configuration in: `asterisk/sandbox/etc/*.conf` with its @NAMES@ replaced."""

from __future__ import annotations

import re
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from engine.errors import ConfigError
from engine.lab.asterisk_install import shipped

# Asterisk reports an error for each of these that does not exist; all may be empty.
_EMPTY = (
    *("acl", "ccss", "cdr", "cel", "chan_websocket", "dnsmgr", "features"),
    *("geolocation", "pjproject", "queuerules", "stasis", "udptl"),
)


def render(etc: Path, var: Path, values: Mapping[str, str | int | Path]) -> None:
    """Write a whole configuration into `etc` and make the folders of `var`.

    Raises ConfigError when a template names a value that is not given.
    """
    for folder in ("agi-bin", "lib", "log", "messages", "music", "spool"):
        (var / folder).mkdir(parents=True, exist_ok=True)
    etc.mkdir(parents=True, exist_ok=True)
    known = {
        **values,
        "ETC": etc,
        "VAR": var,
        "ASTERISK": shipped("asterisk"),
        "DIALPLAN": shipped("dialplan"),
    }
    for name in _EMPTY:
        (etc / f"{name}.conf").touch()
    for template in sorted((shipped("asterisk") / "sandbox" / "etc").glob("*.conf")):
        text = template.read_text(encoding="utf-8")
        (etc / template.name).write_text(_filled(text, known, template.name), encoding="utf-8")
    # The AMI secret and alice's password are in there.
    for name in ("manager.conf", "pjsip.conf"):
        (etc / name).chmod(0o600)
    _write_hold_tone(var / "music" / "hold.wav")


def _filled(text: str, values: Mapping[str, str | int | Path], name: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ConfigError(f"{name} names @{match[1]}@, which the sandbox does not set")
        return str(values[match[1]])

    return re.sub(r"@([A-Z_]+)@", value, text)


def _write_hold_tone(path: Path) -> None:
    """Music on hold nobody has to license: a soft note every two seconds."""
    time = np.arange(16_000) / 8000
    note = np.sin(2 * np.pi * 523.25 * time) * np.exp(-4 * time) * 4000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(note.astype("<i2").tobytes())
