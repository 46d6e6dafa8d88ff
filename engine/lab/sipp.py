"""An operator's phone that is not ours: SIPp with `asterisk/sandbox/sipp-operator.xml`."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from engine.errors import OffhookError
from engine.lab.asterisk_install import shipped
from engine.lab.ports import free_media_port, is_bound_udp


class SippMissing(OffhookError):
    code = "SIPP_MISSING"

    def __init__(self) -> None:
        super().__init__(
            "sipp is not installed", how_to_fix=["apt-get install sip-tester, or brew install sipp"]
        )


class SippOperator:
    """Answers `calls` calls on `port`, echoes their sound, and hangs up after five seconds at the latest.

        async with SippOperator(pbx.operator_port) as operator:
            …
            await operator.finished()

    Raises SippMissing, and OffhookError when SIPp does not start.
    """

    def __init__(self, port: int, *, calls: int = 1) -> None:
        self._port = port
        self._calls = calls
        self._process: asyncio.subprocess.Process | None = None
        self._folder = ""

    async def __aenter__(self) -> SippOperator:
        program = shutil.which("sipp")
        if program is None:
            raise SippMissing
        self._folder = tempfile.mkdtemp(prefix="offhook-sipp-")
        self._process = await asyncio.create_subprocess_exec(
            program,
            *("-sf", str(shipped("asterisk") / "sandbox" / "sipp-operator.xml")),
            *("-i", "127.0.0.1", "-p", str(self._port)),
            *("-mi", "127.0.0.1", "-mp", str(free_media_port()), "-rtp_echo"),
            *("-m", str(self._calls), "-nostdin", "-trace_err"),
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        # SIPp says nothing when it is ready; its port is taken then.
        for _ in range(250):
            if is_bound_udp(self._port) or self._process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        if self._process.returncode is not None or not is_bound_udp(self._port):
            errors = self._errors()
            await self._close()
            raise OffhookError(f"SIPp did not start. {errors}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def finished(self, timeout: float = 15.0) -> None:
        """Wait until all calls went through the scenario. Raises OffhookError, TimeoutError."""
        assert self._process is not None
        async with asyncio.timeout(timeout):
            status = await self._process.wait()
        if status != 0:
            raise OffhookError(f"SIPp counts a failed call (exit {status}): {self._errors()}")

    def _errors(self) -> str:
        found = sorted(Path(self._folder).glob("*_errors.log"))
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in found)

    async def _close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._folder:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
