"""A real llama-server on the loopback, from the folder that scripts/setup-llama-server makes."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

START_S = 60.0
KEY = "sk-local"


class LlamaServerMissing(Exception):
    pass


@dataclass(frozen=True, slots=True)
class LlamaServer:
    """`url` is the base for a client; `log` is what the server writes."""

    url: str
    log: Path
    port: int

    async def slots(self) -> list[dict[str, Any]]:
        """What each of its slots is doing: `is_processing` and more."""
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
            session.get(f"http://127.0.0.1:{self.port}/slots") as response,
        ):
            found: list[dict[str, Any]] = await response.json()
            return found

    def connections(self) -> int:
        """How many clients are connected to it now, by /proc/net/tcp."""
        end = f":{self.port:04X}"
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        established = [fields for line in lines if (fields := line.split())[3] == "01"]
        return sum(fields[1].endswith(end) for fields in established)


def command() -> list[str]:
    """Raises LlamaServerMissing."""
    if installed := shutil.which("llama-server"):
        return [installed]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "offhook"
    root = Path(os.environ.get("OFFHOOK_CACHE", cache)) / "llama-server"
    if not (root / ".complete").exists():
        raise LlamaServerMissing("there is no llama-server: run scripts/setup-llama-server")
    library = next(root.glob("usr/lib/*/libllama.so.0")).parent
    loader = next(library.glob("ld-linux-*.so.*"))
    path = f"{library}:{library / 'llama'}"
    return [str(loader), "--library-path", path, str(root / "usr/bin/llama-server")]


@asynccontextmanager
async def llama_server(gguf: Path, folder: Path) -> AsyncIterator[LlamaServer]:
    """Serve one model on a free port until the end of the block; its log goes to `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        *("--model", str(gguf), "--alias", "local", "--host", "127.0.0.1", "--port", str(port)),
        *("--ctx-size", "4096", "--parallel", "2", "--threads", "2", "--jinja", "--offline"),
        *("--api-key", KEY, "--slots"),
    ]
    log = folder / "llama-server.log"
    # It must not outlive the tests, even if they are killed.
    guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *guard, *command(), *arguments, stdout=out, stderr=out
        )
    try:
        async with asyncio.timeout(START_S):
            await _ready(f"http://127.0.0.1:{port}/health", process)
        yield LlamaServer(f"http://127.0.0.1:{port}/v1", log, port)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # it is not listening yet
            await asyncio.sleep(0.1)
    raise RuntimeError(f"llama-server ended with status {process.returncode}")
