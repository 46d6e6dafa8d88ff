"""What the demo makes of a call: notes, and whether a listener could have understood it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from engine.events import Event
from engine.lab.demo import RATE, SCRIPTS, Notes, _json, _plain, _recall, _stretches, _tell
from engine.media.frame import Samples


@pytest.mark.parametrize(
    ("wanted", "got", "share"),
    [
        ("We open at nine.", "we open at nine", 1.0),
        ("We open at nine.", "Well, we opened at nine today", 1.0),
        ("We open at nine.", "at nine", 0.5),
        ("We open at nine.", "nine at open we", 0.25),
        ("We open at nine.", "", 0.0),
        ("", "anything", 0.0),
        ("Работаем с девяти", "работаем с девети", 1.0),
    ],
)
def test_words_are_counted_in_their_order(wanted: str, got: str, share: float) -> None:
    assert _recall(wanted, got) == pytest.approx(share)


def test_a_word_heard_once_is_counted_once() -> None:
    assert _recall("no no no", "no") == pytest.approx(1 / 3)


def test_words_without_what_is_between_them() -> None:
    assert _plain("Hello, ВАШ №1!") == ["hello", "ваш", "1"]


def spoken(*parts: tuple[float, int]) -> Samples:
    """(seconds, level) one after the other."""
    return np.concatenate([np.full(round(s * RATE), level, np.int16) for s, level in parts])


def seconds(spans: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(start / RATE, end / RATE) for start, end in spans]


def test_sound_is_cut_where_it_is_quiet() -> None:
    sound = spoken((1, 0), (2, 900), (0.3, 0), (1, 900), (1, 0), (1, 900))
    assert seconds(_stretches(sound)) == [
        (0.8, pytest.approx(4.5, abs=0.03)),
        (5.1, pytest.approx(6.5, abs=0.03)),
    ]


def test_a_click_is_nothing_to_listen_to() -> None:
    assert _stretches(spoken((1, 0), (0.04, 900), (1, 0))) == []
    assert _stretches(np.zeros(0, np.int16)) == []


def test_a_long_speech_is_cut_all_the_same() -> None:
    spans = seconds(_stretches(spoken((45, 900))))
    assert len(spans) == 3
    assert all(end - start <= 20.5 for start, end in spans)


def told(*events: tuple[str, int, dict[str, Any]]) -> tuple[Notes, str]:
    notes, out = Notes(), io.StringIO()
    console = Console(file=out, width=200)
    for kind, offset_ms, data in events:
        _tell(console, notes, Event(kind, "call-1", offset_ms, data))
    return notes, out.getvalue()


def agent_said(status: str) -> tuple[str, int, dict[str, Any]]:
    data = {"text": "We open at nine.", "start_ms": 2600, "heard_ms": 800, "status": status}
    return "agent.said", 3400, data


def test_both_sides_are_noted_with_their_times() -> None:
    notes, text = told(
        ("caller.said", 2300, {"text": "When?", "start_ms": 1000, "end_ms": 2000}),
        agent_said("heard"),
        agent_said("cut"),
        agent_said("unheard"),
        ("agent.prompt", 3500, {"kind": "reprompt"}),
    )
    assert [(said.who, said.text) for said in notes.said] == [
        ("caller", "When?"),
        *[("agent", "We open at nine.")] * 3,
    ]
    assert (notes.said[0].start_s, notes.said[0].end_s) == (1.0, 2.0)
    assert (notes.said[1].start_s, notes.said[1].end_s) == (2.6, pytest.approx(3.4))
    assert len(text.splitlines()) == 4 and "cut" in text and "(not heard)" in text


def test_turns_interruptions_and_the_end_are_noted() -> None:
    notes, text = told(
        ("turn.finished", 3400, {"stages_ms": {"endpoint": 360, "stt": None, "gap": 600}}),
        ("agent.interrupted", 5000, {"stop_ms": 120, "at_ms": 4900}),
        ("tool.finished", 6000, {"name": "transfer_to_operator"}),
        ("call.finished", 9000, {"result": "transferred", "next_step": "dial:600"}),
    )
    assert notes.turns[0]["stages_ms"]["gap"] == 600
    assert notes.interruptions_ms == [4900]
    assert notes.finished["result"] == "transferred" and notes.finished_ms == 9000
    assert "endpoint 360 ms" in text and "stt" not in text
    assert "120 ms after" in text and "dial:600" in text


def test_what_is_kept_is_readable_in_every_language(tmp_path: Path) -> None:
    _json(tmp_path / "notes.json", {"said": "Привіт"})
    text = (tmp_path / "notes.json").read_text(encoding="utf-8")
    assert "Привіт" in text and json.loads(text) == {"said": "Привіт"}


def test_every_script_asks_for_a_person_and_speaks_over_the_agent() -> None:
    for script in SCRIPTS.values():
        assert script.notice and script.over and script.person and len(script.lines) >= 3
