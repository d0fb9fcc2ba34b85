"""The configuration of a run as Hydra composes it, checked."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from avalanche.training.plugins import ReplayPlugin
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from avalanche_gd.data.model_space import check_experiences
from avalanche_gd.distributed.launch import process_count
from avalanche_gd.distributed.shares import check_shares
from avalanche_gd.models import check_conditioning
from avalanche_gd.plugins.replay import LABELS
from avalanche_gd.runs.config import RunConfig

_GENERATORS = ("diffusion", "vae", "none")


def method_names() -> list[str]:
    """All methods of the registry, which is the folder ``conf/method``."""
    folder = files("avalanche_gd.conf").joinpath("method")
    names = (path.name for path in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def compose_config(overrides: Sequence[str]) -> RunConfig:
    """The checked configuration of a run by overrides of the defaults.

    :param overrides: Hydra's, such as ``["benchmark=split_digits", "seed=1"]``.
    :raises ValueError: for a value that is not allowed, with what is.
    """
    with initialize_config_module("avalanche_gd.conf", version_base="1.3"):
        return read_config(compose("config", list(overrides)))


def read_config(composed: DictConfig) -> RunConfig:
    """The checked configuration of what Hydra composed.

    :raises ValueError: for a value that is not allowed, with what is.
    """
    keys = [str(key) for key in composed if key != "hydra"]
    content = OmegaConf.masked_copy(composed, keys)
    OmegaConf.set_struct(content, False)
    merged = OmegaConf.merge(OmegaConf.structured(RunConfig), content)
    OmegaConf.resolve(merged)
    if missing := sorted(OmegaConf.missing_keys(merged)):
        given = " ".join(f"{name}=VALUE" for name in missing)
        raise ValueError(f"no value for {' and '.join(missing)}; give {given}")
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    _check(config)
    return config


def _check(config: RunConfig) -> None:
    at_least_one = {
        "threads": config.threads,
        "generator.steps": config.generator.steps,
        "generator.batch_size": config.generator.batch_size,
        "solver.steps": config.solver.steps,
        "solver.batch_size": config.solver.batch_size,
    }
    for name, number in at_least_one.items():
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, got {number}")
    above_zero = {
        "generator.learning_rate": config.generator.learning_rate,
        "solver.learning_rate": config.solver.learning_rate,
        "solver.temperature": config.solver.temperature,
    }
    for name, value in above_zero.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    if not 0 <= config.generator.decay_steps <= config.generator.steps:
        raise ValueError(
            f"generator.decay_steps must be from 0 to generator.steps, "
            f"{config.generator.steps}, got {config.generator.decay_steps}"
        )
    pool_size = config.solver.pool_size
    if pool_size is not None and pool_size < 1:
        raise ValueError(f"solver.pool_size must be 1 or more, got {pool_size}")
    decay = config.generator.ema_decay
    if decay is not None and not 0 <= decay < 1:
        raise ValueError(f"generator.ema_decay must be in [0, 1), got {decay}")
    if config.seed < 0:
        raise ValueError(f"seed must be 0 or more, got {config.seed}")
    if config.method.lambd < 0:
        raise ValueError(f"method.lambd must be 0 or more, got {config.method.lambd}")
    for name, steps in {
        "method.teacher_steps": config.method.teacher_steps,
        "solver.replay_steps": config.solver.replay_steps,
        "evaluation.steps": config.evaluation.steps,
    }.items():
        if not 1 <= steps <= 1000:
            raise ValueError(f"{name} must be from 1 to T = 1000, got {steps}")
    _ = config.sample_shape, config.evaluation.sampling(), config.model.execution()
    check_experiences(config.benchmark.n_experiences, config.benchmark.n_classes)
    _check_device(config)
    _check_method(config)
    _check_parallel(config)


def _check_method(config: RunConfig) -> None:
    method = config.method
    if method.generator not in _GENERATORS:
        raise ValueError(
            f"no method.generator {method.generator!r}; "
            f"choose from {', '.join(_GENERATORS)}"
        )
    if method.memory < 1:
        raise ValueError(f"method.memory must be 1 or more, got {method.memory}")
    if method.solver_replays and method.generator == "none":
        raise ValueError("method.solver_replays needs a method.generator to replay from")
    labels = config.solver.replay_labels
    if labels not in LABELS:
        raise ValueError(
            f"no solver.replay_labels {labels!r}; choose from {', '.join(LABELS)}"
        )
    if labels == "condition" and not config.model.conditional:
        raise ValueError(
            "solver.replay_labels=condition needs a conditioned model; "
            "add model.conditional=true"
        )
    if config.model.conditional and method.generator != "diffusion":
        raise ValueError(
            f"model.conditional=true is for diffusion models; {method.name} trains none"
        )
    model = config.model
    check_conditioning(
        config.benchmark.n_classes if model.conditional else None,
        model.condition_dropout if model.conditional else 0.0,
        model.guidance,
    )
    config.make_plugins()
    config.make_solver_plugins()


def _check_device(config: RunConfig) -> None:
    try:
        device = config.torch_device
    except RuntimeError:
        raise ValueError(
            f"no device {config.device!r}; choose from auto, cpu, cuda, cuda:N"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no GPU here; choose device=cpu")


def _check_parallel(config: RunConfig) -> None:
    """Whether the processes can share a run.

    :raises ValueError: if not.
    """
    count = process_count()
    if count == 1:
        return
    parts: list[tuple[str, int, list[Any]]] = [
        ("generator", config.generator.batch_size, config.make_plugins()),
        ("solver", config.solver.batch_size, config.make_solver_plugins()),
    ]
    for name, batch_size, plugins in parts:
        check_shares(f"{name}.batch_size", batch_size, count)
        if config.method.generator == "vae" or not all(map(_shares, plugins)):
            raise ValueError(
                f"method={config.method.name} cannot be trained by several processes; "
                "run it without torchrun"
            )
        for plugin in plugins:
            if hasattr(plugin, "check_shares"):
                plugin.check_shares(batch_size, count)
    if config.torch_device.type == "cuda":
        _check_devices(config.device, count)


def _check_devices(device: str, count: int) -> None:
    if device.startswith("cuda:"):
        raise ValueError(f"device={device} is one GPU for {count} processes; use cuda")
    if torch.cuda.device_count() < count:
        raise ValueError(
            f"{count} processes need as many GPUs, but there are "
            f"{torch.cuda.device_count()}; start fewer, or choose device=cpu"
        )


def _shares(plugin: Any) -> bool:
    """Whether a plugin works on shares; ReplayPlugin's last batches are of any size."""
    return plugin.supports_distributed and not isinstance(plugin, ReplayPlugin)
