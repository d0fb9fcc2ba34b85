"""What a run's folder says when it is read back."""

import csv
import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from avalanche_gd.runs.config import RunConfig

HEADLINES = {
    "FID": "generator/FID_Stream/eval_phase/test_stream",
    "KLD": "generator/KLD_Stream/eval_phase/test_stream",
    "ARD": "generator/ARD_Stream/eval_phase/test_stream",
    "accuracy": "solver/Top1_Acc_Stream/eval_phase/test_stream/Task000",
    "forgetting": "solver/StreamForgetting/eval_phase/test_stream",
}
"""The metrics of tables and figures, by the name they have there."""

COSTS = ("seconds", "F_per_step", "F_total")
"""What a run spent, by the name it has in tables and figures."""


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
    def seconds(self) -> float:
        """In training and evaluation."""
        return sum(self.info["seconds"].values())

    def curve(self, headline: str) -> dict[int, float]:
        """A headline metric after each experience that has it."""
        return curve(self.rows, headline)

    def final(self, name: str) -> float | None:
        """A headline metric after the last experience, or a cost; None if not recorded.

        :param name: of :data:`HEADLINES` or :data:`COSTS`.
        """
        if name == "seconds":
            return self.seconds
        if name in COSTS:
            return (self.info.get("cost") or {}).get(name)
        points = self.curve(name)
        return points[max(points)] if points else None


def curve(rows: list[Row], headline: str) -> dict[int, float]:
    """A metric of :data:`HEADLINES` after each experience that has it."""
    name = HEADLINES[headline]
    return {row.experience: row.value for row in rows if row.metric == name}


def is_complete(folder: Path) -> bool:
    """Whether the folder holds a run that reached its end.

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
    if not isinstance(info.get("seconds"), dict):
        raise _damaged(folder / "run.json", "no seconds")
    config = read_settings(folder)
    rows = read_rows(folder)
    _check_whole(folder / "metrics.csv", rows, config["benchmark"]["n_experiences"])
    return RunResult(folder, config, info, rows)


def read_info(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, empty if there is none.

    :raises ValueError: if it is damaged.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is cut short or damaged; delete it") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is cut short or damaged; delete it")
    return content


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of ``config.yaml``, with the defaults of settings it is too old for.

    :raises ValueError: if it is absent or damaged.
    """
    path = folder / "config.yaml"
    try:
        text = path.read_text()
        content = OmegaConf.to_container(OmegaConf.create(text))
        if not text.endswith("\n"):
            raise ValueError("its last line has no end")
        assert isinstance(content, dict)
        settings = {str(key): value for key, value in content.items()}
        _ = settings["method"]["name"], settings["benchmark"]["name"]
        _ = int(settings["seed"]), int(settings["benchmark"]["n_experiences"])
        for name in ("model", "generator", "solver", "evaluation"):
            _ = dict(settings[name])
    except (
        OSError,
        AssertionError,
        KeyError,
        TypeError,
        ValueError,
        YAMLError,
        OmegaConfBaseException,
    ) as error:
        raise _damaged(path, _reason(error)) from error
    return _with_defaults(settings, RunConfig)


def read_rows(folder: Path) -> list[Row]:
    """The lines of ``metrics.csv``.

    :raises ValueError: if it is absent or damaged.
    """
    path = folder / "metrics.csv"
    try:
        text = path.read_text()
        if not text.endswith("\n"):
            raise ValueError("its last line has no end")
        return [
            Row(int(line["experience"]), line["metric"], float(line["value"]))
            for line in csv.DictReader(text.splitlines())
        ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, _reason(error)) from error


def _check_whole(path: Path, rows: list[Row], n_experiences: int) -> None:
    """Whether the last experience has what those before it have."""
    if {row.experience for row in rows} != set(range(n_experiences)):
        raise _damaged(path, f"it has not the run's {n_experiences} experiences")
    for name in HEADLINES:
        points = curve(rows, name)
        if points and n_experiences - 1 not in points:
            raise _damaged(path, f"no {name} after the last experience")


def _with_defaults(content: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The content, and what it lacks of a dataclass's fields that have a default."""
    filled = dict(content)
    for field in fields(kind):
        if field.name in filled:
            part = filled[field.name]
            if is_dataclass(field.type) and isinstance(part, dict):
                filled[field.name] = _with_defaults(part, field.type)
        elif field.default is not MISSING:
            filled[field.name] = field.default
        elif field.default_factory is not MISSING:
            filled[field.name] = field.default_factory()
    return filled


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is damaged or cut short ({reason}); delete its folder and run it again"
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    lines = str(error).splitlines()
    return lines[0] if lines and isinstance(error, ValueError) else "it cannot be read"
