"""The settings of runs: those that decide the result, and those that differ."""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from avalanche_gd.models import PRESETS, preset_shape
from avalanche_gd.runs import identity
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.results import RunResult

SHOWN = 8
"""How many digits of a SHA-256 are shown, as in the name of a run's folder."""
_WEIGHTS, _MEASURES = "evaluation.weights_path", "evaluation.measures"
_CALLED = {
    "lambd": ("penalty",),
    "ewc_lambda": ("penalty", "lambd"),
    **dict.fromkeys(("si_lambda", "lambda_reg", "alpha"), ("lambd",)),
    **dict.fromkeys(("mem_size", "patterns_per_experience", "subsample"), ("memory",)),
    "threshold": ("snr_threshold",),
    "scale": ("guidance_scale",),
}
"""Arguments of plugins, and settings of methods with other names and the same meaning."""


def flatten(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run by dotted name, without its seed and its folder.

    An argument of a plugin that only repeats a setting of the method is left out, and so is
    an empty setting. As in a run's identity, a file of weights is known by its name, and
    the order of measures does not count.

    >>> flatten({"seed": 1, "method": {"name": "naive", "lambd": 2, "plugins": []}})
    {'method.name': 'naive', 'method.lambd': 2}
    >>> flatten({"evaluation": {"weights_path": "/w/w.pth", "measures": ["kid", "afid"]}})
    {'evaluation.weights_path': 'w.pth', 'evaluation.measures': 'afid, kid'}
    """
    flat = identity.flatten(config)
    for key in ("seed", *identity.NOT_DECIDING):
        flat.pop(key, None)
    if flat.get(_WEIGHTS) is not None:
        flat[_WEIGHTS] = PurePath(flat[_WEIGHTS]).name
    if names := [flat.pop(key) for key in [*flat] if key.startswith(f"{_MEASURES}.")]:
        flat[_MEASURES] = ", ".join(sorted(map(str, names)))
    return {key: value for key, value in flat.items() if not _repeated(key, flat)}


def deciding(run: RunResult) -> dict[str, Any]:
    """The settings that decide a run's result, by dotted name, without its seed.

    As in a run's identity, but a setting of the method is called so where plugins take it.
    """
    return of_method(run) | outside_method(run)


def of_method(run: RunResult) -> dict[str, Any]:
    """The method's own settings that decide, by dotted name.

    As in a run's identity, a teacher is known by its content, if ``run.json`` says it.
    """
    flat = identity.only_deciding(identity.flatten({"method": run.config["method"]}))
    known = teachers(run)
    flat |= {k: known.get(v, v) for k, v in flat.items() if k.endswith(".teacher")}
    used = {f"method.{name}" for name in identity.OF_EACH_METHOD}
    used |= {name for key in flat for name in _repeated(key, flat)}
    return {
        key: value
        for key, value in flat.items()
        if ".".join(key.split(".")[:2]) in used and not _repeated(key, flat)
    }


def teachers(run: RunResult) -> dict[str, str]:
    """The SHA-256 of the run's saved teachers by their paths; empty if not recorded."""
    flat = identity.flatten({"method": run.config["method"]})
    is_of_plugin = re.compile(r"method\.plugins\.[0-9]+\.teacher").fullmatch
    paths = [v for k, v in flat.items() if is_of_plugin(k) and isinstance(v, str)]
    digests = run.info.get("teachers", [])
    return dict(zip(paths, digests, strict=True)) if len(paths) == len(digests) else {}


def outside_method(run: RunResult, *others: str) -> dict[str, Any]:
    """The settings, by dotted name, that methods must share to be compared.

    Without those of what the run does not have. The shape of the images is one of them,
    also without a model.

    :param others: the names of settings, and of sections, that are left out too.
    """
    names = {*identity.lacking(run.config), *others}
    outside = {key: part for key, part in run.config.items() if key != "method"}
    flat = identity.only_deciding(flatten(identity.without(names, outside)))
    shared = {k: v for k, v in flat.items() if not k.startswith("model.sample_shape")}
    return shared | {"model.sample_shape": _shape(run.config["model"])}


def _shape(model: dict[str, Any]) -> list[int]:
    """``[C, H, W]`` of a model's images; empty for a preset of another version."""
    preset = model["preset"]
    if preset is None:
        return list(model["sample_shape"] or [])
    return list(preset_shape(preset)) if preset in PRESETS else []


def differing(several: Sequence[dict[str, Any]]) -> list[str]:
    """The names of settings that are not the same in all.

    None is not the same as not given, as the default of a plugin may be another.

    >>> differing([{"seed": 1, "steps": 2}, {"seed": 1, "steps": 3}])
    ['steps']
    """
    names = dict.fromkeys(name for settings in several for name in settings)
    return [n for n in names if len({repr(own.get(n, ...)) for own in several}) > 1]


def chosen(settings: dict[str, Any]) -> list[str]:
    """The names of settings that do not have their default, or that have none.

    >>> chosen({"model.conditional": True, "model.process": "ddpm"})
    ['model.conditional']
    """
    defaults = identity.flatten(identity.defaults_of(RunConfig))
    return [n for n, v in settings.items() if n not in defaults or v != defaults[n]]


def by_method(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """Group the runs by method, in the given order; settings that differ are in the label.

    Settings that are None are left out of the label, as such an option is off, but where
    others were not given it. Of a label, the lowest seed comes first.

    :raises ValueError: if a label has two runs with settings that differ but read the same.
    """
    groups: dict[str, list[RunResult]] = {}
    for method in dict.fromkeys(run.method for run in runs):
        settings = [(run, of_method(run)) for run in runs if run.method == method]
        every = [own for _, own in settings]
        varied = sorted(differing(every))
        optional = {k for k in varied if any(k not in own for own in every)}
        for run, own in settings:
            shown = [k for k in varied if own.get(k) is not None or k in optional & {*own}]
            on = [f"{k}={_text(k, own[k])}" for k in shown]
            same = groups.setdefault(", ".join([method, *on]), [])
            if same and (names := differing([of_method(same[0]), own])):
                raise ValueError(
                    f"{same[0].folder} and {run.folder} have the same method, and settings "
                    f"that read the same, but for {', '.join(names)}; leave one of them out"
                )
            same.append(run)
    return {label: sorted(own, key=lambda run: run.seed) for label, own in groups.items()}


def _text(name: str, value: Any) -> str:
    """A setting in a label: of a teacher's digest, the first digits."""
    is_digest = name.endswith(".teacher") and re.fullmatch("[0-9a-f]{64}", str(value))
    return str(value)[:SHOWN] if is_digest else str(value)


def _repeated(key: str, flat: dict[str, Any]) -> list[str]:
    """The names that say the same: ``method.lambd`` for ``method.plugins.0.lambd``."""
    parts = key.split(".")
    if parts[0] != "method" or len(parts) < 3:
        return []
    shared = [f"method.{name}" for name in (parts[-1], *_CALLED.get(parts[-1], ()))]
    return [name for name in shared if name in flat and repr(flat[name]) == repr(flat[key])]
