"""What plugins remember from one experience to the next, for checkpoints."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset, concat_datasets
from avalanche.benchmarks.utils.data_loader import GroupBalancedInfiniteDataLoader
from avalanche.training import LearningWithoutForgetting
from avalanche.training import plugins as avalanche_plugins
from avalanche.training.storage_policy import (
    BalancedExemplarsBuffer,
    ReservoirSamplingBuffer,
)
from avalanche.training.utils import ParamData
from torch import nn

from avalanche_gd.data.model_space import as_dataset, kept_tensors
from avalanche_gd.plugins import GenerativeDistillationPlugin, RankOneEWCPlugin
from avalanche_gd.plugins.baselines import MIRPlugin

REMEMBERED: dict[type, tuple[str, ...]] = {
    GenerativeDistillationPlugin: (),
    RankOneEWCPlugin: ("mu", "theta", "c", "share"),
    avalanche_plugins.GenerativeReplayPlugin: ("untrained_solver", "weight_replay_loss"),
    avalanche_plugins.EWCPlugin: ("saved_params", "importances"),
    avalanche_plugins.SynapticIntelligencePlugin: ("ewc_data", "syn_data"),
    avalanche_plugins.MASPlugin: ("params", "importance"),
    avalanche_plugins.RWalkPlugin: (
        "iter_importance",
        "exp_scores",
        "exp_params",
        "exp_importance",
        "exp_penalties",
    ),
    avalanche_plugins.GEMPlugin: ("memory_x", "memory_y", "memory_tid"),
    avalanche_plugins.AGEMPlugin: ("buffers",),
    avalanche_plugins.ReplayPlugin: ("storage_policy",),
    MIRPlugin: ("storage_policy",),
    avalanche_plugins.LwFPlugin: ("lwf",),
}
"""Attributes by plugin; a subclass in this package remembers what its base does."""

_PACKAGES = ("avalanche", "avalanche_gd")


def remembers(plugin: Any) -> bool:
    """Whether a checkpoint can save the plugin: it is known, or has a ``state_dict``.

    A user's subclass of a known plugin cannot be saved, as it may remember more.
    """
    is_known = isinstance(plugin, tuple(REMEMBERED))
    package = type(plugin).__module__.partition(".")[0]
    return hasattr(plugin, "state_dict") or (is_known and package in _PACKAGES)


def plugin_states(plugins: Iterable[Any]) -> list[Any]:
    """The states of plugins, in tensors and plain containers."""
    return [_state(plugin) for plugin in plugins]


def load_plugin_states(plugins: Iterable[Any], states: list[Any], model: nn.Module) -> None:
    """Restore the states of plugins.

    :param plugins: new ones, in the same order.
    :param states: from :func:`plugin_states`.
    :param model: the strategy's; a remembered model is a copy of it.
    """
    for plugin, state in zip(plugins, states, strict=True):
        if hasattr(plugin, "load_state_dict"):
            plugin.load_state_dict(state)
            continue
        for name, value in state.items():
            setattr(plugin, name, _decode(value, getattr(plugin, name), model))
        _make_loaders(plugin)


def _state(plugin: Any) -> Any:
    if hasattr(plugin, "state_dict"):
        return plugin.state_dict()
    known = (names for kind, names in REMEMBERED.items() if isinstance(plugin, kind))
    return {name: _encode(getattr(plugin, name)) for name in next(known, ())}


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor):
        return value
    if isinstance(value, ParamData):
        return "ParamData", (value.name, value.data)
    if isinstance(value, nn.Module):
        return "Module", value.state_dict()
    if isinstance(value, AvalancheDataset):
        return "Dataset", kept_tensors(value) if len(value) else None
    if isinstance(value, ReservoirSamplingBuffer):
        parts = value.max_size, _encode(value.buffer), value._buffer_weights
        return "Reservoir", parts
    if isinstance(value, dict):
        return "dict", [(key, _encode(part)) for key, part in value.items()]
    if isinstance(value, list | tuple | set):
        return type(value).__name__, [_encode(part) for part in value]
    if isinstance(value, BalancedExemplarsBuffer | LearningWithoutForgetting):
        attributes = {name: part for name, part in vars(value).items() if name != "_buffer"}
        return "object", {name: _encode(part) for name, part in attributes.items()}
    raise TypeError(f"a checkpoint cannot save a {type(value).__name__}")


def _decode(value: Any, now: Any, model: nn.Module) -> Any:
    """Decode a value; an object or a dictionary is the existing one, ``now``, changed."""
    if not isinstance(value, tuple):
        return value
    kind, content = value
    if kind == "ParamData":
        name, data = content
        return ParamData(name, init_tensor=data, device=data.device)
    if kind == "Module":
        module = copy.deepcopy(model)
        module.load_state_dict(content)
        return module
    if kind == "Dataset":
        return concat_datasets([]) if content is None else as_dataset(*content)
    if kind == "Reservoir":
        max_size, buffer, weights = content
        reservoir = ReservoirSamplingBuffer(max_size)
        reservoir.buffer = _decode(buffer, None, model)
        reservoir._buffer_weights = weights
        return reservoir
    if kind == "object":
        for name, part in content.items():
            setattr(now, name, _decode(part, getattr(now, name), model))
        return now
    if kind == "dict":
        decoded = now if isinstance(now, dict) else {}  # it may be a defaultdict
        decoded.clear()
        decoded.update((key, _decode(part, None, model)) for key, part in content)
        return decoded
    parts = [_decode(part, None, model) for part in content]
    return {"list": list, "tuple": tuple, "set": set}[kind](parts)


def _make_loaders(plugin: Any) -> None:
    """Make the infinite data loaders again that depend on what a plugin remembers."""
    if isinstance(plugin, avalanche_plugins.AGEMPlugin) and plugin.buffers:
        plugin.buffer_dataloader = GroupBalancedInfiniteDataLoader(
            plugin.buffers, batch_size=plugin.sample_size // len(plugin.buffers)
        )
        plugin.buffer_dliter = iter(plugin.buffer_dataloader)
    if isinstance(plugin, MIRPlugin) and len(plugin.storage_policy.buffer):
        plugin.load_memory()
