"""The files of a run's folder, when they are read back."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from avalanche_gd.runs.columns import METRICS, Column
from avalanche_gd.runs.config import RunConfig


class Row(NamedTuple):
    """A line of ``metrics.csv``."""

    experience: int
    metric: str
    value: float


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
    def seed(self) -> int:
        """The seed."""
        return self.config["seed"]

    @property
    def times(self) -> list[dict[str, Any]]:
        """What is known of each time that it began or went on: versions, machine, commit.

        Older runs know the last time only.
        """
        return self.info.get("times") or [self.info]

    def told(self, name: str) -> list[str]:
        """Each value of one of :attr:`times`, once.

        :param name: dotted, such as ``machine.threads``.
        """
        return list(dict.fromkeys(str(v) for t in self.times if (v := _at(t, name))))

    def curve(self, metric: Column) -> dict[int, float]:
        """A metric after each experience that has it."""
        return curve(self.rows, metric)

    def final(self, column: Column) -> float | None:
        """A metric after the last experience, or a cost; None if not recorded."""
        if column in METRICS:
            points = self.curve(column)
            return points[max(points)] if points else None
        value = _at(self.info, column.key)
        return sum(value.values()) if isinstance(value, dict) else value


def _at(content: Any, name: str) -> Any:
    """What is there under a dotted name; None if it is not."""
    for part in name.split("."):
        content = (content or {}).get(part)
    return content


def curve(rows: list[Row], metric: Column) -> dict[int, float]:
    """A metric after each experience that has it."""
    return {row.experience: row.value for row in rows if row.metric == metric.key}


def is_complete(folder: Path) -> bool:
    """True if the folder holds a run that reached its end.

    :raises ValueError: if its ``run.json`` is damaged.
    """
    return bool(read_info(folder).get("completed"))


def read_run(folder: Path) -> RunResult:
    """Read a complete run.

    :raises ValueError: if the folder does not hold one, or a file of it is damaged.
    """
    info = read_info(folder)
    if not info.get("completed"):
        raise ValueError(f"no complete run in {folder}; run it again to go on")
    with _reading(folder / "run.json"):
        _ = info["seconds"].values()
    config = read_settings(folder)
    rows = read_rows(folder)
    with _reading(folder / "metrics.csv"):
        _check_whole(rows, config["benchmark"]["n_experiences"])
    return RunResult(folder, config, info, rows)


def read_info(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, empty if there is none.

    :raises ValueError: if it is damaged.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it holds no names")
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is cut short or damaged; delete it") from error


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of ``config.yaml``, with the defaults of settings it is too old for.

    :raises ValueError: if it is absent or damaged.
    """
    path = folder / "config.yaml"
    with _reading(path):
        known = OmegaConf.structured(RunConfig)
        OmegaConf.set_struct(known, False)  # a setting of another version is kept
        merged = OmegaConf.merge(known, OmegaConf.create(_whole_text(path)))
        content = OmegaConf.to_container(merged, throw_on_missing=True)
    assert isinstance(content, dict)
    return {str(name): value for name, value in content.items()}


def read_rows(folder: Path) -> list[Row]:
    """The lines of ``metrics.csv``.

    :raises ValueError: if it is absent or damaged.
    """
    path = folder / "metrics.csv"
    with _reading(path):
        return [
            Row(int(line["experience"]), line["metric"], float(line["value"]))
            for line in csv.DictReader(_whole_text(path).splitlines())
        ]


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The text of a CSV file: a line of names, and the rows."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _whole_text(path: Path) -> str:
    text = path.read_text()
    if not text.endswith("\n"):
        raise ValueError("its last line has no end")
    return text


def _check_whole(rows: list[Row], n_experiences: int) -> None:
    """Raise ValueError unless the last experience has what those before it have."""
    if {row.experience for row in rows} != set(range(n_experiences)):
        raise ValueError(f"it has not the run's {n_experiences} experiences")
    for metric in METRICS:
        points = curve(rows, metric)
        if points and n_experiences - 1 not in points:
            raise ValueError(f"no {metric.name} after the last experience")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Have an error of what is read name the file, and how to mend it."""
    try:
        yield
    except (
        *(OSError, AttributeError, KeyError, TypeError, ValueError),
        *(YAMLError, OmegaConfBaseException),
    ) as error:
        raise ValueError(
            f"{path} is damaged or cut short ({_reason(error)}); "
            "delete its folder and run it again"
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    if isinstance(error, MissingMandatoryValue):
        return f"no {error.full_key}"
    lines = str(error).splitlines()
    return lines[0] if lines and isinstance(error, ValueError) else "it cannot be read"
