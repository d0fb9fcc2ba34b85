"""A report's figures: curves over experiences, and cost against quality."""

import math
import statistics
from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

from avalanche_gd.report.collect import Section
from avalanche_gd.report.drawing import Drawing, draw, plain
from avalanche_gd.report.style import Style
from avalanche_gd.report.tables import COLUMNS
from avalanche_gd.runs.pictures import decorate, plot_seeds
from avalanche_gd.runs.results import RunResult

_ACCURACIES = (-0.03, 1.03)
_SIZE = (4.4, 3.9)  # inches: a column of a page, or the width of a phone
_FAR_APART = 4.0  # times the lowest
_TICKS = 6  # that numbers in the thousands have room for
_DIGITS = {column.name: column.digits for column in COLUMNS}
_CURVES = {
    "FID": "FID (lower is better)",
    "KLD": "KLD of classes (lower is better)",
    "accuracy": "Solver accuracy on classes so far",
}
_QUALITIES = {"FID": "FID (lower is better)", "accuracy": "Solver accuracy"}
_COSTS = {
    "seconds": "seconds, evaluation included",
    "F_total": "F, forward passes of the denoiser",
}


def curve_drawings(section: Section, styles: dict[str, Style]) -> list[Drawing]:
    """FID, KLD and accuracy over experiences; not what no run has."""
    drawings = []
    for name, title in _CURVES.items():
        groups = {
            label: having
            for label, runs in section.methods.items()
            if (having := [run for run in runs if run.curve(name)])
        }
        if not groups:
            continue
        figure, axis = _new_figure()
        for label, runs in groups.items():
            curves = [run.curve(name) for run in runs]
            plot_seeds(axis, plain(label), curves, style=styles[label].of_line)
        decorate(axis, title)
        if name == "FID":
            _use_log_scale(axis)
        elif name == "accuracy":
            axis.set_ylim(*_ACCURACIES)
        alt = (
            f"{title} over {section.n_experiences} experiences of {section.benchmark}. "
            f"After the last: {_ranking(groups, name)}."
        )
        drawings.append(_drawn(figure, f"{section.slug}-{name.lower()}", alt))
    return drawings


def cost_drawings(section: Section, styles: dict[str, Style]) -> list[Drawing]:
    """What a method costs against how good it is, for each cost that is known."""
    drawings = []
    for cost, axis_title in _COSTS.items():
        for quality, title in _QUALITIES.items():
            points = {
                label: pairs
                for label, runs in section.methods.items()
                if (pairs := _pairs(runs, cost, quality))
            }
            if not points:
                continue
            figure, axis = _new_figure()
            for label, pairs in points.items():
                _plot_point(axis, label, pairs, styles[label])
            unit = "seconds" if cost == "seconds" else "F"
            decorate(axis, f"{title} by {unit}")
            axis.set(xlabel=axis_title)
            dearest = max(x for pairs in points.values() for x, _ in pairs)
            axis.set_xlim(0, 1.1 * dearest)
            axis.xaxis.set_major_locator(MaxNLocator(_TICKS))
            if quality == "FID":
                _use_log_scale(axis)
            else:
                axis.set_ylim(*_ACCURACIES)
            alt = (
                f"{title} after the last experience of {section.benchmark}, by {unit}. "
                f"{_costs(points, quality, unit)}."
            )
            name = f"{section.slug}-{quality.lower()}-by-{unit.lower()}"
            drawings.append(_drawn(figure, name, alt))
    return drawings


def _new_figure() -> tuple[Figure, Axes]:
    return plt.subplots(figsize=_SIZE, layout="constrained")


def _plot_point(
    axis: Axes, label: str, pairs: Sequence[tuple[float, float]], style: Style
) -> None:
    """The mean over seeds, with bars from the lowest seed to the highest."""
    costs, qualities = zip(*pairs, strict=True)
    x, y = statistics.fmean(costs), statistics.fmean(qualities)
    axis.plot([x], [y], label=plain(label), linestyle="none", **style.of_marker)
    if len(pairs) > 1:
        axis.hlines(y, min(costs), max(costs), color=style.colour)
        axis.vlines(x, min(qualities), max(qualities), color=style.colour)


def _use_log_scale(axis: Axes) -> None:
    """With plain numbers, and only where values are far apart."""
    low, high = axis.dataLim.y0, axis.dataLim.y1
    if low <= 0 or high < _FAR_APART * low:
        return
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _pairs(runs: Sequence[RunResult], cost: str, quality: str) -> list[tuple[float, float]]:
    """Cost and quality of the runs that have both."""
    pairs = [(run.final(cost), run.final(quality)) for run in runs]
    return [
        (x, y)
        for x, y in pairs
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]


def _drawn(figure: Figure, name: str, alt: str) -> Drawing:
    """The figure with its legend below, the same bytes each time."""
    axis = figure.axes[0]
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) < 26 else 1
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
        frameon=False,
    )
    return draw(figure, name, alt)


def _ranking(groups: dict[str, list[RunResult]], name: str) -> str:
    """Each method's mean, the best first."""
    means = {label: _mean(runs, name) for label, runs in groups.items()}
    ordered = sorted(means, key=lambda label: means[label], reverse=name == "accuracy")
    return ", ".join(
        f"{label} {means[label]:.{_DIGITS[name]}f}{_over(groups[label])}"
        for label in ordered
    )


def _costs(points: dict[str, list[tuple[float, float]]], quality: str, unit: str) -> str:
    parts = []
    for label, pairs in points.items():
        cost, value = (statistics.fmean(side) for side in zip(*pairs, strict=True))
        parts.append(f"{label} {value:.{_DIGITS[quality]}f} at {cost:,.0f} {unit}")
    return ", ".join(parts)


def _mean(runs: Sequence[RunResult], name: str) -> float:
    return statistics.fmean(run.final(name) or 0.0 for run in runs)


def _over(runs: Sequence[RunResult]) -> str:
    return f" ({len(runs)} seeds)" if len(runs) > 1 else " (one seed)"
