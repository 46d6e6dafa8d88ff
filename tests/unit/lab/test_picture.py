from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from engine.lab.picture import Said, draw, plt  # noqa: E402  # it needs matplotlib

RATE = 8000
LONG = (
    "We are open from nine to five on weekdays, from ten to two on Saturdays, and never on Sundays."
)


def test_every_word_is_inside_the_picture_and_over_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "close", lambda _figure: None)
    said = [
        Said("agent", LONG, 0.5, 4.0),
        Said("agent", LONG, 4.1, 6.0, "cut"),
        Said("caller", "Stop.", 5.5, 6.0),
        Said("agent", "Never.", 4.5, 4.6, "unheard"),
        Said("agent", LONG, 4.7, 4.8),
        Said("agent", LONG, 9.0, 9.9),
        Said("caller", LONG, 9.8, 9.9),
    ]
    draw(
        tmp_path / "call.png",
        title="a call",
        rate=RATE,
        caller=np.zeros(10 * RATE, np.int16),
        agent=np.full(10 * RATE, 9000, np.int16),
        said=said,
        turns=[{"at_s": 9.9, "gap": 700.0, "stt": 200.0}],
        interruptions_s=[5.5],
        transfer_s=9.99,
    )
    figure = plt.gcf()
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert all(box.x1 <= axis.bbox.x1 and box.y1 <= axis.bbox.y1 for box in boxes)
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    shown = "".join(text.get_text() for text in figure.axes[1].texts)
    assert shown.count("We are open") == 4 and "✂" in shown and "transfer" in shown
    figure.clear()
    assert (tmp_path / "call.png").read_bytes().startswith(b"\x89PNG")
