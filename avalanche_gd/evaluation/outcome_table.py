"""The outcomes as a CSV, as a table, and as figures in the style of a report."""

from collections.abc import Callable, Sequence

from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from avalanche_gd.evaluation.measure import COLUMNS, Outcome
from avalanche_gd.report.drawing import Drawing, panels, plain
from avalanche_gd.report.figures import finished
from avalanche_gd.report.printable import printable
from avalanche_gd.report.style import styles_for
from avalanche_gd.report.tables import aligned
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.pictures import decorate
from avalanche_gd.runs.results import csv_text

_SIZE = (4.8, 4.4)  # inches
_HEAD = ("model", "guidance", "sampler", "steps", "F_per_image", "seconds", "images")
_WORDS = ("Model", "Guidance", "Sampler", "Steps", "F an image", "Seconds", "Images")
_LABEL = 60  # characters of a model in a terminal
_FID = METRICS[0]

Across = Callable[[Outcome], float]


def as_csv(outcomes: Sequence[Outcome]) -> str:
    """One line for each model, way of sampling and number of images, with all digits."""
    names = [column.name for column in _columns(outcomes)]
    rows = [[*_way(one), *(one.values[name] for name in names)] for one in outcomes]
    return csv_text([*_HEAD, *names], rows)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """The same for a terminal."""
    columns = _columns(outcomes)
    rows = [[*_WORDS, *(column.heading for column in columns)]]
    for one in outcomes:
        _, *way = _way(one)
        shown = [f"{part:.4g}" if isinstance(part, float) else str(part) for part in way]
        cells = [column.text(one.values[column.name]) for column in columns]
        rows.append([printable(one.model, length=_LABEL), *shown, *cells])
    return aligned(rows)


def drawings(outcomes: Sequence[Outcome], features: str) -> list[Drawing]:
    """Draw FID against passes and seconds and, for several numbers, against images.

    :param features: the name of the features that FID uses.
    """
    models = {one.model for one in outcomes}
    most = max(one.images for one in outcomes)
    by_way: dict[str, list[Outcome]] = {}
    by_steps: dict[str, list[Outcome]] = {}
    for one in outcomes:
        guided = f"guidance {one.guidance:g}" if one.guidance != 1 else ""
        model = one.model if len(models) > 1 else ""
        label = ", ".join(filter(None, [model, one.sampler, guided]))
        by_steps.setdefault(f"{label}, {one.steps} steps", []).append(one)
        if one.images == most:
            by_way.setdefault(label, []).append(one)
    found = [
        _drawing("passes", "F an image", lambda one: one.passes, by_way, features),
        _drawing("seconds", f"{most} images", lambda one: one.seconds, by_way, features),
    ]
    if len({one.images for one in outcomes}) > 1:
        asked = ("images", "images", lambda one: one.images, by_steps)
        found.append(_drawing(*asked, features))
    return found


def _drawing(
    name: str,
    words: str,
    across: Across,
    curves: dict[str, list[Outcome]],
    features: str,
) -> Drawing:
    figure, [[axis]] = panels(1, 1, _SIZE)
    styles, best = styles_for(curves), []
    for label, own in curves.items():
        points = sorted((across(one), one.values[_FID.name]) for one in own)
        axis.plot(*zip(*points, strict=True), label=plain(label), **styles[label])
        best.append((min(fid for _, fid in points), label))
    decorate(axis, f"{_FID.label} by {name}")
    axis.set(xscale="log", xlabel=words, ylabel=f"in the features of {features}")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    ranking = ", ".join(f"{label} {_FID.text(fid)}" for fid, label in sorted(best))
    alt = f"{_FID.label} by {name}, {words}. At best: {ranking}."
    return finished(figure, _FID, f"fid-by-{name}", alt)


def _columns(outcomes: Sequence[Outcome]) -> list[Column]:
    """The columns that were measured."""
    return [column for column in COLUMNS if column.name in outcomes[0].values]


def _way(one: Outcome) -> tuple[str | float, ...]:
    way = one.model, one.guidance, one.sampler, one.steps
    return *way, one.passes, one.seconds, one.images
