"""The three files with a run's result, which are checked when they are read back."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from yaml import YAMLError

from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.names import check_name
from avalanche_gd.runs.plain_yaml import load_plain_yaml
from avalanche_gd.runs.small_files import read_small
from avalanche_gd.runs.typed import typed

_MIB = 2**20
_LIMITS = {"config.yaml": _MIB // 4, "run.json": _MIB, "metrics.csv": 64 * _MIB}
_LARGEST = 1e100  # the squares of larger numbers are infinite, in means and figures
_SEEDS = 2**64  # torch's limit
JUDGES = ("oracles", "labellers")
"""Classifiers that measure, by their names in ``run.json``."""
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|-?inf")


class Row(NamedTuple):
    """A line of ``metrics.csv``."""

    experience: int
    metric: str
    value: float


@dataclass
class _Time:
    """When a run started or continued: with which code, on which machine."""

    versions: dict[str, str | None] = field(default_factory=dict)
    commit: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class _RunInfo(_Time):
    """``run.json``; in an earlier version it had only one time."""

    completed: bool
    benchmark: str
    method: str
    seed: int
    seconds: dict[str, float]
    data: str = ""
    """The digest of the data; an earlier version wrote none."""
    teachers: list[str] = field(default_factory=list)
    """The SHA-256 of the plugins' saved teachers; an earlier version wrote none."""
    cost: dict[str, float] = field(default_factory=dict)
    oracles: list[str] = field(default_factory=list)
    """The SHA-256 of the weights of the oracles that were used, at all times."""
    labellers: list[str] = field(default_factory=list)
    """The same of ResNet-18 labellers; an earlier version did not write them."""
    times: list[_Time] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of the files of the result, by name."""
    digest: str | None = None
    """The digest of all the rest; an earlier version wrote none."""


def info_digest(info: Mapping[str, Any]) -> str:
    """The SHA-256 of the content of ``run.json``, without the digest itself."""
    rest = {name: part for name, part in info.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_info(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, empty if there is none.

    :raises ValueError: if it is damaged.
    """
    path = folder / "run.json"
    with reading(path, "delete it"):
        try:
            content = read_small(path, limit=_LIMITS[path.name])
        except FileNotFoundError:
            return {}
        written = json.loads(content, object_pairs_hook=_once)
        info = typed(_RunInfo, written)
        if info["digest"] not in (None, info_digest(written)):
            raise ValueError("it was changed after it was written")
        for name in ("seconds", "cost"):
            for part, number in info[name].items():
                if not 0 <= number <= _LARGEST:
                    raise ValueError(f"{name}.{part} must be 0 or more, got {number}")
        if not info["times"]:
            info["times"] = [{one.name: info[one.name] for one in fields(_Time)}]
        return info


def read_settings(folder: Path, files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The content of ``config.yaml``, with defaults for settings that are newer.

    :param files: SHA-256 by name; if the file is in it, it must have this one.
    :raises ValueError: if it is absent or damaged.
    """
    path = folder / "config.yaml"
    with reading(path):
        settings = typed(RunConfig, load_plain_yaml(_text(path, files)))
        for section in ("benchmark", "method"):
            check_name(f"{section}.name", settings[section]["name"])
        if not 0 <= settings["seed"] < _SEEDS:
            raise ValueError("seed must be 0 or more, and below 2 to the power of 64")
        if settings["benchmark"]["n_experiences"] < 1:
            raise ValueError("benchmark.n_experiences must be 1 or more")
        return settings


def sections_of_run(path: Path) -> int | None:
    """How many of ``benchmark`` and ``method`` a ``config.yaml`` has; None if unreadable.

    Hydra's, from which runs are composed, or another program's does not have both, and may
    be too large to be read.
    """
    try:
        lines = read_small(path, limit=_LIMITS["config.yaml"]).splitlines()
    except (OSError, ValueError):
        return None
    return len({b"benchmark:", b"method:"} & {*lines})


def has_metrics(folder: Path) -> bool:
    """True if a folder has a ``metrics.csv`` that begins as a run's."""
    try:
        content = read_small(folder / "metrics.csv", limit=_LIMITS["metrics.csv"])
    except (OSError, ValueError):
        return False
    return content.startswith(",".join(Row._fields).encode())


def read_rows(folder: Path, files: Mapping[str, str] | None = None) -> list[Row]:
    """The lines of ``metrics.csv``.

    :param files: SHA-256 by name; if the file is in it, it must have this one.
    :raises ValueError: if it is absent or damaged, if a line is not a number of a metric
        after an experience, or if there are two for one.
    """
    path = folder / "metrics.csv"
    with reading(path):
        lines = csv.reader(io.StringIO(_text(path, files), newline=""), strict=True)
        if next(lines, None) != list(Row._fields):
            raise ValueError(f"its first line must be {','.join(Row._fields)}")
        rows = [_row(line) for line in lines]
        seen = set()
        for experience, metric, _ in rows:
            if (experience, metric) in seen:
                raise ValueError(f"two lines for {metric} of experience {experience}")
            seen.add((experience, metric))
        return rows


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The names and values of JSON; ValueError if a name is repeated."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name is there twice")
    return content


def _text(path: Path, files: Mapping[str, str] | None) -> str:
    content = read_small(path, limit=_LIMITS[path.name])
    known = (files or {}).get(path.name)
    if known is not None and known != hashlib.sha256(content).hexdigest():
        raise ValueError("it is not the file that run.json was written with")
    if not content.endswith(b"\n"):
        raise ValueError("its last line has no end")
    return content.decode()


def _row(line: Sequence[str]) -> Row:
    if len(line) != len(Row._fields):
        raise ValueError(f"a line has {len(line)} columns, not {len(Row._fields)}")
    experience, metric, value = line
    if not _INDEX.fullmatch(experience):
        raise ValueError(f"not an index of an experience: {experience!r:.80}")
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"not a number: {value!r:.80}")
    number = float(value)
    if abs(number) > _LARGEST and "inf" not in value:
        raise ValueError(f"a number above {_LARGEST:g}: {value!r:.80}")
    return Row(int(experience), metric, number)


@contextmanager
def reading(path: Path, mend: str = "delete its folder and run it again") -> Iterator[None]:
    """Make an error of reading name the file, and how to mend it.

    :param path: the file.
    :param mend: what to do if it is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there; {mend}") from error
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, YAMLError, csv.Error, RecursionError) as error:
        raise ValueError(
            f"{path} is cut short, or is damaged ({_reason(error)}); {mend}"
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return " ".join(str(error).split())
