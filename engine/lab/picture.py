"""A call in one picture: both voices, the turns, the interruption and where each turn's time went."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from engine.media.frame import Samples

STAGES = (
    ("endpoint", "#7f8c9b"),
    ("stt", "#3a6ea5"),
    ("llm_first_sentence", "#c77d22"),
    ("tts_first_frame", "#4f8a4c"),
)
LINE = 32
"""Characters in a line of what was said."""
LEVEL = 1.05
"""Where words stand above or below the sound, whose full scale is 1."""
APART = 6.0
"""Pixels between neighbours."""
HEIGHT = 1.9
"""With three lines of words."""
CALLER, AGENT, CUT, MOVED = "#2b5c8a", "#8a4b2b", "#b3261e", "#444444"


@dataclass(frozen=True, slots=True)
class Said:
    """Words on the time axis; seconds since the answer."""

    who: str
    text: str
    start_s: float
    end_s: float
    status: str = "heard"


def draw(
    path: Path,
    *,
    title: str,
    rate: int,
    caller: Samples,
    agent: Samples,
    said: Sequence[Said],
    turns: Sequence[dict[str, Any]],
    interruptions_s: Sequence[float],
    transfer_s: float | None,
) -> None:
    """`turns` have `at_s` (the caller's last sound), `gap` and the stages, in milliseconds."""
    seconds = max(len(caller), len(agent)) / rate
    figure, (top, bottom, bars) = plt.subplots(
        3, 1, figsize=(max(12, seconds * 0.32), 9.2), sharex=True,
        gridspec_kw={"height_ratios": (3, 3, 2.2)}, layout="constrained",
    )  # fmt: skip
    words: list[tuple[float, Any]] = []
    for axis, samples, who, colour in (
        (top, caller, "caller", CALLER),
        (bottom, agent, "agent", AGENT),
    ):
        _wave(axis, samples, rate, colour)
        axis.set_ylabel(who)
        words += [(item.start_s, _words(axis, item, colour)) for item in said if item.who == who]
        for at in interruptions_s:
            axis.axvline(at, color=CUT, linestyle="--", linewidth=1.2)
        if transfer_s is not None:
            axis.axvline(transfer_s, color=MOVED, linewidth=1.2)
    marks = [_mark(top, at, "interrupts", CUT) for at in interruptions_s]
    if transfer_s is not None:
        marks.append(_mark(bottom, transfer_s, "transfer", MOVED))
    marks += _bars(bars, turns)
    bars.set_xlabel("seconds since the call was answered")
    bars.set_xlim(0, seconds)
    figure.suptitle(title, fontsize=11)
    _make_room(figure, bars, seconds, words, marks)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _make_room(
    figure: Any,
    axis: Any,
    seconds: float,
    words: Sequence[tuple[float, Any]],
    marks: Sequence[tuple[float, Any]],
) -> None:
    """Lengthen the time axis until every text ends on it, then keep neighbours apart: above, below."""
    figure.canvas.draw()
    across = axis.bbox.width
    scale = across / seconds
    # A text keeps its width in pixels, so a longer axis moves its start to the left only.
    widths = {
        text: text.get_window_extent().x1 - at * scale - axis.bbox.x0
        for at, text in (*words, *marks)
    }
    limit = max(
        [seconds, *(at / (1 - min(0.9, widths[text] / across)) for at, text in (*words, *marks))]
    )
    # Neighbours that do not fit stand later than they sound, which may ask for a longer axis again.
    for _ in range(10):
        if (end := _place(words, widths, limit / across)) <= limit:
            break
        limit = end
    axis.set_xlim(0, limit * 1.01)
    lowest = min((text.get_position()[1] for _, text in words), default=0.0)
    for sound in {text.axes for _, text in words}:
        sound.set_ylim(-HEIGHT if lowest < 0 else -LEVEL, HEIGHT)


def _place(
    words: Sequence[tuple[float, Any]], widths: Mapping[Any, float], seconds_per_pixel: float
) -> float:
    """Each text above its sound, or below where that is taken; returns where the last one ends, in seconds."""
    free = {(text.axes, side): 0.0 for _, text in words for side in (1, -1)}
    for at, text in sorted(words, key=lambda item: item[0]):
        above, below = free[text.axes, 1], free[text.axes, -1]
        side = 1 if above <= at or above <= below else -1
        start = max(at, free[text.axes, side])
        free[text.axes, side] = start + (widths[text] + APART) * seconds_per_pixel
        text.set(x=start, y=LEVEL * side, verticalalignment="bottom" if side > 0 else "top")
    return max(free.values(), default=0.0)


def _wave(axis: Any, samples: Samples, rate: int, colour: str) -> None:
    step = rate // 100
    whole = len(samples) // step * step
    blocks = samples[:whole].reshape(-1, step).astype(np.float32) / 32768
    times = np.arange(len(blocks)) * step / rate
    axis.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), color=colour, linewidth=0)
    axis.set_ylim(-HEIGHT, HEIGHT)
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _words(axis: Any, item: Said, colour: str) -> Any:
    heard = item.status != "unheard"
    lines = textwrap.wrap(item.text, LINE, max_lines=3, placeholder="…")
    text = "\n".join(lines) + (" ✂" if item.status == "cut" else "")
    return axis.text(
        item.start_s, LEVEL, text, fontsize=7.5, zorder=3, linespacing=1.15,
        color=colour if heard else "#999999", style="normal" if heard else "italic",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )  # fmt: skip


def _mark(axis: Any, at: float, what: str, colour: str) -> tuple[float, Any]:
    text = axis.annotate(what, (at, 0.99), xycoords=("data", "axes fraction"), color=colour,
                         fontsize=8, ha="left", va="top", xytext=(3, 0), textcoords="offset points")  # fmt: skip
    return at, text


def _bars(axis: Any, turns: Sequence[dict[str, Any]]) -> list[tuple[float, Any]]:
    """Each turn's stages as they followed one another after the caller's last sound; the figures' texts."""
    figures = []
    axis.set_ylabel("ms after the\ncaller's last sound")
    for turn in turns:
        at = turn["at_s"]
        for offset, (stage, colour) in enumerate(STAGES):
            if took := turn.get(stage):
                axis.bar(at + offset * 0.28, took, width=0.25, color=colour, align="edge")
        if gap := turn.get("gap"):
            axis.hlines(gap, at, at + 1.3, color="black", linewidth=1.2)
            figures.append((at, axis.text(at, gap + 25, f"{gap:.0f} ms", fontsize=8)))
    handles = [Rectangle((0, 0), 1, 1, color=colour) for _, colour in STAGES]
    axis.legend([*handles, Line2D([], [], color="black")],
                ["end of turn", "hearing", "thinking", "voice", "gap, as the caller hears it"],
                fontsize=7.5, ncols=5, loc="upper left", frameon=False)  # fmt: skip
    axis.margins(y=0.35)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figures
