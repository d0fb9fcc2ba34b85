"""The methods of a runs.csv, and the style in which figures draw them."""

import csv
import math
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from avalanche_gd.report.section import in_words
from avalanche_gd.report.style import Style, styles_for
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import COSTS, METRICS

FID, ACCURACY, COST = (
    next(column for column in (*METRICS, *COSTS) if column.name == name)
    for name in ("FID", "accuracy", "F_per_step")
)
FAMILIES = {
    "References": ("naive", "joint", "iid"),
    "Generative replay and distillation": (
        "generative_distillation",
        "generative_replay",
        "vae_replay",
        "pair_distillation",
        "pooled_distillation",
        "gaussian_distillation",
        "symmetric_gaussian_distillation",
        "current_distillation",
        "partial_generation_distillation",
        "trajectory_distillation",
        "snr_split_distillation",
        "balanced_distillation",
        "guide_distillation",
    ),
    "Penalties": ("ewc", "si", "mas", "rwalk", "rank1_ewc"),
    "Memories of real images": ("experience_replay", "gem", "agem", "mir"),
    "Both replay and a penalty": (
        "rank1_distillation",
        "ewc_distillation",
        "rank1_replay",
    ),
}
INK = "#797979"  # as readable on white as on a dark page
STYLES = styles_for(FAMILIES)
STYLES["References"]["color"] = INK
ON_ANY_PAGE: dict[str, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "font.size": 8.5,
}
WIDTH = 4.4  # inches: a column of a page, or the width of a phone
LONGEST_BESIDE = 34  # characters of a label of which two stand side by side


@dataclass
class Measured:
    """The runs of a method with the same settings."""

    method: str
    settings: str
    """That tell it from other runs of the experiment, as in the CSV."""
    label: str
    is_variant: bool
    """True if its settings are not the first of the CSV."""
    rows: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    """By seed."""

    @property
    def family(self) -> str:
        """The first word in a key.

        :raises ValueError: if the method is in none.
        """
        for family, names in FAMILIES.items():
            if self.method.partition(",")[0] in names:
                return family
        raise ValueError(f"no family for {self.method}; add it to FAMILIES in measured.py")

    @property
    def style(self) -> Style:
        """That of its family; hollow for a variant."""
        style = STYLES[self.family]
        return style | {
            "fillstyle": "none" if self.is_variant else "full",
            "markeredgecolor": style["color"],
            "linestyle": "none",
            "markersize": 5,
        }

    def curves(self, column: Column) -> list[dict[int, float]]:
        """A column by experience, of each seed that has it."""
        found = [
            {
                int(row["experience"]): float(text)
                for row in rows
                if (text := row[column.name])
            }
            for rows in self.rows.values()
        ]
        return [points for points in found if points]

    def finals(self, column: Column) -> list[float]:
        """A column after the last experience that has it, of each seed."""
        return [points[max(points)] for points in self.curves(column)]

    def mean(self, column: Column) -> float:
        """The mean over seeds after the last experience that has it."""
        return statistics.fmean(self.finals(column))


def read(path: Path, *needed: Column) -> list[Measured]:
    """The methods of a ``runs.csv`` that have finite values of all columns.

    :raises ValueError: if none has.
    """
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    lacking = [c.name for c in needed if not any(row.get(c.name) for row in rows)]
    if lacking:
        raise ValueError(f"{path} has no {' and '.join(lacking)}")
    words = in_words(row.get("settings") or "" for row in rows)
    found: dict[tuple[str, str], Measured] = {}
    for row in rows:
        settings, method = row.get("settings") or "", row["method"]
        short = method.replace("method.", "")
        label = ", ".join(filter(None, [short, words[settings]]))
        own = Measured(method, settings, label, words[settings] != "")
        own = found.setdefault((settings, method), own)
        own.rows.setdefault(row["seed"], []).append(row)
    return [
        own
        for own in found.values()
        if all(own.curves(c) and math.isfinite(own.mean(c)) for c in needed)
    ]


def by_method(path: Path) -> dict[str, dict[str, list[dict[str, str]]]]:
    """The rows of a ``runs.csv`` in their order, by method and seed.

    What tells a report's section from its first is part of the method here: in a word if
    that is another for each section.
    """
    found: dict[str, dict[str, list[dict[str, str]]]] = {}
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    words = in_words(row.get("settings") or "" for row in rows)
    for row in rows:
        word = words[row.get("settings") or ""]
        method = ", ".join(filter(None, [row["method"], word]))
        found.setdefault(method, {}).setdefault(row["seed"], []).append(row)
    return found


def finals(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    """The rows after the last experience, by method and seed."""
    return {
        method: {seed: rows[-1] for seed, rows in by_seed.items()}
        for method, by_seed in by_method(path).items()
    }


def in_log(axis: Any, subs: tuple[float, ...]) -> None:
    """Give an axis of numbers a logarithmic scale, with those ticks a decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


def mean_curve(m: Measured, column: Column) -> tuple[list[int], list[float]]:
    """Experiences that all seeds have, and the mean over these."""
    curves = m.curves(column)
    experiences = sorted(set.intersection(*map(set, curves)))
    return experiences, [statistics.fmean(c[x] for c in curves) for x in experiences]
