"""What a run's folder says when it is read back."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

HEADLINES = {
    "FID": "generator/FID_Stream/eval_phase/test_stream",
    "KLD": "generator/KLD_Stream/eval_phase/test_stream",
    "ARD": "generator/ARD_Stream/eval_phase/test_stream",
    "accuracy": "solver/Top1_Acc_Stream/eval_phase/test_stream/Task000",
    "forgetting": "solver/StreamForgetting/eval_phase/test_stream",
}
"""The metrics of tables and figures, by the name they have there."""


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


def curve(rows: list[Row], headline: str) -> dict[int, float]:
    """A metric of :data:`HEADLINES` after each experience that has it."""
    name = HEADLINES[headline]
    return {row.experience: row.value for row in rows if row.metric == name}


def is_complete(folder: Path) -> bool:
    """Whether the folder holds a run that reached its end."""
    path = folder / "run.json"
    return path.is_file() and bool(_read_json(path).get("completed"))


def read_run(folder: Path) -> RunResult:
    """Read a complete run.

    :raises ValueError: if the folder does not hold one.
    """
    if not is_complete(folder):
        raise ValueError(f"no complete run in {folder}; run it again to go on")
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        with open(folder / "metrics.csv", newline="") as file:
            rows = [
                Row(int(line["experience"]), line["metric"], float(line["value"]))
                for line in csv.DictReader(file)
            ]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the run in {folder} is damaged ({error}); delete it") from error
    assert isinstance(config, dict)
    settings = {str(key): value for key, value in config.items()}
    return RunResult(folder, settings, _read_json(folder / "run.json"), rows)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is cut short or damaged; delete it") from error
