"""A real Asterisk in a temporary folder, on loopback ports of its own.

    async with Sandbox(folder, agi="127.0.0.1:4573", audiosocket="127.0.0.1:9092", websocket_port=9094) as pbx:
        async with Softphone("caller") as phone:
            call = await phone.call(pbx.uri("900"))

What the extensions do is told in `asterisk/sandbox/etc/extensions.conf`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from engine.errors import AsteriskError
from engine.lab.asterisk_install import find_asterisk
from engine.lab.ports import PortBlock, take_block
from engine.lab.sandbox_config import render

log = logging.getLogger(__name__)

_START_S = 30.0
_TERM_S = 8.0
"""Asterisk says BYE to its calls first, which takes three seconds."""
_CLI_S = 10.0
_READY = b"Asterisk Ready."


class Sandbox:
    """Runs Asterisk from `async with` to its end. `folder` receives configuration and logs, and stays.

    `agi` and `audiosocket` are the engine's `host:port`, `websocket_port` its port for chan_websocket;
    nobody has to listen there yet. `sip_port` 0 takes a free one. Raises AsteriskMissing,
    and AsteriskError with the log's last lines when Asterisk does not start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        agi: str,
        audiosocket: str,
        websocket_port: int,
        sip_port: int = 0,
    ) -> None:
        self.folder = folder.resolve()
        self.ami_secret = secrets.token_hex(16)
        self.alice_password = secrets.token_hex(4)
        self._agi = agi
        self._audiosocket = audiosocket
        self._websocket_port = websocket_port
        self._sip_port = sip_port
        self._ports: PortBlock | None = None
        self._run: Path | None = None
        self._command: tuple[str, ...] = ()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._console = b""
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Sandbox:
        installation = await asyncio.to_thread(find_asterisk)
        self._ports = take_block()
        # Apart from `folder`: the path of a Unix socket may be no longer than 107 bytes.
        self._run = Path(tempfile.mkdtemp(prefix="offhook-"))
        self._command = (*installation.command, "-C", str(self.folder / "etc" / "asterisk.conf"))
        try:
            await asyncio.to_thread(
                render,
                self.folder / "etc",
                self.folder / "var",
                {
                    "MODULES": installation.modules,
                    "DATA": installation.data,
                    "RUN": self._run,
                    "SIP_PORT": self.sip_port,
                    "AMI_PORT": self.ami_port,
                    "AMI_SECRET": self.ami_secret,
                    "ALICE_PASSWORD": self.alice_password,
                    "HTTP_PORT": self._ports.http,
                    "OPERATOR_PORT": self.operator_port,
                    "TRUNK_PORT": self.trunk_port,
                    "RTP_START": self._ports.rtp[0],
                    "RTP_END": self._ports.rtp[1],
                    "WEBSOCKET_PORT": self._websocket_port,
                    "AGI": self._agi,
                    "AUDIOSOCKET": self._audiosocket,
                },
            )
            await self.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    # --- Where things are ----------------------------------------------------------------------

    @property
    def sip_port(self) -> int:
        return self._sip_port or self._block.sip

    @property
    def ami_port(self) -> int:
        return self._block.ami

    @property
    def operator_port(self) -> int:
        """Where the operator's phone is expected: Softphone("operator", sip_port=…) or SIPp."""
        return self._block.operator

    @property
    def trunk_port(self) -> int:
        """Where the far end of `PJSIP/NUMBER@trunk` is expected."""
        return self._block.trunk

    @property
    def pid(self) -> int | None:
        """Asterisk's own, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def uri(self, extension: str) -> str:
        return f"sip:{extension}@127.0.0.1:{self.sip_port}"

    # --- Running -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start Asterisk and wait until it takes calls. Raises AsteriskError."""
        if self.pid is not None:
            return
        self._ready.clear()
        # Asterisk must not outlive us, even if we are killed; setpriv becomes Asterisk by exec.
        guard = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
        self._process = await asyncio.create_subprocess_exec(
            *guard,
            *(*self._command, "-f"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Keys typed at the demo's terminal are for the demo.
            start_new_session=True,
        )
        self._reader = asyncio.create_task(self._read(self._process), name="asterisk-output")
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait(
                {ready, self._reader}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            ready.cancel()
        if not self._ready.is_set():
            await self.stop(kill=True)
            lines = self._console.decode(errors="replace")
            raise AsteriskError(f"Asterisk did not start. Its last words:\n{lines}")

    async def stop(self, kill: bool = False) -> None:
        """End Asterisk by TERM, so that it says BYE to its calls; by KILL at once with `kill`."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            if kill:
                process.kill()
            else:
                process.terminate()
            try:
                async with asyncio.timeout(_TERM_S):
                    await process.wait()
            except TimeoutError:
                log.warning("Asterisk did not end on TERM")
                process.kill()
                await process.wait()
        if self._reader is not None:
            await self._reader
        self._process = self._reader = None

    async def restart(self) -> None:
        """Stop and start on the same ports; live calls are told BYE."""
        await self.stop()
        await self.start()

    async def cli(self, command: str) -> str:
        """What a command of Asterisk's console prints. Raises AsteriskError."""
        process = await asyncio.create_subprocess_exec(
            *(*self._command, "-rx", command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(_CLI_S):
                output, _ = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        text = output.decode(errors="replace")
        if process.returncode:
            raise AsteriskError(f"Asterisk's console did not take the command: {text.strip()}")
        return text

    def log_text(self) -> str:
        """All that Asterisk logged in this folder, over restarts: notices, warnings, errors, dialplan steps."""
        path = self.folder / "var/log/messages.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def _block(self) -> PortBlock:
        if self._ports is None:
            raise AsteriskError("the sandbox has no ports before it is entered")
        return self._ports

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Keep the last that Asterisk printed and notice when it is ready. Ends with the process."""
        assert process.stdout is not None
        self._console = b""
        while chunk := await process.stdout.read(65536):
            self._console = (self._console + chunk)[-4096:]
            if _READY in self._console:
                self._ready.set()

    async def _close(self) -> None:
        await self.stop()
        if self._ports is not None:
            self._ports.release()
        if self._run is not None:
            shutil.rmtree(self._run, ignore_errors=True)
