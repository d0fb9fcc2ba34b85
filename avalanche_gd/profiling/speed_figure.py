"""The figure of a speed measurement."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from avalanche_gd.profiling.timing_table import Measurement

_GROWTH = {"step by experience": "experience", "step by batch": "batch size"}
_BARS = {"step": "method", "step by model": "model"}


def save_figure(rows: Sequence[Measurement], path: Path) -> None:
    """Draw steps together with their passes, and how the time of a step grows.

    :param rows: the rows of all parts, some of which may be missing.
    """
    parts = {**_BARS, **_GROWTH}
    shown = [part for part in parts if any(row.part == part for row in rows)]
    figure = Figure(figsize=(3 + 3 * len(shown), 4.8), layout="constrained")
    ratios = [1.6 if part == "step" else 1 for part in shown]
    axes = figure.subplots(1, len(shown), width_ratios=ratios, squeeze=False)
    for axis, part in zip(axes[0], shown, strict=True):
        draw = _bars if part in _BARS else _curves
        draw(axis, [row for row in rows if row.part == part])
        axis.set_title(f"by {parts[part]}", fontsize=10)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _bars(axis: Any, rows: Sequence[Measurement]) -> None:
    places = range(len(rows))
    passes = [row.passes_ms for row in rows]
    separate = [row.separate_ms for row in rows]
    axis.barh(places, [row.ms for row in rows], color="#c9d8e8", label="a step")
    axis.barh(places, passes, height=0.4, color="#2f6ba8", label="its passes alone")
    axis.plot(separate, places, "|", color="#c07a1f", ms=12, label="made separately")
    for place, row in zip(places, rows, strict=True):
        axis.text(row.ms, place, f" {row.ratio:.2f}", va="center", fontsize=8)
    axis.set_yticks(places, [row.name for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set_xlabel("ms, and step over passes")


def _curves(axis: Any, rows: Sequence[Measurement]) -> None:
    places = range(len(rows))
    low, high = [row.ms_low for row in rows], [row.ms_high for row in rows]
    axis.plot(places, [row.ms for row in rows], "o-", color="#c07a1f", label="a step")
    axis.fill_between(places, low, high, alpha=0.2, color="#c07a1f")
    passes = [row.passes_ms for row in rows]
    axis.plot(places, passes, "o--", color="#2f6ba8", label="passes")
    axis.set_xticks(places, [f"{row.at:g}" for row in rows])
    axis.set_ylim(bottom=0)
    axis.set_ylabel("ms")
