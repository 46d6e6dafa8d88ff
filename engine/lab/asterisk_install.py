"""Which Asterisk the sandbox runs: the machine's own, or the root folder of `asterisk/sandbox/build`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from engine.errors import AsteriskError

_OLDEST = 18
_PACKAGE = Path(__file__).resolve().parent.parent


class AsteriskMissing(AsteriskError):
    """Neither a usable Asterisk nor a finished root folder is on this machine."""

    code = "ASTERISK_MISSING"
    retryable = False


@dataclass(frozen=True, slots=True)
class Installation:
    """`command` is what to execute, without options: the program, or the folder's own loader first."""

    command: tuple[str, ...]
    modules: Path
    data: Path
    """Asterisk's astdatadir: sounds and documentation."""


def shipped(name: str) -> Path:
    """A folder that travels with the package: `asterisk`, `dialplan`."""
    checkout = _PACKAGE.parent / name
    return checkout if checkout.is_dir() else _PACKAGE / "data" / name


def root_folder() -> Path:
    """Where `asterisk/sandbox/build` puts its result, built or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("OFFHOOK_CACHE") or Path(cache) / "offhook") / "asterisk-root"


def built_root() -> Path | None:
    """The root folder when it is complete."""
    root = root_folder()
    return root if (root / ".complete").is_file() else None


def find_asterisk() -> Installation:
    """The machine's Asterisk if it will do, else the root folder's. Raises AsteriskMissing."""
    found = _system() or _from_root()
    if found is None:
        raise AsteriskMissing(
            "no Asterisk 18 or newer with app_audiosocket on this machine, and no sandbox folder",
            how_to_fix=[
                f"run {shipped('asterisk') / 'sandbox' / 'build'} (once, as root or with sudo)",
                "or install asterisk and asterisk-modules from your distribution",
            ],
        )
    return found


def _system() -> Installation | None:
    path = os.environ.get("PATH", os.defpath)
    program = shutil.which("asterisk", path=f"{path}:/usr/sbin:/usr/local/sbin")
    if program is None:
        return None
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stdout
    # Version strings: "Asterisk 22.10.1", "Asterisk certified/20.7-cert3".
    version = re.search(r"\b(\d+)\.\d", said)
    if version is None or int(version[1]) < _OLDEST:
        return None
    libraries = [Path("/usr/lib"), Path("/usr/lib64"), *Path("/usr/lib").glob("*-linux-gnu*")]
    modules = [library / "asterisk" / "modules" for library in libraries]
    data = [Path("/usr/share/asterisk"), Path("/var/lib/asterisk")]
    for folder in modules:
        if (folder / "app_audiosocket.so").is_file():
            sounds = next((place for place in data if (place / "sounds").is_dir()), data[0])
            return Installation((program,), folder, sounds)
    return None


def _from_root() -> Installation | None:
    root = built_root()
    if root is None:
        return None
    # The folder's libc is newer than most hosts', so its own loader and libraries come with it.
    libraries = root / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
    loaders = [*root.glob("usr/lib64/ld-linux-*.so.*"), *root.glob("usr/lib/ld-linux-*.so.*")]
    if not loaders or not libraries.is_dir():
        return None
    command = (
        str(loaders[0]),
        "--library-path",
        str(libraries),
        str(root / "usr" / "sbin" / "asterisk"),
    )
    return Installation(command, libraries / "asterisk" / "modules", root / "usr/share/asterisk")
