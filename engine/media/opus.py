"""A finished recording as Opus: a tenth of the WAV's size, made by `opusenc` when nobody waits for it.

call ends -> CALL.wav -> opusenc -> CALL.opus.part -> CALL.opus      the WAV is the caller's to delete,
                             \\ fails, or is missing: the WAV stays   once the record names the new file
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

PROGRAM = "opusenc"
_BITRATE = "32"
"""kbit/s for both sides: wideband speech that reads well for people and for recognisers."""


def encoder() -> str | None:
    """The path of opusenc; None where it is not installed."""
    return shutil.which(PROGRAM)


class OpusEncoder:
    """Encodes one recording at a time, at the lowest priority."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def encode(self, wav: Path) -> Path | None:
        """The complete Opus file beside `wav`; None when there is none, and then the log says why.

        Cancelling stops the program and leaves the WAV alone.
        """
        program = encoder()
        if program is None:
            log.warning("opusenc is not installed: the recording stays WAV")
            return None
        part, done = wav.with_suffix(".opus.part"), wav.with_suffix(".opus")
        async with self._turn:
            try:
                error = await _run(program, wav, part)
                if error:
                    log.warning("a recording stays WAV", extra={"error": error})
                    return None
                await asyncio.to_thread(_settle, part, done)
            except OSError as error:
                log.warning("a recording stays WAV", extra={"error": str(error)})
                return None
            finally:
                await asyncio.to_thread(part.unlink, missing_ok=True)
        return done


async def _run(program: str, wav: Path, part: Path) -> str:
    """Empty when it went well, else what the program said."""
    # Without phase inversion the sides do not cancel each other where a player has one loudspeaker.
    options = ("--quiet", "--bitrate", _BITRATE, "--no-phase-inv")
    process = await asyncio.create_subprocess_exec(
        *("nice", "-n", "19", program, *options, str(wav), str(part)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return ""
    return said.decode(errors="replace").strip() or f"exit status {process.returncode}"


def _settle(part: Path, done: Path) -> None:
    """Give the file its name once it is on the disk for good."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(done)
