"""The settings of a run, with their types."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from avalanche.core import BasePlugin

from avalanche_gd.distributed.launch import local_rank, process_count
from avalanche_gd.plugins.look_ahead import LOOK_AHEAD
from avalanche_gd.runs.errors import naming
from avalanche_gd.runs.evaluation_config import EvaluationConfig
from avalanche_gd.runs.identity import run_digest
from avalanche_gd.runs.model_config import ModelConfig
from avalanche_gd.runs.overrides import instantiated
from avalanche_gd.storage import expanded


@dataclass
class BenchmarkConfig:
    """The stream: a function of ``n_experiences``, ``seed``, ``image_size`` and options.

    If ``shuffle`` is false, the function gets this argument too.
    """

    name: str
    _target_: str
    n_experiences: int
    n_classes: int
    horizontal_flips: bool = False
    """True if half of the images of each batch are mirrored, left and right."""
    shuffle: bool = True
    """False to keep the classes in their own order, whatever the seed."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class MethodConfig:
    """How the generator and the solver learn continually."""

    name: str
    generator: str = "diffusion"
    """The generative model: ``diffusion``, ``vae`` or ``none``."""
    cumulative: bool = False
    """True to train an experience also on the data of those before it."""
    all_at_once: bool = False
    """True to train only in the last experience, with the budget of all of them; with
    ``cumulative``, on the data of the whole stream."""
    solver: bool = True
    """False if there is no classifier."""
    solver_replays: bool = False
    """True if the solver replays samples of the generator."""
    plugins: list[Any] = field(default_factory=list)
    """The generator's Avalanche plugins, each with its ``_target_``."""
    solver_plugins: list[Any] = field(default_factory=list)
    """The solver's Avalanche plugins, each with its ``_target_``."""
    lambd: float = 1.0
    weighting: str = "experiences"
    """A name in :data:`~avalanche_gd.plugins.teacher.WEIGHTINGS`."""
    teacher_steps: int = 2
    replay_ratio: float = 1.0
    """Replayed samples for each current one."""
    look_ahead: int = LOOK_AHEAD
    """For how many steps at once the teacher samples."""
    pool_size: int | None = None
    """How many samples the teacher makes once an experience, for a pool."""
    pool_per_class: int | None = None
    """The same, for each class that a conditioned teacher knows."""
    pool_refresh: int | None = None
    """After how many steps the pool is filled again."""
    pool_of: str = "samples"
    """What the pool has: ``samples``, or ``pairs`` with the teacher's predictions."""
    teacher_sampler: str = "own"
    teacher_eta: float = 0.0
    teacher_ema_decay: float | None = None
    """The decay with which the teacher follows the student within an experience."""
    unconditional_weight: float | None = None
    """The weight of a conditioned teacher's predictions without the class."""
    guidance_scale: float = 1.0
    """The scale of the guidance of the teacher's sampling by the solver."""
    snr_threshold: float = 1.0
    """Samples are taught above this signal-to-noise ratio, current data below."""
    replay_start_timestep: int = 0
    """The lowest timestep that replay draws."""
    increasing_replay_size: bool = False
    """True for n - 1 times as many replayed samples in the n-th experience."""
    teacher: str | None = None
    """The folder of a saved model that teaches a new one."""
    source: str = "generation"
    """The source for that teacher."""
    penalty: float = 15_000.0
    """The weight of a penalty on the weights, for methods that also replay."""
    control: str | None = None
    """What replaces the direction of the rank-1 penalty."""
    memory: int = 200
    """Images in the memory of a method; for GEM and A-GEM, per experience."""


@dataclass
class BudgetConfig:
    """What a model may spend in each experience: a number of steps, or of epochs.

    Epochs include their last, smaller batch, and are over all data of the experience: joint
    training sees all data so far in each epoch.
    """

    steps: int | None
    batch_size: int
    learning_rate: float
    epochs: int | None = field(default=None, kw_only=True)
    reset_optimizer: bool = field(default=False, kw_only=True)
    """True to start each experience with a new state of Adam."""


@dataclass
class GeneratorConfig(BudgetConfig):
    """The diffusion model's budget."""

    decay_steps: int
    """The learning rate falls to 0 over so many last steps of an experience."""
    ema_decay: float | None = None
    """The decay of a moving average of the weights, with which an experience ends."""


@dataclass
class SolverConfig(BudgetConfig):
    """The solver's budget and its replay."""

    replay_steps: int
    temperature: float
    look_ahead: int = LOOK_AHEAD
    """For how many steps at once its generator samples."""
    pool_size: int | None = None
    """How many samples its generator makes once an experience, for a pool."""
    replay_labels: str = "solver"
    """What labels its replay: the old ``solver``, or the generator's ``condition``."""
    replay_eta: float = 0.0
    """The eta of its generator's sampling."""
    increasing_replay_size: bool = False
    """True for n - 1 times as many replayed samples in the n-th experience."""
    samples_only_from: int | None = None
    """From this step on it sees samples only, and its generator is trained before."""
    regenerate_from: int | None = None
    """The timestep to which current images are noised for that."""
    guidance: str | None = None
    """Classes that its replay is guided towards: ``missing`` or ``confused``."""
    guidance_scale: float = 1.0
    architecture: str = "small_cnn"
    """A name in :data:`~avalanche_gd.models.classifier.CLASSIFIERS`."""


@dataclass
class RunConfig:
    """One run: a method on a benchmark with a seed."""

    seed: int
    out: str
    device: str
    threads: int
    check: bool
    """True to take some steps and estimate the time instead."""
    model: ModelConfig
    benchmark: BenchmarkConfig
    method: MethodConfig
    generator: GeneratorConfig
    solver: SolverConfig
    evaluation: EvaluationConfig

    @property
    def folder(self) -> Path:
        """The folder of the run; runs with other settings have other folders."""
        name = f"seed-{self.seed}-{run_digest(self)[:8]}"
        out = expanded(self.out)
        return out / self.benchmark.name / self.method.name / name

    @property
    def first_experience(self) -> int:
        """The index of the first experience that is trained."""
        return self.benchmark.n_experiences - 1 if self.method.all_at_once else 0

    def budget(self, model_name: str) -> Any:
        """What a model may spend in an experience.

        :param model_name: ``generator`` or ``solver``.
        """
        budget: BudgetConfig = getattr(self, model_name)
        if not self.method.all_at_once or budget.steps is None:  # epochs are over all data
            return budget
        count = self.benchmark.n_experiences
        spent = replace(budget, steps=count * budget.steps)
        if isinstance(spent, GeneratorConfig):
            spent.decay_steps *= count
        return spent

    @property
    def torch_device(self) -> torch.device:
        """The device, chosen if ``auto``; with several processes, each its own GPU."""
        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and process_count() > 1:
            name = f"cuda:{local_rank()}"
        return torch.device(name)

    def replaced(self, values: Mapping[str, Any]) -> "RunConfig":
        """The same run with some settings replaced.

        :param values: by dotted name, such as ``generator.steps``.
        :raises TypeError: if there is no such setting.
        """
        config = self
        for name, value in values.items():
            section, setting = name.split(".")
            part = replace(getattr(config, section), **{setting: value})
            config = replace(config, **{section: part})
        return config

    def make_plugins(self, model_name: str = "generator") -> list[Any]:
        """Make the method's plugins of a model.

        :param model_name: ``generator`` or ``solver``.
        :raises ValueError: if one is not an Avalanche plugin, or refuses its arguments.
        """
        method = self.method
        own = {"generator": method.plugins, "solver": method.solver_plugins}[model_name]
        with naming(f"method={method.name}"):
            return [_plugin(arguments) for arguments in own]


def _plugin(arguments: Any) -> Any:
    """Make an Avalanche plugin from its ``_target_`` and arguments.

    :raises ValueError: if they do not make one.
    """
    if not isinstance(arguments, Mapping) or "_target_" not in arguments:
        raise ValueError(
            f"a plugin is {{_target_: CLASS, ARGUMENT: VALUE, ...}}, got {arguments!r}"
        )
    plugin = instantiated(arguments)
    if not isinstance(plugin, BasePlugin):
        target = arguments["_target_"]
        raise ValueError(f"{target} is no Avalanche plugin, but a {type(plugin).__name__}")
    return plugin
