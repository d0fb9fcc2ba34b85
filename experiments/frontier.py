"""Draws what a setting costs against how good it is, from a comparison's CSV.

python experiments/frontier.py experiments/cost_and_quality
"""

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

QUALITIES = {"FID": "FID (lower is better)", "KLD": "KLD of classes (lower is better)"}
NAMES = {
    "method.": "",
    "generator.": "",
    "generative_distillation, ": "",
    "generative_distillation": "plain",
    "_distillation": "",
    "pool_size=2000": "pool",
    "teacher_steps=": "k=",
    "replay_ratio=": "ratio ",
    "ema_decay=": "EMA ",
}


def points(path: Path, quality: str) -> dict[str, tuple[float, list[float]]]:
    """F a step, and the quality by seed, of each setting after its last experience."""
    finals: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            finals[row["method"]][row["seed"]] = row  # the last experience stays
    found = {}
    for label, by_seed in finals.items():
        cost = next(float(row["F_per_step"]) for row in by_seed.values())
        found[short(label)] = cost, [float(row[quality]) for row in by_seed.values()]
    return found


def short(label: str) -> str:
    """A label as short as it can be and still be told apart."""
    for long, name in NAMES.items():
        label = label.replace(long, name)
    return label


def draw(axis: Axes, settings: dict[str, tuple[float, list[float]]], title: str) -> None:
    """A point for each setting, its seeds, and the line of those that none beats."""
    means = {name: (f, statistics.fmean(values)) for name, (f, values) in settings.items()}
    best: list[tuple[float, float]] = []
    for point in sorted(means.values()):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    axis.step(*zip(*best, strict=True), where="post", color="#9db4cc", zorder=1)
    for name, (cost, values) in settings.items():
        mean = means[name][1]
        on_frontier = (cost, mean) in best
        axis.plot([cost] * len(values), values, "_", color="#8a8a8a", markersize=9)
        axis.plot(cost, mean, "o", color="#2f6ba8" if on_frontier else "#c07a1f")
        axis.annotate(
            f"{name} ({len(values)})", (cost, mean), (5, 4), textcoords="offset points",
            fontsize=7.5,
        )  # fmt: skip
    axis.set_xlabel("F a step: forward passes of the denoiser, pool included")
    axis.set_title(title, fontsize=10)
    axis.margins(x=0.22, y=0.1)
    axis.grid(alpha=0.3)


def main() -> None:
    """Write ``frontier.png`` beside the CSV."""
    folder = Path(sys.argv[1])
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for axis, (quality, title) in zip(axes, QUALITIES.items(), strict=True):
        draw(axis, points(folder / "comparison.csv", quality), title)
    figure.savefig(folder / "frontier.png", dpi=120)


if __name__ == "__main__":
    main()
