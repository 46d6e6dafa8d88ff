"""Weights made here from other weights: a GGUF file in another of llama.cpp's number formats.

llama.cpp has fast kernels for some formats only, and which of them a published file holds depends on the
widths of its layers. The work is done in a process of its own, since native code can be stopped in no other
way:

    python -m engine.inference.requantize SOURCE TARGET TYPE
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from pydantic import Field, ValidationError

from engine.errors import WeightsError
from engine.inference.manifest import Entry
from engine.inference.sources import Stopped, run_tool


class Made(Entry):
    """What was once made of a base, as written down in the cache. `size` in bytes."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    llama_cpp: str
    """The version that made it: another one may make other bytes, better ones perhaps."""


def llama_cpp_version() -> str:
    return version("llama-cpp-python")


def read_made(path: Path) -> Made | None:
    """The record at `path`; None where there is none that holds for this version of llama.cpp."""
    try:
        made = Made.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return made if made.llama_cpp == llama_cpp_version() else None


def requantize(
    source: Path, target: Path, quantize: str, stopped: Stopped, tick: Callable[[], None]
) -> None:
    """Write `source` to `target` in the format `quantize`. Blocks; `tick` is called meanwhile.

    Raises WeightsError and FetchStopped; what `target` holds then is of no use.
    """
    command = [sys.executable, "-m", __name__, str(source), str(target), quantize]
    status, output = run_tool(command, stopped, tick)
    if status != 0:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        ended = f"signal {-status}" if status < 0 else f"status {status}"
        raise WeightsError(
            f"{source.name} could not be made into {quantize} ({ended}): {' | '.join(lines[-2:])[-500:]}",
            how_to_fix=[
                f"check the free memory and the free space of {target.parent}, then run `offhook models fetch` again",
                f"or do without: set models.llm_model to {source.parent.name}, what it is made from",
            ],
        )


def main(arguments: Sequence[str]) -> int:
    """In the process of its own. Returns the exit status."""
    # Imported here: the parent has no need of it, and loading it takes a while.
    import llama_cpp

    source, target, quantize = arguments
    # It keeps every core busy for a minute or so, and calls may be going on beside it.
    os.nice(10)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = {"iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL}[quantize]
    parameters.allow_requantize = True
    llama_cpp.llama_backend_init()
    return int(
        llama_cpp.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(parameters)
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
