"""Find the runs in some folders, and group those that may be averaged together."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avalanche_gd.report.different_data import different_data
from avalanche_gd.report.publish import metrics
from avalanche_gd.report.section import Section
from avalanche_gd.report.settings import (
    by_method,
    chosen,
    deciding,
    differing,
    flatten,
    outside_method,
)
from avalanche_gd.runs.identity import lacking
from avalanche_gd.runs.results import (
    RUN_FOLDER,
    RunResult,
    read_run,
    read_unfinished,
    says_complete,
)
from avalanche_gd.runs.run_files import has_metrics, sections_of_run

_MOST_EXPERIENCES = 200  # one picture each, side by side
_SHOWN_PARTS = 3  # BENCHMARK/METHOD/seed-N-DIGEST
_Data = dict[Path, dict[str, str]]  # as from different_data


@dataclass
class Unfinished:
    """A run that has not reached its end; it is in no average."""

    folder: Path
    experiences: int = 0
    """How many experiences were trained and evaluated."""
    config: dict[str, Any] = field(default_factory=dict)
    """Empty if the run was killed before it wrote it."""


@dataclass
class Collection:
    """The runs that were found."""

    sections: list[Section]
    unfinished: list[Unfinished]
    duplicates: list[tuple[Path, Path]]
    """Runs that are left out, and the same run that is kept."""

    @property
    def runs(self) -> list[RunResult]:
        """The complete runs, once also if a run is in several sections."""
        every = (run for section in self.sections for run in section.runs)
        return list({run.folder: run for run in every}.values())


def collect(folders: Sequence[Path]) -> Collection:
    """Read all runs below the folders.

    :param folders: folders with runs, at any depth.
    :raises ValueError: if a folder has no run or cannot be read, a run is damaged or has
        too many experiences for a report, or two runs with the same method, seed and
        settings have different results.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        try:
            is_folder = folder.is_dir()
            below = list(_find(folder)) if is_folder else []
        except OSError as error:
            raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
        if not is_folder:
            raise ValueError(f"no folder {folder}; give folders of runs, such as runs")
        if not below:
            hint = "give a folder that avalanche-gd wrote to, such as runs"
            raise ValueError(f"no run in {folder}; {hint}")
        for path in below:
            found.setdefault(path.resolve(), path)
    complete, unfinished = [], []
    for path in found.values():
        if says_complete(path):
            complete.append(_read_complete(path))
        else:
            unfinished.append(_read_unfinished(path))
    complete.sort(key=lambda run: not (run.folder / "samples").is_dir())
    data = different_data(complete)
    kept: dict[str, RunResult] = {}
    duplicates = []
    for run in complete:  # of a run and a copy of its results, the run is kept
        settings = deciding(run) | data.get(run.folder, {})
        identity = repr((run.seed, sorted(settings.items())))
        first = kept.setdefault(identity, run)
        if first is run:
            continue
        if metrics(first) != metrics(run):
            raise ValueError(
                f"{first.folder} and {run.folder} have the same method, seed and "
                "settings but different results; leave one of them out"
            )
        duplicates.append((run.folder, first.folder))
    return Collection(_sections(list(kept.values()), data), unfinished, duplicates)


def shown(folder: Path) -> str:
    """The end of a run's path, which identifies it but says nothing of the machine."""
    return "/".join(folder.resolve().parts[-_SHOWN_PARTS:])


def _find(top: Path) -> Iterator[Path]:
    """The folders of runs, in order; links are followed, once."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]  # not by recursion, as folders can be too deep for it
    while waiting:
        folder = waiting.pop()
        state = folder.stat()
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        if _is_run(folder):
            yield folder
            continue
        below = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        own = [path for path in below if path.name in ("checkpoints", "samples")]
        if (folder / ".lock").is_file() and below == own:
            yield folder  # killed before it wrote its configuration
            continue
        waiting += [
            path
            for path in reversed(below)
            if not path.name.startswith(".") and os.access(path, os.R_OK | os.X_OK)
        ]


def _is_run(folder: Path) -> bool:
    """True if there are files of a run, also damaged ones.

    Not for a ``config.yaml`` of another program: it has other sections, and nothing of a
    run is beside it.
    """
    if os.path.lexists(folder / "run.json"):
        return True
    config = folder / "config.yaml"  # may also be another program's
    if not os.path.lexists(config):
        return False
    if (folder / ".lock").is_file() or has_metrics(folder):
        return True
    sections = sections_of_run(config)
    if RUN_FOLDER.fullmatch(folder.name):  # also of a damaged one
        return sections is None or sections > 0
    return sections == 2


def _read_complete(folder: Path) -> RunResult:
    run = read_run(folder)
    if run.n_experiences > _MOST_EXPERIENCES:
        raise ValueError(
            f"{folder} has {run.n_experiences} experiences; a report can show up to "
            f"{_MOST_EXPERIENCES}, leave it out"
        )
    return run


def _read_unfinished(folder: Path) -> Unfinished:
    if not _is_run(folder):
        return Unfinished(folder)
    run = read_unfinished(folder)
    return Unfinished(folder, len({row.experience for row in run.rows}), run.config)


def _sections(runs: list[RunResult], data: _Data) -> list[Section]:
    sections = []
    for one, group in _groups(runs, data):
        methods = by_method(sorted(group, key=_order))
        settings = outside_method(one) | data.get(one.folder, {})
        lacks = (*lacking(one.config), "data")  # unless it tells them apart
        sections.append(Section(one.benchmark, settings, methods, lacks=lacks))
    sections.sort(
        key=lambda section: (
            section.benchmark,
            len(chosen(section.settings)),
            -len(section.runs),
            repr(sorted(section.settings.items())),
        )
    )
    for benchmark in {section.benchmark for section in sections}:
        own = [section for section in sections if section.benchmark == benchmark]
        names = [
            name
            for name in differing([section.settings for section in own])
            if len({repr(s.settings.get(name, ...)) for s in own if s.has(name)}) > 1
        ]
        for number, section in enumerate(own, start=1):
            section.number = number
            section.differs = {
                name: section.settings.get(name, "not given")
                for name in names
                if section.has(name)
            }
    _give_slugs(sections)
    return sections


def _groups(
    runs: list[RunResult], data: _Data
) -> Iterator[tuple[RunResult, list[RunResult]]]:
    """The runs of each section, and one of them that has all its settings.

    They have the same settings, but for those that a run lacks.
    """
    same: dict[str, list[RunResult]] = {}
    for run in runs:
        same.setdefault(_key(run, data), []).append(run)
    homes: dict[str, set[str]] = {key: set() for key in same}
    for names in {lacking(run.config) for run in runs}:
        for home, (one, *_) in same.items():
            # of runs that lack these, and agree in all others
            key = _key(one, data, *names)
            if key in same and lacking(same[key][0].config) == names:
                homes[key].add(home)
    for home, (one, *_) in same.items():
        if homes[home] == {home}:
            yield one, [run for key in same if home in homes[key] for run in same[key]]


def _key(run: RunResult, data: _Data, *others: str) -> str:
    """Text for the settings that it has, the same for runs that share them.

    :param others: the names of settings that are left out.
    """
    settings = outside_method(run, *others) | data.get(run.folder, {})
    return repr(sorted(settings.items()))


def _give_slugs(sections: Sequence[Section]) -> None:
    """Give each its own slug, also if case and underscores do not count."""
    taken: set[str] = set()
    for section in sections:
        number = section.number
        slug = section.benchmark if number == 1 else f"{section.benchmark}-{number}"
        while (key := slug.lower().replace("_", "-")) in taken:
            number += 1
            slug = f"{section.benchmark}-{number}"
        taken.add(key)
        section.slug = slug


def _order(run: RunResult) -> tuple[Any, ...]:
    """The naive method first, those with all data at once last, then by seed."""
    method = run.config["method"]
    learns = bool(method.get("solver_replays") or method.get("plugins"))
    settings = [
        (name, (0, value) if isinstance(value, int | float) else (1, repr(value)))
        for name, value in sorted(flatten({"method": method}).items())
    ]
    return bool(method.get("cumulative")), learns, run.method, settings, run.seed
