"""Copy the results of runs, without paths to their data, for others to report on."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

from avalanche_gd.report.settings import flatten, teachers
from avalanche_gd.runs.results import RUN_FOLDER, RunResult, read_run
from avalanche_gd.runs.run_files import info_digest
from avalanche_gd.storage import expanded, folder_digest, write_folder, write_json

_FILES = (
    ("benchmark.options", "root"),
    ("evaluation", "weights_path"),
    ("evaluation", "labeller_weights"),
)
"""Settings, by section and name, of which only the last part of the path is published."""

Settings = dict[str, Any]


def publish(runs: Sequence[RunResult], to: Path) -> list[Path]:
    """Copy ``config.yaml``, ``metrics.csv`` and ``run.json`` of runs, to be read as runs.

    The settings that say where files are on this machine are changed: ``out`` becomes
    ``runs``; ``benchmark.options.root``, ``evaluation.weights_path`` and
    ``evaluation.labeller_weights`` become the last part of their paths; a ``teacher``
    becomes the SHA-256 of its files. Others are copied as they are, also paths among the
    options of one's own.

    :param runs: complete runs.
    :param to: where the copies go, as ``BENCHMARK/METHOD/seed-N-DIGEST``. A copy with the
        same settings and metrics that is there stays.
    :returns: the folders of the copies.
    :raises ValueError: before any is written, if something else is there, two would have
        the same folder, ``to`` is inside a run or is not a folder, or a teacher whose
        digest is not recorded is gone; or if one cannot be read or written.
    """
    whole = to.resolve()
    for above in (whole, *whole.parents):
        if (above / "run.json").exists():
            raise ValueError(f"{to} is inside the run {above}; choose another folder")
    copies = [to / run.benchmark / run.method / _name(run) for run in runs]
    new = []
    for run, copy in zip(runs, copies, strict=True):
        if copies.count(copy) > 1:
            raise ValueError(
                f"{run.folder} and another run would both be {copy}; publish them to "
                "different folders"
            )
        settings = _published(run)
        if not _is_there(run, settings, copy):
            new.append((run, settings, copy))
    for run, settings, copy in new:
        write_folder(copy, partial(_write, run, settings))
    return copies


def _name(run: RunResult) -> str:
    """The name of the run's folder, or one of that form if it has been renamed."""
    own = run.folder.resolve().name
    if RUN_FOLDER.fullmatch(own):
        return own
    text = repr(sorted(flatten(run.config).items()))
    return f"seed-{run.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _published(run: RunResult) -> Settings:
    """The settings of the copy.

    :raises ValueError: if a teacher is gone, and ``run.json`` does not say its digest.
    """
    settings = deepcopy(run.config) | {"out": "runs"}
    for section, name in _FILES:
        holder: Any = settings
        for part in section.split("."):
            holder = holder.get(part) or {}
        if isinstance(path := holder.get(name), str):
            holder[name] = PurePath(path).name
    method, known = settings["method"], teachers(run)
    for holder in (method, *method["plugins"], *method["solver_plugins"]):
        if isinstance(teacher := holder.get("teacher"), str):
            holder["teacher"] = known.get(teacher) or _digest(run, teacher)
    return settings


def _digest(run: RunResult, teacher: str) -> str:
    """The SHA-256 of a teacher's files, which a copy has already."""
    if re.fullmatch("[0-9a-f]{64}", teacher):
        return teacher
    folder = expanded(teacher)
    if not folder.is_dir():
        raise ValueError(
            f"{run.folder} was taught by {teacher:.200}, which is gone; others know a "
            "teacher by its content, so bring it back"
        )
    return folder_digest(folder)


def _is_there(run: RunResult, settings: Settings, copy: Path) -> bool:
    """True if there is a copy of the run.

    :param settings: those of a copy.
    :raises ValueError: if anything else is there.
    """
    above = next(path for path in (copy, *copy.parents) if os.path.lexists(path))
    if not above.is_dir():
        raise ValueError(f"{above} is not a folder; choose another one to publish to")
    if above != copy:
        return False
    try:
        other = read_run(copy)
    except ValueError as error:
        raise ValueError(f"{copy} is there and is no copy of a run; move it") from error
    if flatten(settings) != flatten(other.config) or metrics(run) != metrics(other):
        raise ValueError(
            f"{copy} is there with other settings or results than {run.folder}; move one "
            "of them, or choose another folder to publish to"
        )
    return True


def metrics(run: RunResult) -> list[str]:
    """The rows as text, so that NaN equals NaN."""
    return sorted(map(repr, run.rows))


def _write(run: RunResult, settings: Settings, folder: Path) -> None:
    """Write the files of a copy, and read them again.

    :raises ValueError: if what is read is not the run.
    """
    config = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()
    (folder / "config.yaml").write_bytes(config)
    shutil.copyfile(run.folder / "metrics.csv", folder / "metrics.csv")
    info = json.loads((run.folder / "run.json").read_bytes())
    if "files" in info:
        info["files"]["config.yaml"] = hashlib.sha256(config).hexdigest()
    if "digest" in info:
        info["digest"] = info_digest(info)
    write_json(folder / "run.json", info)
    copy = read_run(folder)
    if flatten(copy.config) != flatten(settings) or metrics(copy) != metrics(run):
        raise ValueError(f"{run.folder} was changed while it was copied; try it again")
