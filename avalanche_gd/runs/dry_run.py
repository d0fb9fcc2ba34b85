"""A dry run: does everything work here, and how long would it take?"""

import time
import timeit
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import accumulate, pairwise
from tempfile import TemporaryDirectory
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.data.benchmark import as_benchmark
from avalanche_gd.distributed.launch import on_main
from avalanche_gd.metrics import generate_images
from avalanche_gd.metrics.labeller import resnet18_weights
from avalanche_gd.models import DiffusionModel
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import naming
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.progress import experience_steps
from avalanche_gd.runs.seeds import seed_everything

_LEAST, _MOST = 3, 12  # steps of each model in an experience
_SECONDS = 0.5  # after which the least will do
_IMAGES = 16


def dry_run(config: RunConfig, benchmark: Any) -> str:
    """Take a few steps of each model in two experiences, evaluate, and estimate the time.

    The estimate takes the second experience, which replays, for all but the first, and
    the fastest step for all but its first: others warm up, or wait for what else the
    machine does. Epochs over more data take as many more steps; replay that increases takes
    as much more of a step. What an experience takes beside its steps, such as the
    importances of EWC or the filling of a pool, is in it. The reading of the data, the
    training of the oracle or of another labeller (in whose place the oracle is here) and
    what metrics do after sampling are not.

    :return: a line with the estimate.
    :raises ValueError: if the weights that a labeller begins with cannot be had.
    """
    if config.evaluation.labeller != "oracle" and config.method.generator != "none":
        with naming("evaluation"):
            resnet18_weights(config.evaluation.labeller_weights)
    first, n = config.first_experience, config.benchmark.n_experiences
    few = replace(config.evaluation, images=_IMAGES, measures=[])  # which may need more
    small = replace(config, evaluation=few).replaced({"generator.decay_steps": 0})
    least = max(_LEAST, least_steps(config))
    with trial(small) as learner:
        clocks = [_StepClock(strategy, least) for strategy in learner.strategies.values()]
        training = 0.0
        for experience in benchmark.train_stream[first : first + 2]:
            began = time.perf_counter()
            learner.train(experience)
            took = time.perf_counter() - began
            training += took + sum(clock.seconds_left() for clock in clocks)
        learner.evaluate(_first_test_images(benchmark))
        evaluation = _evaluation_seconds(config, learner, benchmark)
    second = took + sum(clock.seconds_left() for clock in clocks)
    sizes = _training_sizes(config, benchmark)
    for index in range(first + 2, n):
        more = (clock.seconds_more(index, sizes[index] / sizes[1]) for clock in clocks)
        training += second + sum(more)
    device, place = config.torch_device, f"{config.threads} threads of this CPU"
    if device.type == "cuda":
        place = torch.cuda.get_device_name(device)
    return (
        f"{config.method.name} on {config.benchmark.name}, seed {config.seed}: works; "
        f"about {_duration(training + evaluation)} on {place}"
    )


@contextmanager
def trial(config: RunConfig) -> Iterator[Learner]:
    """A learner that leaves nothing behind."""
    seed_everything(config.seed)
    with TemporaryDirectory() as out, closing(Learner(replace(config, out=out))) as learner:
        yield learner


def least_steps(config: RunConfig) -> int:
    """The fewest steps of an experience that the method can do with."""
    return max((getattr(p, "delta_t", 1) for p in config.make_plugins()), default=1)


def look_no_further(strategy: Any) -> None:
    """Have the teachers of a strategy sample for one step at a time."""
    for plugin in strategy.plugins:
        if hasattr(plugin, "look_ahead"):
            plugin.look_ahead = 1


class _StepClock(SupervisedPlugin, supports_distributed=True):
    """Times the steps of an experience, and ends it once that suffices.

    All steps do the same work: a teacher that would look ahead does not, which takes a
    little longer.

    :param strategy: which it joins.
    :param least: steps to take in any case.
    """

    def __init__(self, strategy: Any, least: int):
        super().__init__()
        self._least, self._most = least, max(_MOST, least)
        self._by_epochs = strategy.train_steps is None
        self._increases = any(
            getattr(plugin, "lesson", None) and plugin.lesson.is_increasing
            for plugin in strategy.plugins
        )
        self._fastest: list[float] = []  # by experience
        look_no_further(strategy)
        strategy.plugins.append(self)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()
        self._budget = experience_steps(strategy)
        self._ends: list[float] = []
        self._sizes: list[int] = []

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        strategy.loss.item()  # an accelerator may still be at it
        self._ends.append(time.perf_counter())
        self._sizes.append(len(strategy.mb_x))
        is_slow = on_main(lambda: self._ends[-1] - self._began > _SECONDS)
        if (self._least if is_slow else self._most) <= len(self._ends) < self._budget:
            strategy.stop_training()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        whole = max(self._sizes)  # the last batch of an epoch may be smaller
        steps = zip(pairwise(self._ends), self._sizes[1:], strict=True)
        took = [end - began for (began, end), size in steps if size == whole]
        self._fastest.append(min(took, default=self._ends[0] - self._began))

    def seconds_left(self) -> float:
        """What the budget takes beyond the steps taken, at the pace of the fastest."""
        if len(self._ends) == self._budget:
            return 0.0
        return (self._budget - 1) * self._fastest[-1] - (self._ends[-1] - self._ends[0])

    def seconds_more(self, index: int, growth: float) -> float:
        """What the steps of a later experience take more than those of the second.

        :param index: of the experience, from 2.
        :param growth: its data by those of the second.
        """
        first, second = self._fastest
        step = first + index * (second - first) if self._increases else second
        steps = self._budget * (growth if self._by_epochs else 1)
        return steps * step - self._budget * second


def _training_sizes(config: RunConfig, benchmark: Any) -> list[int]:
    """How many images each experience is trained on."""
    sizes = [len(experience.dataset) for experience in benchmark.train_stream]
    return list(accumulate(sizes)) if config.method.cumulative else sizes


def _evaluation_seconds(config: RunConfig, learner: Learner, benchmark: Any) -> float:
    """What the evaluations of a run would take for sampling and for denoising losses."""
    if not isinstance(learner.model, DiffusionModel):
        return 0.0
    sampling = learner.config.evaluation.sampling()

    def sample() -> None:
        generate_images(learner.model, sampling).cpu()  # an accelerator may be at it

    took = min(timeit.repeat(sample, timer=time.perf_counter, number=1, repeat=2))
    first, n = config.first_experience, config.benchmark.n_experiences
    evaluation, tests = config.evaluation, enumerate(benchmark.test_stream)
    evaluated = sum((n - max(first, i)) * len(test.dataset) for i, test in tests)
    passes = (n - first) * evaluation.images * evaluation.steps + evaluated
    return passes * took / (_IMAGES * evaluation.steps)


def _first_test_images(benchmark: Any) -> Any:
    """A test stream of a few images of the first experience, with the whole training."""
    train = [experience.dataset for experience in benchmark.train_stream]
    first = benchmark.test_stream[0].dataset
    few = first.subset(range(min(_IMAGES, len(first))))
    return as_benchmark(train=train, test=[few]).test_stream


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"
