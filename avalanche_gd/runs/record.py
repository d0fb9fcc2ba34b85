"""``run.json``: information about a run."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.identity import teacher_digests
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.provenance import provenance
from avalanche_gd.runs.run_files import JUDGES, info_digest, read_info
from avalanche_gd.storage import write_json

_DIGESTED = ("config.yaml", "metrics.csv")


class Record:
    """Writes ``run.json``, with an entry for each time that the run starts or continues.

    :param config: the settings of the run.
    :param learner: the learner of the run.
    :param done: how many experiences were learned before this time.
    :param data: the digest of the data, empty if it is not known.
    """

    def __init__(self, config: RunConfig, learner: Learner, done: int, data: str):
        self.config, self.learner, self.data = config, learner, data
        self.path = config.folder / "run.json"
        self.teachers = teacher_digests(config)
        earlier = _earlier(self.path) if done else {}
        now = {"after_experience": done, **provenance(config.torch_device)}
        self.times = [*earlier.get("times", ()), now]
        self.judges = {
            kind: [digest for digest in earlier.get(kind, ()) if isinstance(digest, str)]
            for kind in JUDGES
        }

    def write(self, *, completed: bool = False) -> None:
        """Write it; if the run is complete, with digests of the files of its result."""
        config, learner = self.config, self.learner
        content: dict[str, Any] = {
            "completed": completed,
            "benchmark": config.benchmark.name,
            "method": config.method.name,
            "seed": config.seed,
            "data": self.data,
            **({"teachers": self.teachers} if self.teachers else {}),
            "seconds": {name: round(took, 3) for name, took in learner.seconds.items()},
            "cost": learner.cost(),
            **{
                kind: list(dict.fromkeys([*self.judges[kind], *digests]))
                for kind, digests in learner.judges().items()
            },
            "times": self.times,
        }
        if completed:
            content["files"] = {name: _sha256(config.folder / name) for name in _DIGESTED}
        write_json(self.path, {**content, "digest": info_digest(content)})


def check_data(config: RunConfig, data: str) -> None:
    """Raise ValueError if the run in the folder of a configuration is of other data.

    :param data: the digest of the data; empty if it is not known. Then they must have the
        same root.
    """
    folder = config.folder
    earlier = read_info(folder).get("data")
    is_other = earlier and data and earlier != data
    if not data:
        content = yaml.safe_load((folder / "config.yaml").read_text())
        root = content["benchmark"].get("options", {}).get("root")
        is_other = root != config.benchmark.options.get("root")
    if is_other:
        raise ValueError(
            f"the run in {folder} is of other data than these; give another out=, or a "
            "benchmark.name= for each data set"
        )


def _earlier(path: Path) -> dict[str, list[Any]]:
    """What earlier times wrote in lists, as far as it can be read; it is only copied."""
    try:
        written = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    known = written if isinstance(written, dict) else {}
    return {name: part for name, part in known.items() if isinstance(part, list)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
