"""The picture of a speed measurement."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import ScalarFormatter

from avalanche_gd.profiling.timing_table import Measurement

_GROWTH = {"step by experience": "experience", "step by batch": "batch size"}
_BARS = {"step": "by method", "step by model": "by model"}


def save_figure(rows: Sequence[Measurement], path: Path) -> None:
    """Steps beside their passes, and how a step grows.

    :param rows: of all parts, some of which may be missing.
    """
    by_part = {p: [row for row in rows if row.part == p] for p in (*_BARS, *_GROWTH)}
    shown = {part: own for part, own in by_part.items() if own}
    figure, axes = plt.subplots(
        1,
        len(shown),
        figsize=(3 + 3 * len(shown), 4.8),
        layout="constrained",
        width_ratios=[1.6 if part == "step" else 1 for part in shown],
        squeeze=False,
    )
    for axis, (part, own) in zip(axes[0], shown.items(), strict=True):
        if part in _BARS:
            _bars(axis, own)
            axis.set_title(_BARS[part], fontsize=10)
        else:
            _curves(axis, own, _GROWTH[part])
            axis.set_title(f"by {_GROWTH[part]}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _bars(axis: Any, rows: Sequence[Measurement]) -> None:
    places = range(len(rows))
    axis.barh(places, [row.ms for row in rows], color="#c9d8e8", label="a step")
    axis.barh(
        places,
        [row.passes_ms or 0.0 for row in rows],
        height=0.4,
        color="#2f6ba8",
        label="its passes alone",
    )
    for place, row in zip(places, rows, strict=True):
        axis.text(row.ms, place, f" {row.ratio:.2f}", va="center", fontsize=8)
    axis.set_yticks(places, [row.name for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    axis.set_xlabel("ms, and step over passes")
    axis.legend(fontsize=8)


def _curves(axis: Any, rows: Sequence[Measurement], label: str) -> None:
    x = [row.at for row in rows]
    axis.plot(x, [row.ms for row in rows], "o-", color="#c07a1f", label="a step")
    axis.plot(
        x, [row.passes_ms or 0.0 for row in rows], "o--", color="#2f6ba8", label="passes"
    )
    axis.fill_between(
        x, [row.ms_low for row in rows], [row.ms_high for row in rows], alpha=0.2,
        color="#c07a1f",
    )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(x)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_xlabel(label)
    axis.set_ylabel("ms")
    axis.legend(fontsize=8)
