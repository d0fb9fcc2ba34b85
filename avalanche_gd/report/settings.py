"""The settings of runs: which decide the result, and in which runs differ."""

from collections.abc import Sequence
from typing import Any

from avalanche_gd.runs import identity
from avalanche_gd.runs.results import RunResult

_CALLED = {
    "lambd": ("penalty",),
    "ewc_lambda": ("penalty", "lambd"),
    "threshold": ("snr_threshold",),
    "scale": ("guidance_scale",),
}
"""Arguments of plugins, and the settings of methods that say the same under other names."""


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of an experiment by dotted name, without its seed and its place.

    An argument of a plugin that only repeats a setting of the method is left out, as is
    what is empty.

    >>> flatten({"seed": 1, "method": {"name": "naive", "lambd": 2, "plugins": []}})
    {'method.name': 'naive', 'method.lambd': 2}
    """
    flat = identity.flatten(config)
    for key in ("seed", *identity.NOT_DECIDING):
        flat.pop(key, None)
    return {key: value for key, value in flat.items() if not _is_repeated(key, flat)}


def of_method(run: RunResult) -> dict[str, Any]:
    """Those flat settings that are the method's own."""
    return flatten({"method": run.config["method"]})


def outside_method(run: RunResult) -> dict[str, Any]:
    """Those flat settings that methods must share to be compared."""
    return flatten({key: part for key, part in run.config.items() if key != "method"})


def differing(several: Sequence[dict[str, Any]]) -> list[str]:
    """The names of flat settings that are not the same in all.

    >>> differing([{"seed": 1, "steps": 2}, {"seed": 1, "steps": 3}])
    ['steps']
    """
    names = dict.fromkeys(name for settings in several for name in settings)
    return [name for name in names if len({repr(own.get(name)) for own in several}) > 1]


def by_method(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs by method, in the order given; its settings that differ are in the label.

    But for options that are off, which are None.
    """
    groups: dict[str, list[RunResult]] = {}
    for method in dict.fromkeys(run.method for run in runs):
        settings = [(run, of_method(run)) for run in runs if run.method == method]
        varied = sorted(differing([own for _, own in settings]))
        for run, own in settings:
            on = [f"{key}={own[key]}" for key in varied if own.get(key) is not None]
            groups.setdefault(", ".join([method, *on]), []).append(run)
    return groups


def _is_repeated(key: str, flat: dict[str, Any]) -> bool:
    """True if ``method.plugins.0.lambd`` says what ``method.lambd`` does."""
    parts = key.split(".")
    if parts[0] != "method" or len(parts) < 3:
        return False
    shared = (f"method.{name}" for name in (parts[-1], *_CALLED.get(parts[-1], ())))
    return any(name in flat and repr(flat[name]) == repr(flat[key]) for name in shared)
