"""Draws the figures of experiments from their CSVs, in the style of a report.

python experiments/figures.py

Prints each figure as Markdown, with its alternative text. A figure whose CSV lacks
something is left out, and why is said.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from PIL import Image

from avalanche_gd.report.drawing import draw, panels, plain
from avalanche_gd.report.section import in_words
from avalanche_gd.report.style import Style, styles_for
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import COSTS, METRICS
from avalanche_gd.runs.pictures import decorate
from avalanche_gd.storage import write_bytes

HERE = Path(__file__).parent
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
GRID = 8  # images to a side of a run's picture of samples


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
        raise ValueError(f"no family for {self.method}; add it to FAMILIES in figures.py")

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
        """The mean over seeds after the last experience."""
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


def in_log(axis: Any, subs: tuple[float, ...]) -> None:
    """Give an axis of numbers a logarithmic scale, with those ticks a decade."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


# FID by cost


@matplotlib.rc_context(ON_ANY_PAGE)
def fid_by_cost(folder: Path) -> tuple[Figure, str]:
    """A numbered point for each method, bars from lowest to highest seed, and a key.

    Without those that make no pass of a denoiser.

    :param folder: of the experiment.
    """
    measured = [m for m in read(folder / "runs.csv", FID, COST) if m.mean(COST) > 0]
    by_family = {
        family: sorted(own, key=lambda m: m.mean(FID))
        for family in FAMILIES
        if (own := [m for m in measured if m.family == family])
    }
    numbered = [m for own in by_family.values() for m in own]
    longest = max(len(m.label) for m in numbered)
    columns = key(by_family, 2 if longest < LONGEST_BESIDE else 1)
    figure, [[axis]] = panels(1, 1, (WIDTH, 4.3 + 0.165 * len(columns[0])))
    for m in numbered:
        low, high = min(m.finals(FID)), max(m.finals(FID))
        axis.vlines(m.mean(COST), low, high, color=m.style["color"], lw=0.8, alpha=0.7)
        axis.plot(m.mean(COST), m.mean(FID), **m.style)
    decorate(axis, f"{FID.label}, in the oracle's features")
    axis.set_xlabel("F a step: forward passes of the denoiser")
    in_log(axis.xaxis, (1, 2, 3, 4, 6, 8))
    in_log(axis.yaxis, (1, 2, 5))
    axis.margins(0.09)
    entries = [entry for column in columns for entry in column]
    legend = figure.legend(
        *zip(*entries, strict=True),
        loc="outside lower center",
        ncols=len(columns),
        fontsize=8,
        frameon=False,
        columnspacing=0.8,
        handletextpad=0.2,
        handlelength=1,
    )
    for text in legend.get_texts():
        text.set_fontweight("bold" if text.get_text() in FAMILIES else "normal")
    number(axis, [(m.mean(COST), m.mean(FID), m.finals(FID)) for m in numbered])
    told = (f"{m.label} {FID.text(m.mean(FID))} at {m.mean(COST):.1f} F" for m in numbered)
    return figure, f"FID after the last experience, by F a step. {', '.join(told)}."


def key(by_family: dict[str, list[Measured]], count: int) -> list[list[tuple[Line2D, str]]]:
    """The key's columns of the same length; no family is in two."""
    nothing, n = Line2D([], [], ls="none"), 0
    columns: list[list[tuple[Line2D, str]]] = [[]]
    half = sum(len(own) + 1 for own in by_family.values()) / 2
    for family, own in by_family.items():
        if len(columns) < count and len(columns[-1]) + (len(own) + 1) / 2 > half:
            columns.append([])
        columns[-1].append((nothing, family))
        for m in own:
            n += 1
            columns[-1].append((Line2D([], [], **m.style), f"{n} {plain(m.label)}"))
    length = max(map(len, columns))
    return [column + [(nothing, "")] * (length - len(column)) for column in columns]


def number(axis: Axes, points: Sequence[tuple[float, float, list[float]]]) -> None:
    """Write 1, 2, ... beside points, where no number covers another or a point.

    Each as near to its point as can be, and not on a bar if there is room.

    :param points: x, y, and what a bar stands for.
    """
    figure: Any = axis.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # from here on, all stays where it is
    scale = 72 / figure.dpi  # from pixels to points

    def place_of(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
        return axis.transData.transform(pairs) * scale

    spots = place_of([(x, y) for x, y, _ in points])
    bars = [place_of([(x, min(own)), (x, max(own))]) for x, _, own in points]
    low, high = axis.get_window_extent().get_points() * scale
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    around = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ways = np.concatenate([around * radius for radius in np.arange(7.5, 90, 1.5)])
    far = np.hypot(*ways.T)
    boxes = [(spot, np.full(2, 3.0)) for spot in spots]  # middle, and half of the sides
    distances = np.hypot(*np.moveaxis(spots[:, None] - spots, 2, 0))
    for i in np.argsort(-(distances < 20).sum(axis=1), kind="stable"):  # crowded first
        half = np.array([2.6 * len(str(i + 1)), 4.2])
        middles = spots[i] + ways
        is_free = ((low + half < middles) & (middles < high - half)).all(axis=1)
        for middle, other in boxes:
            is_free &= (abs(middles - middle) >= half + other).any(axis=1)
        on_bars = sum(
            ((bar[0] - half < middles) & (middles < bar[1] + half)).all(axis=1)
            for bar in bars
        )
        to_spots = np.hypot(*np.moveaxis(middles[:, None] - spots, 2, 0))
        is_unclear = to_spots.min(axis=1) < far - 0.1
        is_free &= ~is_unclear | (far > 18)  # there, a line shows whose it is
        badness = far + 8 * on_bars
        best = np.where(is_free, badness, math.inf).argmin()
        boxes.append((middles[best], half))
        line = dict(arrowstyle="-", color=INK, lw=0.5, shrinkA=0, shrinkB=0)
        axis.annotate(
            str(i + 1),
            points[i][:2],
            ways[best],
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            arrowprops=line if far[best] > 11 else None,
        )


# Forgetting


@matplotlib.rc_context(ON_ANY_PAGE)
def forgetting(folder: Path) -> tuple[Figure, str]:
    """FID over experiences, a panel a method, the best at the end first.

    A thin line for each seed and a thick one for their mean; in grey the means of naive
    and joint with the same settings. A method that is not trained on a stream has none.

    :param folder: of the experiment.
    """
    measured = read(folder / "runs.csv", FID)
    streams = [m for m in measured if len(m.curves(FID)[0]) > 1]
    lines = {"naive": "--", "joint": ":"}
    shown = [m for m in streams if m.method not in lines]
    shown.sort(key=lambda m: m.mean(FID))
    rows = math.ceil(len(shown) / 2)
    figure, axes = panels(rows, 2, (WIDTH, 0.9 + 1.05 * rows))
    values = [v for m in streams for points in m.curves(FID) for v in points.values()]
    for place, axis in enumerate(axes.flat):
        if place >= len(shown):
            axis.remove()
            continue
        m = shown[place]
        for other in streams:
            if other.method in lines and other.settings == m.settings:
                axis.plot(*mean_curve(other, FID), color=INK, ls=lines[other.method], lw=1)
        color = m.style["color"]
        for points in m.curves(FID):
            axis.plot(list(points), list(points.values()), color=color, lw=0.7, alpha=0.6)
        axis.plot(*mean_curve(m, FID), color=color, lw=2)
        decorate(axis, "")
        title = plain(m.label)
        if len(title) > LONGEST_BESIDE:
            title = title.replace(", ", ",\n", 1)
        axis.set_title(title, fontsize=7.5, loc="left")
        # LogLocator puts many ticks where it finds fewer than two of these.
        in_log(axis.yaxis, (1, 3) if max(values) > 10 * min(values) else (1, 2, 5))
        axis.set(ylim=(0.85 * min(values), 1.15 * max(values)))
        axis.label_outer()
        if place + 2 < len(shown):
            axis.set_xlabel("")
            axis.tick_params(labelbottom=False)
        else:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("experience")
    drawn = [Line2D([], [], color=INK, ls=ls, lw=1, label=n) for n, ls in lines.items()]
    drawn += [
        Line2D([], [], color=INK, lw=0.7, label="a seed"),
        Line2D([], [], color=INK, lw=2, label="mean over seeds"),
    ]
    title = f"{FID.label}, in the oracle's features"
    figure.legend(
        handles=drawn, loc="outside upper center", ncols=4, frameon=False, title=title
    )
    ranking = (f"{m.label} {FID.text(m.mean(FID))}" for m in shown)
    return figure, f"FID over experiences. After the last: {', '.join(ranking)}."


def mean_curve(m: Measured, column: Column) -> tuple[list[int], list[float]]:
    """Experiences that all seeds have, and the mean over these."""
    curves = m.curves(column)
    experiences = sorted(set.intersection(*map(set, curves)))
    return experiences, [statistics.fmean(c[x] for c in curves) for x in experiences]


# Overview


@matplotlib.rc_context(ON_ANY_PAGE | {"font.size": 10})
def overview(folder: Path) -> tuple[Figure, str]:
    """FID and accuracy over experiences, and a row of images that each method generated.

    Means, in bands from the lowest seed to the highest; the images are of seed 0.

    :param folder: of the experiment, with ``samples/METHOD.png``.
    :raises ValueError: if there are no samples of a method.
    """
    measured = read(folder / "runs.csv", FID, ACCURACY)
    for m in measured:
        if not (folder / "samples" / f"{m.method}.png").is_file():
            raise ValueError(f"{folder / 'samples'} has no {m.method}.png")
    styles = styles_for(m.label for m in measured)
    heights = [1, *[0.21] * len(measured)]
    figure = Figure(figsize=(5, 2.6 + 0.54 * len(measured)), layout="constrained")
    grid = figure.add_gridspec(1 + len(measured), 2, height_ratios=heights)
    for place, column in enumerate((FID, ACCURACY)):
        axis: Axes = figure.add_subplot(grid[0, place])
        for m in measured:
            x, y = mean_curve(m, column)
            own = [[points[i] for i in x] for points in m.curves(column)]
            axis.plot(x, y, **styles[m.label] | {"markersize": 5})
            bounds = np.min(own, axis=0), np.max(own, axis=0)
            axis.fill_between(x, *bounds, color=styles[m.label]["color"], alpha=0.2)
        decorate(axis, column.heading)
    in_log(figure.axes[0].yaxis, (1, 2, 5))
    for place, m in enumerate(measured, start=1):
        axis = figure.add_subplot(grid[place, :])
        axis.imshow(first_images(folder / "samples" / f"{m.method}.png"))
        axis.set_axis_off()
        color = styles[m.label]["color"]
        axis.set_title(plain(m.label), loc="left", fontsize=9.5, pad=2, color=color)
    told = (
        f"{m.label} {FID.text(m.mean(FID))} and {m.mean(ACCURACY):.2f}" for m in measured
    )
    alt = "FID and accuracy of the solver over experiences, and generated images. "
    return figure, f"{alt}At the end: {', '.join(told)}."


def first_images(path: Path) -> np.ndarray:
    """The first two rows of a grid of 8 by 8 images, as one."""
    with Image.open(path, formats=["PNG"]) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    cell, line = divmod(len(pixels), GRID)  # a line of pixels is around each image
    first, second = (pixels[i * cell : (i + 1) * cell + line] for i in range(2))
    return np.concatenate([first, second[:, line:]], axis=1)


Figures = dict[str, Callable[[Path], tuple[Figure, str]]]
OF_METHODS: Figures = {"fid-by-cost.svg": fid_by_cost, "forgetting.svg": forgetting}
FIGURES: dict[str, Figures] = {
    "split_fmnist_small": OF_METHODS,
    "split_cifar10_small": OF_METHODS,
    "split_digits": {"overview.png": overview},
}


def content(figure: Figure, name: str, alt: str) -> bytes:
    """A figure as a file, the same bytes each time."""
    if name.endswith(".svg"):
        return draw(figure, name, alt).svg
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return png.getvalue()


def main() -> None:
    """Draw all."""
    for experiment, figures in FIGURES.items():
        for name, make in figures.items():
            path = HERE / experiment / name
            try:
                figure, alt = make(path.parent)
            except ValueError as error:
                print(f"{path} is left out: {error}\n")
                continue
            write_bytes(path, content(figure, name, alt))
            print(f"![{alt}]({experiment}/{name})\n")


if __name__ == "__main__":
    main()
