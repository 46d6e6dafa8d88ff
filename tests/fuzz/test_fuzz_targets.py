"""Each fuzz target runs, briefly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = sorted(Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.stem)
def test_target(target: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(target), "--runs", "300"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 runs, no failure" in done.stdout
