"""A dry run: test that everything works here, and estimate how long it takes."""

import copy
import math
import time
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import AGEMPlugin

from avalanche_gd.data.benchmark import StreamsBenchmark, as_benchmark
from avalanche_gd.distributed.launch import on_main, process_count
from avalanche_gd.metrics.labeller import resnet18_weights
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.models import SmallCNN
from avalanche_gd.plugins.baselines import GEMPlugin, MIRPlugin
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import naming
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.progress import duration
from avalanche_gd.runs.trial import (
    least_steps,
    look_no_further,
    seconds_an_image,
    trial,
)

_LEAST, _MOST = 3, 12  # steps of each model in an experience
_SECONDS = 0.5  # then the least is enough; also the limit for one pass
_LONG = 20  # seconds, after which one step is enough
_SMALLEST = 4  # images in a part of a batch, or in a pass
_IMAGES = 8  # sampled images, with one step
_OF_THEIR_OWN = (AGEMPlugin, GEMPlugin, MIRPlugin)
"""Plugins that pass batches of other sizes than the data's."""


def dry_run(config: RunConfig, benchmark: Any) -> str:
    """Take a few steps of each model in two experiences, evaluate, and estimate the time.

    The estimate uses the second experience, which replays, for all but the first one, and
    the fastest step for all but the first step, as slower ones warm up or wait for other
    work of the machine. Epochs over more data count for more steps, and increasing replay
    for longer steps. The end of an experience, such as EWC's importances, is timed on a few
    images and scaled to all. Pools and the samples of evaluations count as passes of the
    denoiser. If a pass over a batch takes more than half a second, steps are timed on a
    part of it and scaled. Not included are the reading of the data, the training of the
    oracle or of another labeller (an untrained classifier replaces it here), and the work
    of metrics after sampling.

    :return: one line with the estimate.
    :raises ValueError: if the pretrained weights of a labeller cannot be found or read.
    """
    if config.evaluation.labeller != "oracle" and config.method.generator != "none":
        with naming("evaluation"):
            resnet18_weights(config.evaluation.labeller_weights)
    first, n = config.first_experience, config.benchmark.n_experiences
    needed = least_steps(config)
    image_pass = seconds_an_image(config)
    small = _smaller(config, image_pass)
    sizes = [len(experience.dataset) for experience in benchmark.train_stream]
    trained = list(accumulate(sizes)) if config.method.cumulative else sizes
    batch = max(small.generator.batch_size, small.solver.batch_size)
    few = _few_images(benchmark, max(_IMAGES, max(_LEAST, needed) * batch))
    with trial(small) as learner:
        strategies = learner.strategies.values()
        clocks = [_StepClock(by, needed, trained[first:]) for by in strategies]
        pools = _cut_pools(learner)
        _judge_untrained(learner)
        training = 0.0
        for index in range(first, min(first + 2, n)):
            experience = few.train_stream[index]
            began = time.perf_counter()
            learner.train(experience)
            second = time.perf_counter() - began
            second += sum(clock.seconds_left() for clock in clocks)
            more_images = sizes[index] / len(experience.dataset) - 1
            second += more_images * clocks[0].seconds_after
            training += second
        learner.evaluate(few.test_stream[: index + 1])
    for index in range(first + 2, n):
        more = (clock.seconds_more(index, trained[index] / trained[1]) for clock in clocks)
        training += second + sum(more)
    passes = _evaluation_passes(config, benchmark)
    passes += _pool_passes(config, benchmark, clocks, pools)
    device, place = config.torch_device, f"{config.threads} threads of this CPU"
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    return (
        f"{config.method.name} on {config.benchmark.name}, seed {config.seed}: works; "
        f"about {duration(training + passes * image_pass)} on {place}"
    )


class _StepClock(SupervisedPlugin, supports_distributed=True):
    """Times the steps of an experience, and ends it when there are enough.

    All steps do the same work: a teacher does not look ahead, and a solver that would see
    samples only from a later step on sees them from the first step, which takes longer.

    :param strategy: the strategy that it joins.
    :param needed: the lowest number of steps.
    :param sizes: the images of each experience, of which the strategy trains on a few.
    """

    def __init__(self, strategy: Any, needed: int, sizes: list[int]):
        super().__init__()
        self._needed, self._sizes_of_experiences = needed, sizes
        self._by_epochs = strategy.train_steps is None
        self._increases = any(
            getattr(plugin, "lesson", None) and plugin.lesson.is_increasing
            for plugin in strategy.plugins
        )
        self._fastest: list[float] = []  # by experience
        self.budget = 0
        """The steps of the last experience."""
        self.seconds_after = 0.0
        """The seconds of its end, after the steps."""
        look_no_further(strategy)
        strategy.plugins.append(self)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()
        size = self._sizes_of_experiences[len(self._fastest)]
        batches = math.ceil(size / strategy.train_mb_size)
        self.budget = strategy.train_steps or strategy.train_epochs * batches
        self._ends: list[float] = []
        self._sizes: list[int] = []

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        if not self._ends:  # includes a generator that is trained before the first step
            self._began = time.perf_counter()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        strategy.loss.item()  # waits for an accelerator
        self._ends.append(time.perf_counter())
        self._sizes.append(len(strategy.mb_x))
        if on_main(self._suffices) and len(self._ends) < self.budget:
            strategy.stop_training()

    def _suffices(self) -> bool:
        enough, took = _MOST, self._ends[-1] - self._began
        if took > _SECONDS:
            enough = 1 if self._ends[0] - self._began > _LONG else _LEAST
        return len(self._ends) >= max(enough, self._needed)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        whole = max(self._sizes)  # the last batch of an epoch may be smaller
        steps = zip(pairwise(self._ends), self._sizes[1:], strict=True)
        took = [end - began for (began, end), size in steps if size == whole]
        self._fastest.append(min(took, default=self._ends[0] - self._began))
        self.seconds_after = time.perf_counter() - self._ends[-1]

    def seconds_left(self) -> float:
        """The seconds of the remaining steps, at the speed of the fastest one."""
        if len(self._ends) == self.budget:
            return 0.0
        return (self.budget - 1) * self._fastest[-1] - (self._ends[-1] - self._ends[0])

    def seconds_more(self, index: int, growth: float) -> float:
        """How many more seconds the steps of a later experience take than the second's.

        :param index: the index of the experience, from 2.
        :param growth: the size of its data, divided by that of the second.
        """
        first, second = self._fastest
        step = first + index * (second - first) if self._increases else second
        steps = self.budget * (growth if self._by_epochs else 1)
        return steps * step - self.budget * second


def _smaller(config: RunConfig, image_pass: float) -> RunConfig:
    """The same run with a smaller evaluation, and smaller batches if a pass is slow.

    :param image_pass: the seconds of a pass per image.
    """
    evaluation = replace(config.evaluation, images=_IMAGES, steps=1, measures=[])
    values: dict[str, Any] = {"generator.decay_steps": 0}
    plugins = config.make_plugins()
    if process_count() == 1 and not any(isinstance(p, _OF_THEIR_OWN) for p in plugins):
        for name in ("generator", "solver")[: 1 + config.method.solver_replays]:
            budget = getattr(config, name)
            part = budget.batch_size
            while part >= 2 * _SMALLEST and part * image_pass > _SECONDS:
                part //= 2
            values[f"{name}.batch_size"] = part
            if budget.steps is not None:
                values[f"{name}.steps"] = round(budget.steps * budget.batch_size / part)
    return replace(config, evaluation=evaluation).replaced(values)


def _few_images(benchmark: Any, count: int) -> StreamsBenchmark:
    """The streams with up to ``count`` images per experience of training."""

    def few(experience: Any, count: int) -> Any:
        size = len(experience.dataset)
        indices = [i * size // count for i in range(count)]  # spread over the classes
        return experience.dataset.subset(indices) if size > count else experience.dataset

    train = [few(experience, count) for experience in benchmark.train_stream]
    test = [few(experience, _IMAGES) for experience in benchmark.test_stream]
    return as_benchmark(train=train, test=test)


def _judge_untrained(learner: Learner) -> None:
    """Replace the oracle, whose training takes long, by a new classifier."""
    config = learner.config
    judge = SmallCNN(config.model.shape, config.benchmark.n_classes).eval()
    for strategy in learner.strategies.values():
        shared: Any = SharedImages.of(strategy)
        shared.oracle = lambda stream, device: judge.to(device)


def _cut_pools(learner: Learner) -> list[list[tuple[Any, int]]]:
    """Make each pool be filled with only a few samples.

    :return: the original pools and the passes of each sample, by strategy.

    :raises ValueError: for one that does not fit into memory.
    """
    pools: list[list[tuple[Any, int]]] = []
    n_classes = learner.config.benchmark.n_classes
    for strategy in learner.strategies.values():
        pools.append([])
        for plugin in strategy.plugins:
            lesson: Any = getattr(plugin, "lesson", None)
            if lesson is None or lesson.is_fresh:
                continue
            pool = lesson.samples if lesson.pairs is None else lesson.pairs
            passes = lesson.steps + (lesson.pairs is not None)
            pools[-1].append((copy.copy(pool), passes))
            pool.check_model(learner.model)
            pool.refresh_every = None
            pool.size = 1 if pool.per_class else min(pool.size, n_classes)
            lesson.samples.options = lesson.samples.options | {"steps": 1}
    return pools


def _pool_passes(
    config: RunConfig,
    benchmark: Any,
    clocks: list[_StepClock],
    pools: list[list[tuple[Any, int]]],
) -> int:
    """The passes of images that fill the pools of a run."""
    classes = [exp.classes_in_this_experience for exp in benchmark.train_stream]
    known: list[int | None] = [None] * (len(classes) - 1)
    if config.model.conditional:
        known = [len(set().union(*classes[:index])) for index in range(1, len(classes))]
    passes = 0
    for clock, own in zip(clocks, pools, strict=True):
        for pool, each in own:
            fills = math.ceil(clock.budget / (pool.refresh_every or clock.budget))
            passes += fills * sum(map(pool.samples_of, known)) * each
    return passes


def _evaluation_passes(config: RunConfig, benchmark: Any) -> int:
    """The passes of images in a run's evaluations: sampling, and denoising losses."""
    first, n = config.first_experience, config.benchmark.n_experiences
    evaluation, tests = config.evaluation, enumerate(benchmark.test_stream)
    evaluated = sum((n - max(first, i)) * len(test.dataset) for i, test in tests)
    return (n - first) * evaluation.images * evaluation.steps + evaluated
