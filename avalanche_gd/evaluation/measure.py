"""Generate images with saved models in several ways, and measure them."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor

from avalanche_gd.evaluation.subjects import Subject
from avalanche_gd.metrics import Sampling, fid_metrics
from avalanche_gd.metrics.shared_images import SharedImages, generate_samples
from avalanche_gd.metrics.trained import label_counts
from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.strategies import make_labeller
from avalanche_gd.training import BudgetedTemplate

_PREFIX = "generator/"
COLUMNS = [
    replace(column, measure=fid_metrics) if column.name == "FID" else column
    for column in METRICS
    if column.key.startswith(_PREFIX) and not column.of_training
]
"""What is measured; FID of the whole test stream only."""


@dataclass(frozen=True)
class Plan:
    """The ways in which each model is sampled."""

    samplers: Sequence[str]
    steps: Sequence[int]
    images: Sequence[int]
    """Numbers of images; each uses the first of the largest number."""
    guidance: Sequence[float | None] = (None,)
    """None for the model's own."""
    seed: int = 0
    """The seed of the noise."""


@dataclass(frozen=True)
class Outcome:
    """The measures of the images of a model."""

    model: str
    guidance: float
    sampler: str
    steps: int
    passes: float
    """In F per image."""
    seconds: float
    """The time of sampling."""
    images: int
    values: dict[str, float]
    """The measures by the name of a column."""


class Judge:
    """Measures generated images against the test images of a benchmark.

    :param config: says what is measured, and where.
    :param benchmark: the benchmark for all models.
    :param plan: how they are sampled.
    :raises ValueError: if something cannot be measured, for example with too few images.
    """

    def __init__(self, config: RunConfig, benchmark: Any, plan: Plan):
        self.config, self.plan = config, plan
        self.stream = benchmark.test_stream
        least = replace(config.evaluation, images=min(plan.images))
        self.metrics = [
            metric
            for made in least.metrics(make_labeller(config, benchmark), COLUMNS)
            for metric in made
        ]
        none = torch.nn.Linear(1, 1)  # is replaced by the model to measure
        self.strategy: Any = _Viewing(
            model=none,
            optimizer=torch.optim.SGD(none.parameters(), 0.1),
            device=config.torch_device,
            evaluator=EvaluationPlugin(*self.metrics, loggers=[BaseLogger()]),
        )
        self.shared = self.strategy._generation = _GivenImages()
        for experience in benchmark.train_stream:
            self.strategy.experience = experience
            for metric in self.metrics:
                metric.before_training_exp(self.strategy)

    def outcomes(self, subject: Subject) -> Iterator[Outcome]:
        """The outcomes of a model, one after another."""
        plan, real = self.plan, label_counts(self.stream)
        for guidance in plan.guidance:
            model = subject.load(guidance, self.config.model.execution)
            model = model.to(self.config.torch_device).eval()
            for sampler, steps in product(plan.samplers, plan.steps):
                sampling = Sampling(
                    max(plan.images),
                    steps,
                    seed=plan.seed,
                    batch_size=self.config.evaluation.batch_size,
                    sampler=sampler,
                )
                generate_samples(model, replace(sampling, images=2))  # the first is slower
                with _counted(model) as passed:
                    began = time.perf_counter()
                    samples = generate_samples(model, sampling, real=real)
                    took = time.perf_counter() - began
                way = model.guidance, sampler, steps, sum(passed) / sampling.images
                for count in plan.images:
                    seconds = took * count / sampling.images
                    values = self._values(model, replace(sampling, images=count), *samples)
                    yield Outcome(subject.label, *way, seconds, count, values)

    def _values(
        self,
        model: DiffusionModel,
        sampling: Sampling,
        images: Tensor,
        asked: Tensor | None,
    ) -> dict[str, float]:
        """The measures of the first ``sampling.images`` images."""
        count = sampling.images
        self.shared.given = images[:count], None if asked is None else asked[:count]
        for metric in self.metrics:
            metric.sampling = sampling
        self.strategy.model = model
        found = self.strategy.eval(self.stream)
        keys = {column.name: column.key.removeprefix(_PREFIX) for column in COLUMNS}
        return {name: found[key] for name, key in keys.items() if key in found}


@contextmanager
def _counted(model: DiffusionModel) -> Iterator[list[int]]:
    """Collect the number of images of each pass of a model inside."""
    passed: list[int] = []

    def note(images: int) -> Callable[[], None]:
        passed.append(images)
        return lambda: None

    model.pass_hooks.append(note)
    yield passed
    model.pass_hooks.remove(note)


class _GivenImages(SharedImages):
    """Images that were generated before the evaluation."""

    given: tuple[Tensor, Tensor | None]

    def samples(self, model: Any, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
        return self.given


class _Viewing(BudgetedTemplate):
    """Shows real images to metrics, without passing them through a model."""

    def forward(self) -> None:
        """Make no pass."""

    def criterion(self) -> Tensor:
        """Return no loss."""
        return torch.zeros(())
