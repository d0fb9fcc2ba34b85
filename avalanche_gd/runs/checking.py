"""Check the settings of a run before any work."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, get_args, get_origin, get_type_hints

import torch
from avalanche.training.plugins import ReplayPlugin

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.data.model_space import check_experiences
from avalanche_gd.distributed.launch import process_count
from avalanche_gd.distributed.shares import check_shares
from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.classifier import classifier
from avalanche_gd.plugins import (
    EMAPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
)
from avalanche_gd.plugins.pool import check_memory
from avalanche_gd.runs.config import BudgetConfig, RunConfig
from avalanche_gd.runs.errors import naming
from avalanche_gd.runs.identity import OF_EACH_METHOD, flatten
from avalanche_gd.runs.names import check_name
from avalanche_gd.runs.strategies import make_generator, solver_replay
from avalanche_gd.storage import expanded, unwritable

_HIGHEST_SEED = 2**63 - 1  # of a signed integer
_MOST_THREADS = 1024  # torch can start so many
_GENERATORS = ("diffusion", "vae", "none")
_LOWEST = {
    "threads": 1,
    "benchmark.n_classes": 1,
    "generator.steps": 1,
    "generator.epochs": 1,
    "generator.batch_size": 1,
    "generator.decay_steps": 0,
    "solver.steps": 1,
    "solver.epochs": 1,
    "solver.batch_size": 1,
    "method.memory": 1,
}
"""The lowest values of settings that no object checks."""
_OF_DIFFUSION = {
    "model": ("precision", "channels_last", "compile", "process"),
    "generator": ("ema_decay",),
    "solver": (
        *("replay_labels", "replay_eta", "increasing_replay_size", "samples_only_from"),
        *("regenerate_from", "guidance"),
    ),
}
"""Settings that a VAE has no use for, off by default and in the protocols."""


def check_config(config: RunConfig) -> None:
    """Raise ValueError unless all parts of the run can be built.

    A preset's denoiser is built without its weights, to save memory and time.
    """
    check_name("benchmark.name", config.benchmark.name)
    check_name("method.name", config.method.name)
    if problem := next(chain(_wrong_values(config), _wrong_device(config)), None):
        raise ValueError(problem)
    check_integer("benchmark.n_experiences", config.benchmark.n_experiences)
    if config.benchmark._target_.startswith("avalanche_gd."):
        check_experiences(config.benchmark.n_experiences, config.benchmark.n_classes)
    with naming("model"):
        model = _make_model(config)
    with naming("evaluation"):
        images = config.evaluation.sampling().images
        if config.method.generator != "none":  # as noise, and as images
            what = f"an evaluation of {images} images"
            check_memory(what, model, 2 * images, config.torch_device)
    for name in ("evaluation.steps", "method.teacher_steps", "solver.replay_steps"):
        with naming(name):
            model.check_steps(attrgetter(name)(config))
    if config.generator.ema_decay is not None:
        with naming("generator"):
            EMAPlugin(config.generator.ema_decay)
    with naming("solver"), torch.device("meta"):
        shape, n_classes = config.model.shape, config.benchmark.n_classes
        classifier(config.solver.architecture, shape, n_classes)
    with naming("solver"):
        solver_replay(config.solver, SimpleNamespace(model=model))
    generator = make_generator(config) if config.method.generator == "vae" else model
    plugins = {name: config.make_plugins(name) for name in ("generator", "solver")}
    with naming(f"method={config.method.name}"):
        for plugin in plugins["generator"]:
            if _replays(plugin) or isinstance(plugin, RankOneEWCPlugin):
                plugin.check_model(generator)
            guidance = getattr(plugin, "guidance", None)
            if guidance and not config.method.solver:
                raise ValueError("it is guided by the solver; give method.solver=true")
            generator_first = config.solver.samples_only_from is not None
            if guidance and guidance.towards == "confused" and generator_first:
                raise ValueError(
                    "it is guided by the solver of the same experience, but with "
                    "solver.samples_only_from that is trained last; give null"
                )
        for plugin in plugins["solver"]:
            if isinstance(plugin, GenerativeDistillationPlugin | RankOneEWCPlugin):
                raise ValueError(
                    f"{type(plugin).__name__} is for a diffusion model; give it in "
                    "method.plugins, not in method.solver_plugins"
                )
    if process_count() > 1:
        _check_processes(config, plugins)


def check_kinds(settings: Any, content: Mapping[str, Any], above: str = "") -> None:
    """Raise ValueError for values that OmegaConf would convert, or not name in its error.

    These are a number instead of true or false or of a text, and a list instead of values
    by name, or the other way round.

    :param settings: a data class.
    :param content: the settings as they were composed.
    :param above: the dotted name of the section.
    """
    types = get_type_hints(settings)
    for name, value in content.items():
        kind = types.get(name)
        if is_dataclass(kind) and isinstance(value, Mapping):
            check_kinds(kind, value, f"{above}{name}.")
        kinds = [get_origin(part) or part for part in (kind, *get_args(kind))]
        meant = ""
        if kind is bool and isinstance(value, int | float) and not isinstance(value, bool):
            meant = "true or false"
        if kind in (str, str | None) and isinstance(value, bool | int | float):
            meant = (
                f"a text, in quotes for Hydra and for the shell, \"{above}{name}='TEXT'\""
            )
        if isinstance(value, list) and dict in kinds:
            meant = "values by name, {NAME: VALUE}"
        if isinstance(value, Mapping) and list in kinds:
            meant = "a list, [VALUE, ...]"
        if meant:
            raise ValueError(f"{above}{name} must be {meant}, got {value}")


def check_used(content: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise ValueError for an override of a setting that the method does not use.

    A method can have those of :class:`~avalanche_gd.runs.config.MethodConfig`, but uses
    what its plugins refer to, as in ``${method.lambd}``.

    :param content: the settings as they were composed, with these references.
    :param overrides: Hydra's.
    """
    values = flatten(content).values()
    references = " ".join(v for v in values if isinstance(v, str) and "${" in v)
    used = {*OF_EACH_METHOD, *re.findall(r"\.(\w+)", references)}
    for override in overrides:
        name = override.partition("=")[0].lstrip("+")
        section, _, setting = name.partition(".")
        if section == "method" and setting and setting.split(".")[0] not in used:
            method = content["method"]["name"]
            raise ValueError(f"method={method} does not use {name}; leave it out")


def _wrong_values(config: RunConfig) -> Iterator[str]:
    """Errors in settings that no object checks, or that cannot be used together.

    :raises ValueError: for a number out of its range.
    """
    for name, low in _LOWEST.items():
        value = attrgetter(name)(config)
        if value is not None and not value >= low:
            yield f"{name} must be {low} or more, got {value}"
    for name in ("generator.learning_rate", "solver.learning_rate"):
        check_number(name, attrgetter(name)(config), "above 0")
    check_number("method.lambd", config.method.lambd, "0 or more")
    check_number("method.penalty", config.method.penalty, "0 or more")
    check_number("model.condition_dropout", config.model.condition_dropout, "in [0, 1)")
    check_integer("seed", config.seed, 0, _HIGHEST_SEED)
    for name in ("generator", "solver"):
        yield from _wrong_budget(name, getattr(config, name))
    steps, decay_steps = config.generator.steps, config.generator.decay_steps
    if steps is None and decay_steps > 0:
        yield "generator.decay_steps needs generator.steps; with epochs, give 0"
    elif steps is not None and decay_steps > steps:
        allowed = f"from 0 to generator.steps, {steps}"
        yield f"generator.decay_steps must be {allowed}, got {decay_steps}; give both"
    if config.threads > _MOST_THREADS:
        yield f"threads must be {_MOST_THREADS} or less, got {config.threads}"
    if (reason := unwritable(expanded(config.out))) is not None:
        yield f"out={config.out} cannot be written, because {reason} cannot"
    method = config.method
    if method.generator not in _GENERATORS:
        allowed = ", ".join(_GENERATORS)
        yield f"no method.generator {method.generator!r}; choose from {allowed}"
    if method.solver_replays and (method.generator == "none" or not method.solver):
        yield "method.solver_replays needs a method.generator to replay from, and a solver"
    if method.generator == "none" and not method.solver:
        yield "method.solver=false needs a method.generator to train"
    if method.all_at_once and not method.cumulative:
        yield "method.all_at_once needs method.cumulative, the data of all experiences"
    solver = config.solver
    if solver.guidance is None and solver.guidance_scale != 1:
        yield "solver.guidance_scale needs solver.guidance; give missing or confused"
    first, steps = solver.samples_only_from, solver.steps
    if first is not None and steps is not None and first >= steps:
        yield (
            f"solver.samples_only_from must be below solver.steps, {steps}, got {first}; "
            "give null for real images to the end"
        )
    if method.generator == "vae":
        for name in _set_for_diffusion(config):
            yield f"{name} needs a diffusion model; {method.name} has none"
    if config.model.conditional and method.generator != "diffusion":
        yield f"model.conditional=true is for diffusion models; {method.name} trains none"


def _set_for_diffusion(config: RunConfig) -> Iterator[str]:
    """The settings that only a diffusion model has a use for, and that are not off."""
    for section, names in _OF_DIFFUSION.items():
        part = getattr(config, section)
        for field in fields(part):
            if field.name in names and getattr(part, field.name) != field.default:
                yield f"{section}.{field.name}"


def _wrong_budget(name: str, budget: BudgetConfig) -> Iterator[str]:
    """Errors in a budget, which is in steps or in epochs.

    :param name: the name of the model.
    """
    if budget.steps is not None and budget.epochs is not None:
        yield (
            f"{name} has both steps and epochs; give {name}.epochs=null or "
            f"{name}.steps=null"
        )
    if budget.steps is None and budget.epochs is None:
        yield f"{name} has neither steps nor epochs; give one of the two"


def _wrong_device(config: RunConfig) -> Iterator[str]:
    """The error if there is no such device for each of the processes."""
    try:
        kind = config.torch_device.type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        yield f"no device {config.device!r}; choose from auto, cpu, cuda, cuda:N"
    is_gpu = kind == "cuda"
    count, gpus = process_count(), torch.cuda.device_count()
    if is_gpu and gpus == 0:
        yield "device=cuda, but torch finds no GPU here; choose device=cpu"
    if is_gpu and count > 1 and (gpus < count or config.device.startswith("cuda:")):
        yield (
            f"{count} processes need as many GPUs and device=cuda, but there are {gpus} "
            f"and device={config.device}; start fewer, or choose device=cpu"
        )


@torch.no_grad()
def _make_model(config: RunConfig) -> DiffusionModel:
    """Make the model without a preset's weights; try the user's own denoiser once.

    :raises ValueError: if its output does not have the shape of the images.
    """
    not_compiled = replace(config.model, compile=False)
    model = not_compiled.make(config.benchmark.n_classes, weights=False)
    if config.model.preset is not None:
        return model
    model.to(config.torch_device)
    x_t = torch.zeros(2, *model.sample_shape, device=model.device)
    ends = torch.tensor([0, model.num_timesteps - 1], device=model.device)
    last = model.num_conditions - 1
    classes = None if model.num_classes is None else ends.clamp(max=last)
    try:
        model.denoise(x_t, ends, classes)
    except (LookupError, AttributeError, ArithmeticError) as error:
        given = f"x_t of {tuple(x_t.shape)} and timesteps"
        if classes is not None:
            given += f", and class_labels from 0 to {last}"
            given += "" if model.none is None else ", which stands for no class"
        name = type(model.denoiser).__name__
        raise ValueError(f"{name} fails, given {given}: {error!r}") from error
    return model


def _check_processes(config: RunConfig, plugins: dict[str, list[Any]]) -> None:
    """Raise ValueError unless the processes can share the batches of both models.

    :param plugins: those of the method, by the name of their model.
    """
    count = process_count()
    for name, own in plugins.items():
        batch_size = getattr(config, name).batch_size
        check_shares(f"{name}.batch_size", batch_size, count)
        # A ReplayPlugin's memory ends in batches of any size.
        divisible = all(
            plugin.supports_distributed and not isinstance(plugin, ReplayPlugin)
            for plugin in own
        )
        if config.method.generator == "vae" or not divisible:
            raise ValueError(
                f"method={config.method.name} cannot be trained by several processes; "
                "run it without torchrun"
            )
        for plugin in filter(_replays, own):
            plugin.check_shares(batch_size, count)


def _replays(plugin: Any) -> bool:
    return isinstance(plugin, GenerativeDistillationPlugin | GenerativeReplayPlugin)
