"""``run.json``: information about a run."""

import hashlib
import json
from pathlib import Path
from typing import Any

from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.provenance import provenance
from avalanche_gd.runs.run_files import info_digest
from avalanche_gd.storage import write_json

_DIGESTED = ("config.yaml", "metrics.csv")


class Record:
    """Writes ``run.json``, with an entry for each time that the run starts or continues.

    :param config: the settings of the run.
    :param learner: the learner of the run.
    :param done: how many experiences were learned before this time.
    """

    def __init__(self, config: RunConfig, learner: Learner, done: int):
        self.config, self.learner = config, learner
        self.path = config.folder / "run.json"
        earlier = _earlier_times(self.path) if done else []
        now = {"after_experience": done, **provenance(config.torch_device)}
        self.times = [*earlier, now]

    def write(self, *, completed: bool = False) -> None:
        """Write it; if the run is complete, with digests of the files of its result."""
        config, learner = self.config, self.learner
        content: dict[str, Any] = {
            "completed": completed,
            "benchmark": config.benchmark.name,
            "method": config.method.name,
            "seed": config.seed,
            "seconds": {name: round(took, 3) for name, took in learner.seconds.items()},
            "cost": learner.cost(),
            "oracles": learner.oracle_digests(),
            "times": self.times,
        }
        if completed:
            content["files"] = {name: _sha256(config.folder / name) for name in _DIGESTED}
        write_json(self.path, {**content, "digest": info_digest(content)})


def _earlier_times(path: Path) -> list[Any]:
    """The entries of earlier times that can be read; they are only copied."""
    try:
        return list(json.loads(path.read_text())["times"])
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
