from __future__ import annotations

import os
import platform

import pytest

from engine.bench.report import machine, models, spread
from engine.config import ModelSettings


def test_nothing_measured_is_told_as_nothing() -> None:
    assert spread([]) == {"p50": None, "p95": None, "p99": None, "max": None}


def test_one_value_is_every_percentile() -> None:
    assert spread([12.34]) == {"p50": 12.3, "p95": 12.3, "p99": 12.3, "max": 12.3}


def test_percentiles_are_interpolated_and_rounded_to_a_tenth() -> None:
    assert spread([float(n) for n in range(1, 101)]) == {
        "p50": 50.5,
        "p95": pytest.approx(95.0, abs=0.1),
        "p99": 99.0,
        "max": 100.0,
    }


def test_the_order_of_the_values_does_not_matter() -> None:
    assert spread([5, 1, 3]) == spread([1, 3, 5])
    assert all(type(value) is float for value in spread([5, 1, 3]).values())


def test_the_machine_is_named() -> None:
    told = machine()
    assert told["cores"] == os.cpu_count() and told["python"] == platform.python_version()
    assert isinstance(told["cpu"], str)


def test_the_models_are_named_as_they_were_set() -> None:
    told = models(ModelSettings(stt_model="ears", vad="webrtc"))
    assert told["stt"] == "ears" and told["vad"] == "webrtc"
    assert set(told) == {"stt", "llm", "tts", "turn", "vad"}
