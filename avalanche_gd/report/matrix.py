"""The accuracy by experience: what is still known of each after each."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from avalanche_gd.report.collect import Section
from avalanche_gd.report.drawing import Drawing, draw, plain
from avalanche_gd.runs.results import RunResult

_METRIC = re.compile(r"solver/Top1_Acc_Exp/eval_phase/test_stream/Task\d+/Exp(\d+)")
_LIGHT, _DARK = (247, 251, 255), (8, 48, 107)  # of 0 and 1


@dataclass
class Shade:
    """A cell: a mean accuracy, and colours that it can be read in."""

    value: float

    @property
    def text(self) -> str:
        """In two digits."""
        return f"{self.value:.2f}"

    @property
    def background(self) -> str:
        """From light for 0 to dark for 1."""
        return _css(self._rgb)

    @property
    def colour(self) -> str:
        """Black or white, whichever has the higher contrast on the background."""
        shades = ((0, 0, 0), (255, 255, 255))
        return _css(max(shades, key=lambda shade: contrast(shade, self._rgb)))

    @property
    def _rgb(self) -> tuple[int, ...]:
        part = min(max(self.value, 0.0), 1.0) if math.isfinite(self.value) else 0.0
        return tuple(round(a + part * (b - a)) for a, b in zip(_LIGHT, _DARK, strict=True))


@dataclass
class Matrix:
    """Of a method: ``rows[i][j]`` after experience i on the classes of experience j."""

    label: str
    rows: list[list[Shade | None]]
    seeds: int


def matrices(section: Section) -> list[Matrix]:
    """One for each method whose accuracy is known, the mean over its seeds."""
    found = [
        _matrix(label, runs, section.n_experiences)
        for label, runs in section.methods.items()
    ]
    return [matrix for matrix in found if any(cell for row in matrix.rows for cell in row)]


def matrix_drawing(section: Section, found: Sequence[Matrix]) -> Drawing:
    """The same as one figure: a panel for each method."""
    size = section.n_experiences
    across = min(3, len(found))
    down = math.ceil(len(found) / across)
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(3.4 * across, 3.4 * down),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, matrix in zip(axes.flat, found, strict=False):
        axis.set(xlim=(0.5, size + 0.5), ylim=(size + 0.5, 0.5), aspect="equal")
        axis.set(xlabel="classes of experience", ylabel="after experience")
        axis.set(xticks=range(1, size + 1), yticks=range(1, size + 1))
        axis.set_title(plain(matrix.label).replace(", ", ",\n"), fontsize="medium")
        for i, row in enumerate(matrix.rows, start=1):
            for j, shade in enumerate(row, start=1):
                if shade is None:
                    continue
                corner = (j - 0.5, i - 0.5)
                axis.add_patch(Rectangle(corner, 1, 1, color=shade.background))
                axis.text(
                    j,
                    i,
                    shade.text,
                    color=shade.colour,
                    ha="center",
                    va="center",
                    fontsize="small",
                )
    alt = f"Accuracy by experience on {section.benchmark}"
    return draw(figure, f"{section.slug}-matrix", alt)


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast ratio of two colours, as WCAG 2 defines it: from 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _matrix(label: str, runs: Sequence[RunResult], size: int) -> Matrix:
    values: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        for row in run.rows:
            match = _METRIC.fullmatch(row.metric)
            if match:
                place = row.experience, int(match[1])
                values.setdefault(place, []).append(row.value)
    rows = [
        [
            Shade(statistics.fmean(values[i, j])) if (i, j) in values else None
            for j in range(size)
        ]
        for i in range(size)
    ]
    return Matrix(label, rows, max((len(cell) for cell in values.values()), default=0))


def _luminance(rgb: Sequence[int]) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in rgb)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _css(rgb: Sequence[int]) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in rgb)
