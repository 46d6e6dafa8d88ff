"""What every bench reports alike: percentiles, the machine, the models."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import ModelSettings


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """p50, p95, p99 and max of milliseconds; None where nothing was measured."""
    if not values:
        return {"p50": None, "p95": None, "p99": None, "max": None}
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "p99": round(float(p99), 1),
        "max": round(float(max(values)), 1),
    }


def machine() -> dict[str, Any]:
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version()}


def models(settings: ModelSettings) -> dict[str, str]:
    return {
        "stt": settings.stt_model,
        "llm": settings.llm_model,
        "tts": settings.tts_model,
        "turn": settings.turn_model,
        "vad": settings.vad,
    }
