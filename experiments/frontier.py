"""Draw quality against cost for the settings of an experiment, from its CSV.

python experiments/frontier.py experiments/cost_and_quality
"""

import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import METRICS
from measured import finals

QUALITIES = [metric for metric in METRICS if metric.name in ("FID", "KLD")]
MARKERS = "osD^vP*Xp"
NAMES = {
    "method.": "",
    "generator.": "",
    "generative_distillation, ": "",
    "_distillation": "",
    "replay_ratio=1.0, ": "",
    "pool_size=2000": "pool",
    "teacher_steps=": "k=",
    "replay_ratio=": "ratio ",
    "ema_decay=": "EMA ",
}


class Setting(NamedTuple):
    """The cost of a setting, and its quality after the last experience."""

    name: str
    cost: float
    """F per step."""
    value: float
    """With the first seed, with which every setting was run."""
    others: list[float]
    """With the other seeds."""


def settings(path: Path, quality: Column) -> list[Setting]:
    """The settings of an experiment's CSV, the cheapest first."""
    found = []
    for label, by_seed in finals(path).items():
        cost = next(float(r["F_per_step"]) for r in by_seed.values() if r["F_per_step"])
        value, *others = (float(row[quality.name]) for row in by_seed.values())
        found.append(Setting(short(label), cost, value, others))
    return sorted(found, key=lambda setting: setting.cost)


def short(label: str) -> str:
    """A short label that is still different from the others."""
    for long, name in NAMES.items():
        label = label.replace(long, name)
    return label


def draw(axis: Axes, found: list[Setting], title: str) -> None:
    """Draw a point for each setting, dashes for its other seeds, and the line of the best.

    The best are the settings that no cheaper one beats.
    """
    best: list[Setting] = []
    for setting in found:
        if not best or setting.value < best[-1].value:
            best.append(setting)
    line = [(setting.cost, setting.value) for setting in best]
    axis.step(*zip(*line, strict=True), where="post", color="#b8b8b8", zorder=1)
    for number, setting in enumerate(found):
        style = dict(color=f"C{number}", marker=MARKERS[number % len(MARKERS)])
        axis.plot(setting.cost, setting.value, ls="", label=setting.name, **style)
        for value in setting.others:
            axis.plot(setting.cost, value, "_", color=f"C{number}", markersize=10)
    axis.set_xlabel("F a step: forward passes of the denoiser, pool included")
    axis.set_title(f"{title}; seed 0, other seeds as dashes", fontsize=10)
    axis.margins(x=0.08, y=0.1)
    axis.grid(alpha=0.3)


def main() -> None:
    """Write ``frontier.png`` next to the CSV."""
    folder = Path(sys.argv[1])
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for axis, quality in zip(axes, QUALITIES, strict=True):
        draw(axis, settings(folder / "runs.csv", quality), quality.label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(folder / "frontier.png", dpi=120)


if __name__ == "__main__":
    main()
