"""Runs side by side: a table, a CSV and a figure."""

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from avalanche_gd.report.settings import by_method
from avalanche_gd.runs.pictures import save_comparison
from avalanche_gd.runs.results import COSTS, HEADLINES, RunResult, read_run
from avalanche_gd.storage import write_text, write_whole

_DIGITS = {"FID": 1, "KLD": 3, "ARD": 3, "accuracy": 3, "forgetting": 3, "seconds": 0}


def compare(folders: list[Path], out: Path) -> str:
    """Write ``comparison.csv`` and ``comparison.png``, and return the table.

    The CSV has a line for each run and experience, the last one with the costs; the table
    has the values after the last experience, as mean and standard deviation over seeds.

    :param folders: of complete runs.
    :param out: the folder of the two files.
    :raises ValueError: if a folder does not hold a complete run.
    """
    groups = by_method([read_run(folder) for folder in folders])
    write_text(out / "comparison.csv", _as_csv(groups))
    write_whole(out / "comparison.png", lambda path: save_comparison(groups, path))
    return _as_table(groups)


def _as_csv(groups: dict[str, list[RunResult]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "seed", "experience", *HEADLINES, *COSTS])
    for label, runs in groups.items():
        for run in runs:
            curves = {name: run.curve(name) for name in HEADLINES}
            last = run.config["benchmark"]["n_experiences"] - 1
            for experience in range(last + 1):
                values = [curves[name].get(experience, "") for name in HEADLINES]
                costs = [_cost(run, name) if experience == last else "" for name in COSTS]
                writer.writerow([label, run.seed, experience + 1, *values, *costs])
    return text.getvalue()


def _cost(run: RunResult, name: str) -> float | str:
    cost = run.final(name)
    return "" if cost is None else round(cost, 2)


def _as_table(groups: dict[str, list[RunResult]]) -> str:
    lines = [["method", "seeds", *_DIGITS]]
    for label, runs in groups.items():
        cells = [
            spread([run.final(name) for run in runs], digits)
            for name, digits in _DIGITS.items()
        ]
        lines.append([label, str(len(runs)), *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def spread(values: Sequence[float | None], digits: int) -> str:
    """Mean and standard deviation; a dash where a method has no such value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.{digits}f}"
    if len(known) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(known):.{digits}f}"
