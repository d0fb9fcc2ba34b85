"""Which settings decide a run's result, and the digest that names the run."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import PurePath
from typing import Any

from avalanche_gd.storage import expanded, folder_digest

_VERSION = 1  # of the rules below; another number gives all runs new names

NOT_DECIDING = frozenset(
    {
        *("out", "device", "threads", "check"),
        "benchmark.options.root",  # where the data are, not what they are
        "evaluation.batch_size",
        "evaluation.labeller_weights",  # the file is known by its digest
    }
)
"""Settings by dotted name that do not decide a run's result."""

OF_EACH_METHOD = (
    *("name", "generator", "cumulative", "all_at_once"),
    *("solver", "solver_replays", "plugins", "solver_plugins"),
)
"""Settings of the method that decide; others do if a plugin takes them."""

_OF_REPLAY = (
    *("replay_steps", "look_ahead", "pool_size", "replay_labels", "temperature"),
    *("replay_eta", "increasing_replay_size", "samples_only_from", "regenerate_from"),
    *("guidance", "guidance_scale"),
)
_OFF = {
    **dict(teacher_eta=0, replay_start_timestep=0, increasing_replay_size=False),
    **dict(weighting="experiences", pool_per_class=None, pool_of="samples"),
    **dict(teacher_ema_decay=None, fit="resize", unconditional_weight=None),
}
"""Arguments of our plugins and benchmarks that came later, with values that are off."""
_ARGUMENTS = (
    *("benchmark.options.", "model.options."),
    *("method.plugins.", "method.solver_plugins."),
)
"""Where arguments of classes are, by the beginning of their names."""
_OURS = "avalanche_gd."
_OF_A_CONDITION = ("condition_dropout", "guidance")
_NO_TEMPERATURE = 2.0
"""What a name has in place of a temperature that does nothing, as all had when it counted.
"""


def flatten(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; what is empty is left out, but for an argument.

    >>> flatten({"method": {"name": "naive", "plugins": [{"lambd": 2}]}, "options": {}})
    {'method.name': 'naive', 'method.plugins.0.lambd': 2}
    >>> flatten({"benchmark": {"options": {"sizes": []}}})
    {'benchmark.options.sizes': []}
    """
    if not value and name.startswith(_ARGUMENTS):
        return {name: value}
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= flatten(part, f"{name}.{key}" if name else str(key))
    return flat


def lacking(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The dotted names of settings, and of sections, that do nothing in a run.

    They are of what it does not have, a condition, a generator, a solver or its replay, or
    have no use beside others, such as the temperature of soft labels where labels are not
    soft.

    :param settings: nested, with the sections ``method``, ``model`` and ``solver``.

    >>> method = {"generator": "diffusion", "solver": True, "solver_replays": True}
    >>> solver = {"replay_labels": "condition", "pool_size": None}
    >>> lacking({"method": method, "model": {"conditional": True}, "solver": solver})
    ('solver.temperature',)
    """
    return (*_absent(settings), *_useless(settings))


def _absent(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The settings and sections of what a run does not have."""
    method, names = settings["method"], []
    if method["generator"] == "none":
        names += ["model", "generator", "evaluation"]
    elif not settings["model"]["conditional"]:
        names += [f"model.{name}" for name in _OF_A_CONDITION]
    if not method["solver"]:
        names += ["solver"]
    elif not method["solver_replays"]:
        names += [f"solver.{name}" for name in _OF_REPLAY]
    return tuple(names)


def _useless(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of a replaying solver that do nothing beside its other settings."""
    method, solver, names = settings["method"], settings["solver"], []
    if method["solver"] and method["solver_replays"]:
        if solver.get("replay_labels") == "condition":
            names.append("solver.temperature")
        if solver.get("pool_size") is not None:
            names.append("solver.look_ahead")
    return tuple(names)


def without(names: Collection[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings without those that a run lacks.

    :param names: as from :func:`lacking`.

    >>> without(["model", "solver.steps"], {"model": {}, "solver": {"steps": 3}, "seed": 1})
    {'solver': {}, 'seed': 1}
    """
    return {
        section: {k: v for k, v in part.items() if f"{section}.{k}" not in names}
        if isinstance(part, Mapping)
        else part
        for section, part in settings.items()
        if section not in names
    }


def deciding_settings(config: Any) -> dict[str, Any]:
    """The settings that decide a run's result, by dotted name.

    Left out are :data:`NOT_DECIDING`, and settings that do nothing in the run
    (:func:`lacking`; of a temperature, its default counts instead). Settings of the method
    that only its plugins use are taken from the plugins, without later options that are
    off.

    :param config: a :class:`~avalanche_gd.runs.config.RunConfig`.
    """
    settings = asdict(config)
    useless = _useless(settings)
    settings = without(lacking(settings), settings)
    if "solver.temperature" in useless:
        settings["solver"]["temperature"] = _NO_TEMPERATURE
    if "model" not in settings:
        settings["model"] = {"sample_shape": list(config.model.shape)}
    settings["method"] = {name: settings["method"][name] for name in OF_EACH_METHOD}
    for plugin in settings["method"]["plugins"]:
        if isinstance(plugin.get("teacher"), str):  # its content and not its path
            plugin["teacher"] = _saved_digest(plugin["teacher"])
    evaluation = settings.get("evaluation", {})
    if evaluation.get("weights_path") is not None:  # the name of the file identifies it
        evaluation["weights_path"] = PurePath(evaluation["weights_path"]).name
    return only_deciding(flatten(settings))


def only_deciding(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted name, without those that do not decide a run's result.

    >>> only_deciding({"seed": 1, "out": "runs", "benchmark.options.fit": "resize"})
    {'seed': 1}
    """
    return {
        name: value
        for name, value in flat.items()
        if name not in NOT_DECIDING and not _is_off(name, flat)
    }


def _is_off(name: str, flat: Mapping[str, Any]) -> bool:
    """True for an argument of a plugin or benchmark that is off, as if it was not given.

    What is off in one of ours may be something else in a class of the user's, or within a
    value that is given to it.
    """
    section, _, option = name.rpartition(".")
    if not name.startswith(_ARGUMENTS) or option not in _OFF or flat[name] != _OFF[option]:
        return False
    if section == "benchmark.options":
        return str(flat.get("benchmark._target_", _OURS)).startswith(_OURS)
    return str(flat.get(f"{section}._target_", "")).startswith(_OURS)


def teacher_digests(config: Any) -> list[str]:
    """The SHA-256 of each saved model that the method's plugins take, in their order.

    :param config: a :class:`~avalanche_gd.runs.config.RunConfig`.
    """
    given = [plugin.get("teacher") for plugin in config.method.plugins]
    return [_saved_digest(folder) for folder in given if isinstance(folder, str)]


def _saved_digest(folder: str) -> str:
    """The SHA-256 of a saved model."""
    return folder_digest(expanded(folder))


def run_digest(config: Any) -> str:
    """The SHA-256 of the settings that decide a run's result, with its seed.

    A setting with its default value is not included, so that a later version can add one.

    :param config: a :class:`~avalanche_gd.runs.config.RunConfig`.
    """
    defaults = flatten(defaults_of(config))
    settings = deciding_settings(config)
    other = {k: v for k, v in settings.items() if k not in defaults or v != defaults[k]}
    text = json.dumps({"version": _VERSION, **other}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def defaults_of(config: Any) -> dict[str, Any]:
    """The defaults of the fields that have one, of nested data classes or their values."""
    defaults: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name, field.type)
        if is_dataclass(value):
            defaults[field.name] = defaults_of(value)
        elif field.default is not MISSING:
            defaults[field.name] = field.default
    return defaults
