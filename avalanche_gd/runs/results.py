"""Read back the result of a run from its folder, and check that it is complete."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.run_files import Row, read_info, read_rows, read_settings, reading

RUN_FOLDER = re.compile(r"seed-([0-9]+)(-[0-9a-f]+)?")
"""The name of a run's folder."""


@dataclass
class RunResult:
    """A complete run, read from its folder."""

    folder: Path
    config: dict[str, Any]
    info: dict[str, Any]
    rows: list[Row]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.config["method"]["name"]

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return self.config["benchmark"]["name"]

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config["seed"]

    @property
    def n_experiences(self) -> int:
        """The number of experiences of the benchmark."""
        return self.config["benchmark"]["n_experiences"]

    @property
    def experiences(self) -> range:
        """The indices of the experiences that it trains."""
        first = self.n_experiences - 1 if self.config["method"]["all_at_once"] else 0
        return range(first, self.n_experiences)

    @property
    def times(self) -> list[dict[str, Any]]:
        """``versions``, ``commit`` and ``machine`` of each time it started or continued."""
        return self.info["times"]

    def curve(self, metric: Column) -> dict[int, float]:
        """A metric after each experience that has it.

        None has it if it compares experiences and the run trains on one.
        """
        if metric.of_several and len(self.experiences) < 2:
            return {}
        return curve(self.rows, metric)

    def final(self, column: Column) -> float | None:
        """A metric after the last experience, or a cost; None if not recorded."""
        if column in METRICS:
            return self.curve(column).get(self.n_experiences - 1)
        value: Any = self.info
        for part in column.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return sum(value.values()) if isinstance(value, dict) else value


def curve(rows: list[Row], metric: Column) -> dict[int, float]:
    """A metric after each experience that has it."""
    return {row.experience: row.value for row in rows if row.metric == metric.key}


def is_complete(folder: Path) -> bool:
    """True if the folder has a run that reached its end, with all its files.

    :raises ValueError: if a file of it is damaged, or a complete run has lost one.
    """
    return says_complete(folder) and bool(read_run(folder))


def says_complete(folder: Path) -> bool:
    """True if the folder's ``run.json`` is there, and says that the run reached its end.

    :raises ValueError: if it is damaged.
    """
    return bool(read_info(folder).get("completed"))


def read_run(folder: Path) -> RunResult:
    """Read a complete run.

    :raises ValueError: if the folder does not hold one, a file of it is damaged, or its
        files contradict each other.
    """
    info = read_info(folder)
    if not info.get("completed"):
        raise ValueError(f"no complete run in {folder}; run it again to continue")
    run = _read_checked(folder, info)
    with reading(folder / "metrics.csv"):
        _check_rows(run.rows, run.experiences)
        if "metrics.csv" not in info["files"]:
            _check_metrics(run.rows)
    return run


def read_unfinished(folder: Path) -> RunResult:
    """Read a run that has not reached its end: its settings, and its metrics so far.

    :raises ValueError: if a file of it is damaged, or its files contradict each other.
    """
    run = _read_checked(folder, read_info(folder))
    with reading(folder / "metrics.csv"):
        _check_rows(run.rows, run.experiences, is_complete=False)
    return run


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file: a line of names, then the rows.

    What Python's reader would not read back is written as text: a NUL, and a carriage
    return, which ends a line for it.

    >>> csv_text(["name"], [["a\\0b\\rc"]])
    'name\\na\\\\x00b\\\\rc\\n'
    """
    text = io.StringIO()
    cells = (
        [
            c.replace("\0", r"\x00").replace("\r", r"\r") if isinstance(c, str) else c
            for c in row
        ]
        for row in rows
    )
    csv.writer(text, lineterminator="\n").writerows([head, *cells])
    return text.getvalue()


def _read_checked(folder: Path, info: dict[str, Any]) -> RunResult:
    """Read the files of a folder, which must be of one run; it may have no metrics."""
    files = info.get("files", {})
    config = read_settings(folder, files)
    has_rows = info.get("completed") or (folder / "metrics.csv").exists()
    run = RunResult(folder, config, info, read_rows(folder, files) if has_rows else [])
    for name in ("benchmark", "method", "seed"):
        said, meant = info.get(name), getattr(run, name)
        if info and said != meant:
            raise ValueError(
                f"{folder / 'run.json'} says {name} {said!r:.80}, but config.yaml says "
                f"{meant!r}; delete their folder and run it again"
            )
    _check_folder(run)
    return run


def _check_folder(run: RunResult) -> None:
    """Raise ValueError if the names of the folders above contradict the run.

    A run is in ``BENCHMARK/METHOD/seed-N-DIGEST``. It may be moved to any other place, so
    one of the first two must be right for the other to be wrong.
    """
    *_, benchmark, method, own = ("", "", *run.folder.resolve().parts)
    wrong = []
    if (match := RUN_FOLDER.fullmatch(own)) and match[1] != str(run.seed):
        wrong.append(f"seed {run.seed}")
    if match and (benchmark == run.benchmark) != (method == run.method):
        wrong.append(f"{run.benchmark}/{run.method}")
    if wrong:
        raise ValueError(
            f"{run.folder} has a run of {' and '.join(wrong)} by its config.yaml; "
            "leave it out, or move it to where it was"
        )


def _check_rows(rows: list[Row], trained: range, *, is_complete: bool = True) -> None:
    """Raise ValueError unless the experiences are the run's, with possible values.

    :param trained: the experiences of the run.
    """
    experiences = {row.experience for row in rows}
    count = len(experiences)
    # This is checked first: a damaged number of experiences may not fit into memory.
    is_whole = count == len(trained) if is_complete else count <= len(trained)
    if not is_whole or experiences != set(trained[:count]):
        raise ValueError(f"it does not have the run's {len(trained)} experiences")
    keys = {row.metric for row in rows}
    known = {key: metric for metric in METRICS for key in keys if metric.measures(key)}
    for experience, key, value in rows:
        if key in known and not known[key].is_possible(value):
            raise ValueError(
                f"{known[key].name} must be {known[key].possible}, got {value} after "
                f"experience {experience + 1}"
            )


def _check_metrics(rows: list[Row]) -> None:
    """Raise ValueError unless all experiences have the same metrics.

    For runs of earlier versions, whose files have no digest that shows a lost line. In
    others a metric of one's own may be without a value after some experience.
    """
    experiences = {row.experience for row in rows}
    for metric in METRICS:
        missing = experiences - curve(rows, metric).keys()
        if missing and missing != experiences:
            raise ValueError(f"no {metric.name} after experience {min(missing) + 1}")
