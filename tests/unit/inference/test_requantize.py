"""Models made here of others. The real llama.cpp does it, of the smallest model there is."""

import asyncio
import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.errors import WeightsError
from engine.inference import sources
from engine.inference.manifest import Manifest, load_manifest
from engine.inference.requantize import llama_cpp_version, read_made
from engine.inference.weights import WeightStore

ROOT = Path(__file__).parents[3]
SMOL = load_manifest().model("smollm2-135m-instruct-q4_1")
GGUF = ROOT / "models" / "weights" / SMOL.id / SMOL.files[0].name

needs_weights = pytest.mark.skipif(not GGUF.is_file(), reason="the smallest model is not there")


def manifest(size: int, sha256: str, **changed: object) -> Manifest:
    """`base` comes from a wheel, `small` is made of it."""
    part = {"wheel": "weights==1.0", "member": "base.gguf"}
    base = {
        "id": "base",
        "title": "Base",
        "role": "llm",
        "licence": "MIT",
        "source": "wheels",
        "files": [{"name": "base.gguf", "size": size, "sha256": sha256, "parts": [part]}],
    }
    small = {
        "id": "small",
        "title": "Small",
        "role": "llm",
        "licence": "MIT",
        "source": "derived",
        "base": "base",
        "quantize": "iq4_nl",
        "files": [{"name": "small.gguf"}],
        **changed,
    }
    return Manifest.model_validate({"profiles": {}, "models": {"base": base, "small": small}})


@pytest.fixture
def real(tmp_path: Path) -> Manifest:
    """The cache in `tmp_path` has the real base, so no wheel is needed."""
    file = SMOL.files[0]
    assert file.size and file.sha256
    cached = tmp_path / "cache" / "weights" / file.sha256
    cached.parent.mkdir(parents=True)
    cached.symlink_to(GGUF)
    return manifest(file.size, file.sha256)


@pytest.fixture
def broken(tmp_path: Path) -> Manifest:
    """The wheel's file is the right one, only no model."""
    data = b"GGUF" + bytes(2000)
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("base.gguf", data)
    return manifest(len(data), hashlib.sha256(data).hexdigest())


def store(tmp_path: Path, listed: Manifest, name: str = "here") -> WeightStore:
    return WeightStore(tmp_path / name, manifest=listed, cache=tmp_path / "cache")


def record(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "cache" / "weights").glob("*.iq4_nl.json")
    return found


def parts(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache").rglob("*.part"))


def converting(folder: Path) -> list[str]:
    """The command lines of processes that write into `folder`."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended while we looked
            continue
        if "engine.inference.requantize" in line and str(folder) in line:
            lines.append(line)
    return lines


@pytest.mark.models
@needs_weights
async def test_a_derived_model_is_made_once_and_shared(
    tmp_path: Path, real: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store(tmp_path, real)
    seen: list[str] = []
    verified = await first.fetch("small", lambda name, *_: seen.append(name))
    await asyncio.sleep(0)

    assert first.path("small") == verified.path == tmp_path / "here" / "small" / "small.gguf"
    assert verified.path.read_bytes()[:4] == b"GGUF"
    assert verified.size != GGUF.stat().st_size
    assert [(item.model.id, item.state, item.size) for item in first.list()] == [
        ("base", "ready", GGUF.stat().st_size),
        ("small", "ready", verified.size),
    ]
    assert seen.index("base.gguf") < seen.index("preparing small.gguf") < seen.index("small.gguf")
    assert not [name for name in seen if name.endswith(".part")]
    assert (await first.verify("small")).files == verified.files
    assert parts(tmp_path) == []

    # A second checkout runs nothing.
    monkeypatch.setattr("sys.executable", "/bin/false")
    second = store(tmp_path, real, "second")
    again = await second.fetch("small")
    assert again.files == verified.files
    assert again.path.samefile(verified.path)

    # Nor does the first, which mends its own file from the cache.
    verified.path.unlink()
    verified.path.write_bytes(bytes(verified.size))
    with pytest.raises(WeightsError, match="SHA-256"):
        await first.verify("small")
    assert (await first.fetch("small")).path.samefile(again.path)

    # With another llama.cpp, or when the cache lost the file, it would be made anew.
    monkeypatch.setattr(
        "engine.inference.requantize.llama_cpp_version", lambda: llama_cpp_version() + ".1"
    )
    with pytest.raises(WeightsError, match="could not be made"):
        await store(tmp_path, real, "third").fetch("small")
    monkeypatch.undo()
    (tmp_path / "cache" / "weights" / verified.files["small.gguf"]).unlink()
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(WeightsError, match="could not be made"):
        await store(tmp_path, real, "fourth").fetch("small")


@pytest.mark.models
@needs_weights
async def test_a_cancelled_fetch_ends_the_process_and_leaves_nothing(
    tmp_path: Path, real: Manifest
) -> None:
    weights = store(tmp_path, real)
    begun = asyncio.Event()

    def show(name: str, done: int, total: int) -> None:
        if name == "preparing small.gguf":
            begun.set()

    task = asyncio.create_task(weights.fetch("small", show))
    await begun.wait()
    assert converting(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert converting(tmp_path) == []
    assert parts(tmp_path) == []
    assert not (tmp_path / "here" / "small").exists()
    assert [item.state for item in weights.list()] == ["ready", "missing"]


async def test_what_llama_cpp_refuses_is_told_and_leaves_nothing(
    tmp_path: Path, broken: Manifest
) -> None:
    with pytest.raises(WeightsError, match=r"base\.gguf could not be made .*status 1") as error:
        await store(tmp_path, broken).fetch("small")
    assert "failed to quantize" in error.value.message
    assert len(error.value.message) < 700
    assert "offhook models fetch" in error.value.how_to_fix[0]
    assert "set models.llm_model to base" in error.value.how_to_fix[1]
    assert parts(tmp_path) == []
    assert list((tmp_path / "cache" / "weights").glob("*.json")) == []
    assert not (tmp_path / "here" / "small").exists()


async def test_a_tool_that_a_signal_ended_is_told_apart() -> None:
    status, output = sources.run_tool(["sh", "-c", "echo here; kill -9 $$"], lambda: False)
    assert (status, output) == (-9, "here\n")


def test_a_stopped_tool_is_gone_before_run_tool_returns(tmp_path: Path) -> None:
    mine = tmp_path / "pid"

    def written() -> bool:
        return mine.exists() and mine.read_text().endswith("\n")

    with pytest.raises(sources.FetchStopped):
        sources.run_tool(["sh", "-c", f"echo $$ > {mine}; exec sleep 60"], written)
    with pytest.raises(ProcessLookupError):
        os.kill(int(mine.read_text()), 0)


@pytest.mark.parametrize(
    "written",
    [None, "{", '{"sha256": "no", "size": 1, "llama_cpp": "1"}', '["another", "shape"]'],
)
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, written: str | None) -> None:
    path = tmp_path / "record.json"
    if written is not None:
        path.write_text(written)
    assert read_made(path) is None


def test_a_record_holds_for_the_llama_cpp_that_made_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    fields = {"sha256": "a" * 64, "size": 5, "llama_cpp": llama_cpp_version()}
    path.write_text(json.dumps(fields))
    made = read_made(path)
    assert made and made.size == 5
    path.write_text(json.dumps({**fields, "llama_cpp": "0.0.1"}))
    assert read_made(path) is None


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"base": ""}, "needs `base`"),
        ({"quantize": ""}, "needs `base`"),
        ({"quantize": "q9"}, "quantize"),
        ({"files": [{"name": "a.gguf"}, {"name": "b.gguf"}]}, "one file"),
        ({"base": "ghost"}, "ghost is no model that is fetched"),
        ({"base": "small"}, "small is no model that is fetched"),
    ],
)
def test_a_derived_model_says_what_it_is_made_of(
    changed: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        manifest(1, "a" * 64, **changed)


def test_the_base_is_one_gguf_file() -> None:
    raw = manifest(1, "a" * 64).model_dump()
    raw["models"]["base"]["files"][0]["name"] = "base.onnx"
    with pytest.raises(ValidationError, match="not one GGUF file"):
        Manifest.model_validate(raw)
