from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.cli import clock
from engine.cli.checks import synchronised

ASK = """
#include <cstddef>
#include <cstdio>
#include <sys/timex.h>
int main() {
  timex asked{};
  int state = adjtimex(&asked);
  std::printf("%d %zu %zu", state < 0 ? -1 : !!(asked.status & STA_UNSYNC), offsetof(timex, status), sizeof asked);
}
"""


def test_what_the_kernel_says_is_a_line_with_something_to_do() -> None:
    assert [item.level for item in synchronised(True)] == ["ok"]
    assert list(synchronised(None)) == [], "a kernel that does not tell is no trouble"
    (finding,) = synchronised(False)
    assert finding.level == "warn" and "NTP" in finding.how_to_fix


@pytest.mark.skipif(not shutil.which("g++"), reason="g++ is not installed")
def test_the_kernel_is_asked_as_a_c_program_does(tmp_path: Path) -> None:
    program = tmp_path / "ask"
    subprocess.run(["g++", "-x", "c++", "-", "-o", program], input=ASK, text=True, check=True)
    told = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    unsynchronised, offset, size = map(int, told.split())
    assert clock._Timex.status.offset == offset
    assert ctypes.sizeof(clock._Timex) >= size
    assert clock.is_synchronised() is {-1: None, 0: True, 1: False}[unsynchronised]
