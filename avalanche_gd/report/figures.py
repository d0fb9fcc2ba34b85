"""A report's figures: curves over experiences, and cost against quality."""

import math
import statistics
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from avalanche_gd.report.drawing import Drawing, draw, panels, plain
from avalanche_gd.report.section import Section
from avalanche_gd.report.style import Style
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import COSTS, METRICS
from avalanche_gd.runs.pictures import decorate
from avalanche_gd.runs.results import RunResult

_SHARES = (-0.03, 1.03)
_SIZE = (4.4, 3.9)  # inches: a column of a page, or the width of a phone
_FAR_APART = 4.0  # times the lowest
_TICKS = 6  # so that numbers in the thousands have room
_LEGEND_WIDTH = 60  # characters, in one column
_LEGEND_ROWS, _ROW = 4, 0.21  # for which there is room; the inches of another


def curve_drawings(section: Section, styles: dict[str, Style]) -> list[Drawing]:
    """Draw each metric over experiences, in its own figure, if a run has it."""
    drawings = []
    for metric in METRICS:
        curves = {
            label: having
            for label, runs in section.methods.items()
            if (having := [points for run in runs if (points := run.curve(metric))])
        }
        if not metric.title or not curves:
            continue
        figure, [[axis]] = panels(1, 1, _SIZE)
        for label, of_seeds in curves.items():
            _plot_seeds(axis, label, of_seeds, styles[label])
        decorate(axis, metric.label)
        if metric.in_features:
            axis.set_ylabel(f"in the features of {section.features}")
        alt = (
            f"{metric.label} over {section.length} of {section.benchmark}. "
            f"After the last: {_ranking(section, metric) or 'not measured'}."
        )
        name = f"{section.slug}-{metric.name.lower()}"
        drawings.append(finished(figure, metric, name, alt))
    return drawings


def cost_drawings(section: Section, styles: dict[str, Style]) -> list[Drawing]:
    """Draw the quality of methods against each cost that is known.

    That of the solver is not drawn against a cost of the generator alone.
    """
    drawings = []
    pairs = [
        (cost, quality)
        for cost in COSTS
        for quality in METRICS
        if cost.title and quality.is_quality
        if not (cost.of_generator and quality.key.startswith("solver/"))
    ]
    for cost, quality in pairs:
        points = {
            label: having
            for label, runs in section.methods.items()
            if (having := _points(runs, cost, quality))
        }
        if not points:
            continue
        figure, [[axis]] = panels(1, 1, _SIZE)
        parts = []
        for label, of_seeds in points.items():
            x, y = _plot_point(axis, label, of_seeds, styles[label])
            parts.append(f"{label} {quality.text(y)} at {cost.text(x)} {cost.unit}")
        decorate(axis, f"{quality.label} by {cost.unit}")
        if quality.in_features:
            axis.set_ylabel(f"in the features of {section.features}")
        axis.set(xlabel=cost.title)
        highest = max(x for own in points.values() for x, _ in own)
        axis.set_xlim(0, 1.1 * highest or 1)
        axis.xaxis.set_major_locator(MaxNLocator(_TICKS))
        alt = (
            f"{quality.label} after the last experience of {section.benchmark}, "
            f"by {cost.unit}. {', '.join(parts)}."
        )
        name = f"{section.slug}-{quality.name.lower()}-by-{cost.unit.lower()}"
        drawings.append(finished(figure, quality, name, alt))
    return drawings


def _plot_seeds(
    axis: Axes, label: str, curves: Sequence[dict[int, float]], style: Style
) -> None:
    """Plot the mean over seeds, in a band from the lowest seed to the highest."""
    experiences = sorted(set.intersection(*map(set, curves)))
    values = np.array([[points[x] for x in experiences] for points in curves])
    positions = [x + 1 for x in experiences]
    axis.plot(positions, values.mean(axis=0), label=plain(label), **style)
    low, high = values.min(axis=0), values.max(axis=0)
    axis.fill_between(positions, low, high, color=style["color"], alpha=0.2)


def _plot_point(
    axis: Axes, label: str, points: Sequence[tuple[float, float]], style: Style
) -> tuple[float, float]:
    """Plot and return the mean over seeds, with bars from lowest to highest seed."""
    costs, qualities = zip(*points, strict=True)
    x, y = statistics.fmean(costs), statistics.fmean(qualities)
    axis.plot([x], [y], label=plain(label), **style | {"linestyle": "none"})
    if len(points) > 1:
        axis.hlines(y, min(costs), max(costs), color=style["color"])
        axis.vlines(x, min(qualities), max(qualities), color=style["color"])
    return x, y


def _points(
    runs: Sequence[RunResult], cost: Column, quality: Column
) -> list[tuple[float, float]]:
    """Cost and quality of the runs that have both; none if a value is not finite."""
    points = [
        (x, y)
        for x, y in ((run.final(cost), run.final(quality)) for run in runs)
        if x is not None and y is not None
    ]
    return points if all(math.isfinite(v) for point in points for v in point) else []


def finished(figure: Figure, metric: Column, name: str, alt: str) -> Drawing:
    """Draw the figure with the scale of the metric, and higher by the legend below."""
    axis = figure.axes[0]
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if metric.scale == "log" and low > 0 and high >= _FAR_APART * low:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    elif metric.scale == "share":
        axis.set_ylim(*_SHARES)
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) < 26 else 1
    labels = [_wrapped(label) for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels)
    more = max(0, math.ceil(lines / columns) - _LEGEND_ROWS)
    figure.set_figheight(figure.get_figheight() + _ROW * more)
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
        frameon=False,
    )
    return draw(figure, name, alt)


def _wrapped(label: str) -> str:
    r"""A label in lines for a legend; no escape of a dollar sign is split.

    >>> print(_wrapped("naive, " + "a" * 58 + r"\$"))
    naive,
    aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\$
    """
    text = label.replace(r"\$", "$")
    return textwrap.fill(text, _LEGEND_WIDTH).replace("$", r"\$")


def _ranking(section: Section, metric: Column) -> str:
    """Each method's mean after the last experience, the best first; not finite is last."""
    finals = {
        label: [value for run in runs if (value := run.final(metric)) is not None]
        for label, runs in section.methods.items()
    }
    means = [
        (statistics.fmean(seeds), label, len(seeds))
        for label, seeds in finals.items()
        if seeds
    ]
    sign = -1 if metric.better == "higher" else 1
    means.sort(key=lambda own: sign * own[0] if math.isfinite(own[0]) else math.inf)
    return ", ".join(
        f"{label} {metric.text(mean)} ({count} seed{'s' if count > 1 else ''})"
        for mean, label, count in means
    )
