"""Copy the results of runs, without paths of the machine, for others to report on."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

from avalanche_gd.runs.results import RunResult, read_run
from avalanche_gd.runs.run_files import info_digest
from avalanche_gd.storage import write_folder, write_json

_FILES = ("config.yaml", "metrics.csv", "run.json")


def publish(runs: Sequence[RunResult], to: Path) -> list[Path]:
    """Copy the settings, metrics and ``run.json`` of runs, to be read as the runs are.

    In the settings, ``out`` is ``runs``, and of each absolute path only the last part is
    left.

    :param runs: complete runs.
    :param to: where the copies go, as ``BENCHMARK/METHOD/NAME``, each with the name of its
        run's folder; an older copy is replaced.
    :returns: the folders of the copies.
    :raises ValueError: before any is written, if two would have the same folder, or what is
        there is not a copy; or if one cannot be written.
    """
    copies = [to / run.benchmark / run.method / run.folder.name for run in runs]
    for run, copy in zip(runs, copies, strict=True):
        if copies.count(copy) > 1:
            raise ValueError(
                f"{run.folder} is not the only one of {run.benchmark}, {run.method} with "
                "this name; publish them to different folders"
            )
        if copy.exists() and not (copy.is_dir() and {*os.listdir(copy)} == {*_FILES}):
            raise ValueError(f"{copy} is there and is not a copy; choose another folder")
    for run, copy in zip(runs, copies, strict=True):
        write_folder(copy, partial(_write, run))
        read_run(copy)
    return copies


def _write(run: RunResult, folder: Path) -> None:
    """Write the files; ``run.json`` gets their digests, if it had those of the run's."""
    settings = yaml.safe_dump(_without_paths(run.config | {"out": "runs"}), sort_keys=False)
    (folder / "config.yaml").write_text(settings)
    shutil.copyfile(run.folder / "metrics.csv", folder / "metrics.csv")
    info = json.loads((run.folder / "run.json").read_text())
    if "files" in info:
        info["files"] |= {"config.yaml": hashlib.sha256(settings.encode()).hexdigest()}
    if "digest" in info:
        info["digest"] = info_digest(info)
    write_json(folder / "run.json", info)


def _without_paths(value: Any) -> Any:
    """The same settings with the last part of each absolute path.

    >>> _without_paths({"root": "/data/cifar10", "options": ["runs/a", 2]})
    {'root': 'cifar10', 'options': ['runs/a', 2]}
    """
    if isinstance(value, dict):
        return {key: _without_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_paths(part) for part in value]
    if isinstance(value, str) and (os.path.isabs(value) or value.startswith("~")):
        return PurePath(value).name
    return value
