"""A dry run: does everything work here, and how long would it take?"""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.data.model_space import as_benchmark, as_dataset, dataset_tensors
from avalanche_gd.metrics import generate_images
from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.seeds import seed_everything

_STEPS = 2
_IMAGES = 16


def dry_run(config: RunConfig, benchmark: Any) -> str:
    """Take two steps of each model in two experiences, evaluate, and estimate the time.

    The estimate takes the second experience, which replays, for all but the first. What
    an experience costs beside its steps, such as the importances of EWC, and the reading
    of the data are not in it.

    :param config: of the run.
    :param benchmark: the stream.
    :return: a line with the estimate.
    """
    n = config.benchmark.n_experiences
    steps = max(_STEPS, *(getattr(p, "delta_t", 0) for p in config.make_plugins()), 0)
    small = dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, steps=steps, decay_steps=0),
        solver=dataclasses.replace(config.solver, steps=steps),
        evaluation=dataclasses.replace(config.evaluation, images=_IMAGES),
    )
    with tempfile.TemporaryDirectory() as folder:
        seed_everything(config.seed)
        learner = Learner(small, Path(folder))
        clocks = {name: _StepClock() for name in learner.strategies}
        for name, strategy in learner.strategies.items():
            strategy.plugins.insert(0, clocks[name])  # before any of them works
        for experience in benchmark.train_stream[: min(2, n)]:
            learner.train(experience)
        learner.evaluate(_first_test_images(benchmark))
        evaluation = _evaluation_seconds(config, learner, benchmark)
        learner.close()
    budgets = {"generator": config.generator.steps, "solver": config.solver.steps}
    training = sum(
        (clock.seconds[0] + (n - 1) * clock.seconds[-1]) * budgets[name]
        for name, clock in clocks.items()
    )
    return (
        f"{config.method.name} on {config.benchmark.name}, seed {config.seed}: works; "
        f"about {_duration(training + evaluation)} on {_device(config)}"
    )


class _StepClock(SupervisedPlugin, supports_distributed=True):
    """The time of the last step of each experience: the first one also warms up."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began = self._took = 0.0

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        strategy.loss.item()  # an accelerator may still be at it
        self._took = time.perf_counter() - self._began

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.seconds.append(self._took)


def _evaluation_seconds(config: RunConfig, learner: Learner, benchmark: Any) -> float:
    """What the evaluations of a run would take for sampling and for denoising losses."""
    if not isinstance(learner.model, DiffusionModel):
        return 0.0
    sampling = dataclasses.replace(config.evaluation, images=_IMAGES).sampling()
    started = time.perf_counter()
    generate_images(learner.model, sampling)
    per_image = (time.perf_counter() - started) / _IMAGES
    n = config.benchmark.n_experiences
    evaluated = sum(
        len(experience.dataset)
        for last in range(1, n + 1)
        for experience in benchmark.test_stream[:last]
    )
    passes = n * config.evaluation.images * sampling.steps + evaluated
    return passes * per_image / sampling.steps


def _first_test_images(benchmark: Any) -> Any:
    """A test stream of a few images of the first experience, with the whole training."""
    images, labels = dataset_tensors(benchmark.test_stream[0].dataset)
    train = [experience.dataset for experience in benchmark.train_stream]
    few = as_dataset(images[:_IMAGES], labels[:_IMAGES])
    return as_benchmark(train=train, test=[few]).test_stream


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"


def _device(config: RunConfig) -> str:
    device = config.torch_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{config.threads} threads of this CPU"
