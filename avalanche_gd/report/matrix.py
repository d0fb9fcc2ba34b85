"""The accuracy matrix: on the classes of each experience, after each experience."""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import Rectangle

from avalanche_gd.report.drawing import Drawing, draw, panels, plain
from avalanche_gd.report.section import Section
from avalanche_gd.runs.results import RunResult

_METRIC = re.compile(r"solver/Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp([0-9]{3,9})")
_SHADES = LinearSegmentedColormap.from_list("shades", ["#f7fbff", "#08306b"])
_DARK = 0.65  # from this value on, white text has more contrast than black


@dataclass
class Shade:
    """A cell: a mean accuracy, and its colours."""

    value: float

    @property
    def text(self) -> str:
        """The accuracy with two digits after the point."""
        return f"{self.value:.2f}"

    @property
    def background(self) -> str:
        """The colour of the cell, from light for 0 to dark for 1."""
        return to_hex(_SHADES(self.value if math.isfinite(self.value) else 0.0))

    @property
    def colour(self) -> str:
        """The colour of the text, black or white, the one with more contrast."""
        return "#ffffff" if self.value >= _DARK else "#000000"


@dataclass
class Matrix:
    """A method's ``rows[i][j]``: after experience i, on the classes of experience j."""

    label: str
    rows: list[list[Shade | None]]
    seeds: int


def matrices(section: Section) -> list[Matrix]:
    """One matrix per method whose accuracy is known, the mean over its seeds."""
    size = section.n_experiences
    found = [_matrix(label, runs, size) for label, runs in section.methods.items()]
    return [matrix for matrix in found if matrix.seeds]


def matrix_drawing(section: Section, found: Sequence[Matrix]) -> Drawing:
    """Draw the matrices as one figure: a panel for each method."""
    size = section.n_experiences
    across = min(3, len(found))
    down = math.ceil(len(found) / across)
    figure, axes = panels(down, across, (3.4 * across, 3.4 * down))
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
                axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=shade.background))
                middle = dict(ha="center", va="center", fontsize="small")
                axis.text(j, i, shade.text, color=shade.colour, **middle)
    alt = f"Accuracy by experience on {section.benchmark}"
    return draw(figure, f"{section.slug}-matrix", alt)


def _matrix(label: str, runs: Sequence[RunResult], size: int) -> Matrix:
    values: dict[tuple[int, int], list[float]] = {}
    for row in (row for run in runs for row in run.rows):
        if match := _METRIC.fullmatch(row.metric):
            values.setdefault((row.experience, int(match[1])), []).append(row.value)
    means = {place: Shade(statistics.fmean(found)) for place, found in values.items()}
    rows = [[means.get((i, j)) for j in range(size)] for i in range(size)]
    return Matrix(label, rows, max(map(len, values.values()), default=0))
