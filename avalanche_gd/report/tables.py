"""The table of a section: methods down, metrics across."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from textwrap import fill
from typing import Any

from avalanche_gd.report.estimates import Estimate, estimate
from avalanche_gd.report.printable import printable
from avalanche_gd.report.provenance import Provenance
from avalanche_gd.report.section import Section
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import COSTS, METRICS
from avalanche_gd.runs.results import csv_text

_WIDTH = 88  # characters of a table of one seed, or of a setting, in a terminal
_LABEL = 200  # characters of a label in a terminal


@dataclass
class Cell:
    """A value of the table; ``estimate`` is None if nothing was recorded."""

    column: Column
    estimate: Estimate | None
    seeds: int
    """The method's seeds; the estimate has fewer if some runs lack the metric."""
    is_best: bool = False

    @property
    def mean(self) -> str:
        """The mean as text."""
        return self.column.text(self.estimate and self.estimate.mean)

    @property
    def spread(self) -> str:
        """What follows the mean: the interval, and the number of seeds if some lack it.

        Empty if there is neither, or if a count is exact.
        """
        if self.estimate is None:
            return ""
        _, half_width, seeds = self.estimate
        is_exact = half_width == 0 and not self.column.better
        interval = "" if half_width is None or is_exact else self.column.text(half_width)
        note = "" if seeds == self.seeds else f" (n = {seeds})"
        return f" ± {interval}{note}" if interval else note

    @property
    def text(self) -> str:
        """The mean and the interval."""
        return self.mean + self.spread


@dataclass
class Line:
    """A method's line."""

    label: str
    seeds: list[int]
    cells: list[Cell]


def lines_of(section: Section, place: str = "") -> list[Line]:
    """The lines of the table; the best value of a column is marked if methods compete.

    Columns that no run has are left out.

    :param place: where the table is, for columns that are left out there.
    """
    columns = [
        column
        for column in (*METRICS, *COSTS)
        if place not in column.left_out_of
        and any(run.final(column) is not None for run in section.runs)
    ]
    lines = []
    for label, runs in section.methods.items():
        cells = [
            Cell(column, estimate([run.final(column) for run in runs]), len(runs))
            for column in columns
        ]
        lines.append(Line(label, [run.seed for run in runs], cells))
    for index in range(len(columns)):
        _mark_best([line.cells[index] for line in lines])
    return lines


def headings_of(lines: Sequence[Line]) -> list[str]:
    """The headings of the columns."""
    return ["Method", "Seeds", *(cell.column.heading for cell in lines[0].cells)]


def caption_of(section: Section, lines: Sequence[Line]) -> str:
    """The caption of a table: what its numbers are."""
    has_interval = any("±" in cell.spread for line in lines for cell in line.cells)
    names = [cell.column.word for cell in lines[0].cells if cell.column.in_features]
    interval = " ± 95% confidence interval (Student's t)" if has_interval else ""
    no_interval = "" if has_interval else "; one seed has no interval"
    features = ""
    if names:
        listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        verb = "is" if len(names) == 1 else "are"
        features = f" {listed} {verb} in the features of {section.features}."
    several = [f"{number} different {kind}" for kind, number in section.judges.items()]
    judges = f" The runs were measured by {' and '.join(several)}." if several else ""
    if section.n_silent:
        judges += f" What measured {section.n_silent} of the runs is not recorded."
    if section.n_data > 1:
        judges += (
            f" The runs are of {section.n_data} different data, by their seed: see "
            "run.json of each."
        )
    mean = f"mean over seeds{interval}{no_interval}."
    seeds = "" if section.has_equal_seeds else " Methods differ in their seeds."
    return f"after {section.length}: {mean}{seeds}{features}{judges}"


def as_text(sections: Sequence[Section]) -> str:
    """The tables as text for a terminal."""
    tables = []
    for section in sections:
        lines = lines_of(section, "terminal")
        rows = [
            [
                printable(line.label, length=_LABEL),
                str(len(line.seeds)),
                *(cell.text for cell in line.cells),
            ]
            for line in lines
        ]
        caption = fill(f"{_title(section)}, {caption_of(section, lines)}", _WIDTH)
        tables.append(f"{caption}\n\n{aligned([headings_of(lines), *rows])}")
    return "\n\n".join(tables)


def _title(section: Section) -> str:
    """The name of a section's files and link, with its number, and how it differs.

    Each setting is cut by itself, so that those that come last are seen too.
    """
    settings = (f"{name} = {value}" for name, value in section.differs.items())
    name, *shown = (printable(text, length=_WIDTH) for text in (section.slug, *settings))
    return ": ".join(filter(None, [name, ", ".join(shown)]))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in columns: the first column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def as_csv(sections: Sequence[Section]) -> str:
    """``table.csv``: a line for each method and metric, with all digits."""
    rows: list[list[Any]] = []
    for section in sections:
        for line in lines_of(section):
            seeds = " ".join(map(str, line.seeds))
            what = [section.benchmark, section.difference, line.label, seeds]
            for cell in line.cells:
                if cell.estimate is None:
                    continue
                mean, half, n = cell.estimate
                interval = ["", ""] if half is None else [mean - half, mean + half]
                best = int(cell.is_best)
                rows.append([*what, cell.column.name, mean, *interval, n, best])
    head = ["benchmark", "settings", "method", "seeds", "metric"]
    return csv_text([*head, "mean", "ci95_low", "ci95_high", "n", "best"], rows)


def runs_as_csv(sections: Sequence[Section]) -> str:
    """``runs.csv``: a line for each run and experience.

    The last one of a run has its costs, and what it was made with and measured by. A run
    of several sections is in the first of them.
    """
    rows: list[list[Any]] = []
    listed: set[Path] = set()
    every = [run for section in sections for run in section.runs]
    metrics = [
        metric
        for metric in METRICS
        if not (metric.asked_as or metric.of_some_methods)
        or any(run.curve(metric) for run in every)
    ]
    for section in sections:
        for label, runs in section.methods.items():
            for run in runs:
                if run.folder in listed:
                    continue
                listed.add(run.folder)
                what = [section.benchmark, section.difference, label, run.seed]
                made = astuple(Provenance.of(run))
                curves = [run.curve(metric) for metric in metrics]
                for experience in run.experiences:
                    is_last = experience == section.n_experiences - 1
                    costs = [run.final(cost) if is_last else None for cost in COSTS]
                    values = [points.get(experience) for points in curves]
                    ending = made if is_last else [""] * len(made)
                    rows.append([*what, experience + 1, *values, *costs, *ending])
    head = ["benchmark", "settings", "method", "seed", "experience"]
    names = [column.name for column in (*metrics, *COSTS)]
    return csv_text([*head, *names, *(part.name for part in fields(Provenance))], rows)


def _mark_best(cells: Sequence[Cell]) -> None:
    """Mark the best mean, and those that look the same; intervals are not used."""
    known = [
        (cell.estimate.mean, cell)
        for cell in cells
        if cell.estimate is not None and math.isfinite(cell.estimate.mean)
    ]
    better = cells[0].column.better
    if len(known) < 2 or not better:
        return
    choose = min if better == "lower" else max
    _, best = choose(known, key=lambda pair: pair[0])
    for _, cell in known:
        cell.is_best = cell.mean == best.mean
