"""A call in one picture: both voices, the turns, the interruption and where each turn's time went."""

from __future__ import annotations

from collections.abc import Sequence
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
CALLER, AGENT, CUT = "#2b5c8a", "#8a4b2b", "#b3261e"


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
        3, 1, figsize=(max(12, seconds * 0.32), 8.4), sharex=True,
        gridspec_kw={"height_ratios": (3, 3, 2.4)}, layout="constrained",
    )  # fmt: skip
    for axis, samples, who, colour in (
        (top, caller, "caller", CALLER),
        (bottom, agent, "agent", AGENT),
    ):
        _wave(axis, samples, rate, colour)
        axis.set_ylabel(who)
        for number, item in enumerate(entry for entry in said if entry.who == who):
            _words(axis, item, number, colour)
    for at in interruptions_s:
        for axis in (top, bottom):
            axis.axvline(at, color=CUT, linestyle="--", linewidth=1.2)
        top.annotate("interrupts", (at, 0.97), xycoords=("data", "axes fraction"), color=CUT,
                     fontsize=8, ha="left", va="top", xytext=(3, 0), textcoords="offset points")  # fmt: skip
    if transfer_s is not None:
        for axis in (top, bottom):
            axis.axvline(transfer_s, color="#444444", linewidth=1.2)
        bottom.annotate("transfer", (transfer_s, 0.97), xycoords=("data", "axes fraction"), fontsize=8,
                        ha="left", va="top", xytext=(3, 0), textcoords="offset points")  # fmt: skip
    _bars(bars, turns)
    bars.set_xlabel("seconds since the call was answered")
    bars.set_xlim(0, seconds)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _wave(axis: Any, samples: Samples, rate: int, colour: str) -> None:
    step = rate // 100
    whole = len(samples) // step * step
    blocks = samples[:whole].reshape(-1, step).astype(np.float32) / 32768
    times = np.arange(len(blocks)) * step / rate
    axis.fill_between(times, blocks.min(axis=1), blocks.max(axis=1), color=colour, linewidth=0)
    axis.set_ylim(-1.5, 1.5)
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _words(axis: Any, item: Said, number: int, colour: str) -> None:
    heard = item.status not in ("unheard",)
    level = 1.05 if number % 2 == 0 else -1.3
    text = item.text if len(item.text) < 60 else item.text[:57] + "…"
    if item.status == "cut":
        text += " ✂"
    axis.text(item.start_s, level, text, fontsize=7.5, color=colour if heard else "#999999",
              style="normal" if heard else "italic", clip_on=True)  # fmt: skip


def _bars(axis: Any, turns: Sequence[dict[str, Any]]) -> None:
    """Each turn's stages as they followed one another after the caller's last sound."""
    axis.set_ylabel("ms after the\ncaller's last sound")
    for turn in turns:
        at = turn["at_s"]
        for offset, (stage, colour) in enumerate(STAGES):
            if took := turn.get(stage):
                axis.bar(at + offset * 0.28, took, width=0.25, color=colour, align="edge")
        if gap := turn.get("gap"):
            axis.hlines(gap, at, at + 1.3, color="black", linewidth=1.2)
            axis.text(at, gap + 25, f"{gap:.0f} ms", fontsize=8)
    handles = [Rectangle((0, 0), 1, 1, color=colour) for _, colour in STAGES]
    axis.legend([*handles, Line2D([], [], color="black")],
                ["end of turn", "hearing", "thinking", "voice", "gap, as the caller hears it"],
                fontsize=7.5, ncols=5, loc="upper left", frameon=False)  # fmt: skip
    axis.margins(y=0.35)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
