"""The table of a section: methods down, metrics across."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from avalanche_gd.report.collect import Section
from avalanche_gd.report.estimates import Estimate, estimate

DASH = "\N{EN DASH}"

_CSV_HEAD = (
    *("benchmark", "settings", "method", "seeds", "metric"),
    *("mean", "ci95_low", "ci95_high", "n", "best"),
)


class Column(NamedTuple):
    """A metric or a cost of the table."""

    name: str
    """Of :data:`~avalanche_gd.runs.results.HEADLINES` or ``COSTS``."""
    heading: str
    digits: int
    best: str
    """Which value is in bold: the ``lowest``, the ``highest``, or none."""


COLUMNS = (
    Column("FID", "FID", 1, "lowest"),
    Column("KLD", "KLD", 3, "lowest"),
    Column("ARD", "ARD", 3, "lowest"),
    Column("accuracy", "Accuracy", 3, "highest"),
    Column("forgetting", "Forgetting", 3, "lowest"),
    Column("seconds", "Seconds", 0, "lowest"),
    Column("F_per_step", "F a step", 1, ""),
    Column("F_total", "F in all", 0, ""),
)


@dataclass
class Cell:
    """A value of the table; ``estimate`` is None where nothing was recorded."""

    column: Column
    estimate: Estimate | None
    seeds: int
    """Of the method: more than the estimate is over, where some runs lack the metric."""
    is_best: bool = False

    @property
    def mean(self) -> str:
        """As shown."""
        if self.estimate is None:
            return DASH
        if not math.isfinite(self.estimate.mean):
            return "not finite"
        return _rounded(self.estimate.mean, self.column.digits)

    @property
    def half_width(self) -> str:
        """Of the interval, as shown; empty if there is none, or a count is exact."""
        if self.estimate is None or self.estimate.half_width is None:
            return ""
        if self.estimate.half_width == 0 and not self.column.best:
            return ""
        return _rounded(self.estimate.half_width, self.column.digits)

    @property
    def note(self) -> str:
        """Over how many seeds it is, if not over all."""
        if self.estimate is None or self.estimate.seeds == self.seeds:
            return ""
        return f"n = {self.estimate.seeds}"

    @property
    def text(self) -> str:
        """All of it."""
        spread = f" ± {self.half_width}" if self.half_width else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.mean}{spread}{note}"


@dataclass
class Line:
    """A method's line."""

    label: str
    seeds: list[int]
    cells: list[Cell]


def lines_of(section: Section) -> list[Line]:
    """The table's lines; the best of each column is marked, where methods compete."""
    lines = []
    for label, runs in section.methods.items():
        cells = []
        for column in COLUMNS:
            values = [run.final(column.name) for run in runs]
            known = [value for value in values if value is not None]
            cells.append(Cell(column, estimate(known), len(runs)))
        lines.append(Line(label, [run.seed for run in runs], cells))
    for index in range(len(COLUMNS)):
        _mark_best([line.cells[index] for line in lines])
    return lines


def as_csv(sections: Sequence[Section]) -> str:
    """``table.csv``: a line for each method and metric, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEAD)
    for section in sections:
        for line in lines_of(section):
            seeds = " ".join(map(str, line.seeds))
            for cell in line.cells:
                if cell.estimate is None:
                    continue
                mean, half, n = cell.estimate
                interval = ["", ""] if half is None else [mean - half, mean + half]
                what = [section.benchmark, section.difference, line.label, seeds]
                best = int(cell.is_best)
                writer.writerow([*what, cell.column.name, mean, *interval, n, best])
    return text.getvalue()


def _mark_best(cells: Sequence[Cell]) -> None:
    """The best mean, and what is the same in print; no interval is looked at."""
    known = [
        cell
        for cell in cells
        if cell.estimate is not None and math.isfinite(cell.estimate.mean)
    ]
    if len(known) < 2 or not known[0].column.best:
        return
    choose = min if known[0].column.best == "lowest" else max
    best = choose(known, key=lambda cell: cell.estimate.mean)  # type: ignore[union-attr]
    for cell in known:
        cell.is_best = cell.mean == best.mean


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    is_zero = not text.strip("-0.")
    return text.lstrip("-") if is_zero else text
