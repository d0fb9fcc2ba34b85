"""A figure: FID by the passes that a step costs, a numbered point for each method."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from avalanche_gd.report.drawing import panels, plain
from avalanche_gd.runs.pictures import decorate
from measured import (
    COST,
    FAMILIES,
    FID,
    INK,
    LONGEST_BESIDE,
    ON_ANY_PAGE,
    WIDTH,
    Measured,
    in_log,
    read,
)


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
