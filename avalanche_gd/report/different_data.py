"""Which runs of the same benchmark settings are of different data."""

from collections.abc import Sequence
from pathlib import Path

from avalanche_gd.report.settings import SHOWN, outside_method
from avalanche_gd.runs.results import RunResult


def different_data(runs: Sequence[RunResult]) -> dict[Path, dict[str, str]]:
    """The setting ``data`` by folder, for the runs that their data tell apart.

    Runs are compared that have the same settings of the benchmark and the same shape of
    images. If each seed has a digest of its own, they stay together: the seed may decide
    the images. Two digests of one seed, or one digest of two seeds beside another, do not
    come from the seed. Then runs that do not say of which data they are stay apart too,
    as they could be of any.

    :return: ``{folder: {"data": DIGITS}}``; without the runs that stay together.
    """
    alike: dict[str, list[RunResult]] = {}
    for run in runs:
        alike.setdefault(_decides_data(run), []).append(run)
    return {
        run.folder: {"data": run.info["data"][:SHOWN] or "not recorded"}
        for group in alike.values()
        if _are_told_apart(group)
        for run in group
    }


def _decides_data(run: RunResult) -> str:
    """Text for the settings that decide the data, beside the seed and their place."""
    settings = outside_method(run).items()
    names = ("benchmark.", "model.sample_shape")
    return repr(sorted(setting for setting in settings if setting[0].startswith(names)))


def _are_told_apart(runs: Sequence[RunResult]) -> bool:
    known = {(run.seed, run.info["data"]) for run in runs if run.info["data"]}
    seeds, data = {seed for seed, _ in known}, {digest for _, digest in known}
    return len(data) > 1 and not len(seeds) == len(data) == len(known)
