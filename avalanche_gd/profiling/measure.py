"""Measure steps, sampling and evaluations of a run's own strategies."""

import math
from collections import Counter
from functools import partial
from timeit import Timer
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.data.model_space import as_benchmark, as_dataset, stream_tensors
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.shared_images import generate_images, in_batches
from avalanche_gd.models.oracle import oracle_classifier
from avalanche_gd.profiling.bare_passes import BarePasses, clock
from avalanche_gd.profiling.memory import peak_mb, restart_peak
from avalanche_gd.profiling.timing_table import Measurement, measured
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.passes import Passes, images_passed
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.runs.trial import least_steps, look_no_further, trial

_WARM_UP = 3  # steps that are not timed: the first ones allocate, fill pools, compile
_UNTIMED = 2  # steps of an experience without a row; the first one fills pools
_IMAGES = 1280  # of an experience
_SAMPLED_BY = (2, 10)  # steps


def measure_steps(
    config: RunConfig,
    repeats: int,
    *,
    part: str = "step",
    experiences: tuple[int, ...] = (),
) -> list[Measurement]:
    """Measure training steps of the generator, in turns with their passes alone.

    :param config: the settings of the method; its data are random images.
    :param repeats: how many steps, at least.
    :param part: the part of the table that the rows are for.
    :param experiences: measure a row for each of these, in a stream that is evaluated after
        every experience; without any, there is one row, for the second experience.
    """
    shown = experiences or (2,)
    stream = _random_stream(config, max(shown))
    few = {"evaluation.images": config.evaluation.batch_size, "evaluation.steps": 1}
    steps = {"generator.steps": config.generator.steps or 1, "generator.epochs": None}
    small = config.replaced({**steps, "generator.decay_steps": 0, **few})
    batch_size, device = config.generator.batch_size, config.torch_device
    separate, rows = [], []
    with trial(small) as learner:
        timer, strategy = _StepTimer(learner), learner.strategies["generator"]
        strategy.model.one_pass = False
        look_no_further(strategy)
        for experience in stream.train_stream:
            strategy.train(experience, eval_streams=[])
            separate.append(timer.steps[-1])
    with trial(small) as learner:
        timer, strategy = _StepTimer(learner), learner.strategies["generator"]
        for number, experience in enumerate(stream.train_stream, 1):
            timer.repeats = repeats if number in shown else 0
            timer.separate = separate[number - 1]
            restart_peak(device)
            strategy.train(experience, eval_streams=[])
            if number in shown:
                row = measured(
                    part,
                    config.method.name,
                    number if experiences else batch_size,
                    *timer.times(),
                    images=batch_size,
                    cost=timer.mean_images() / batch_size,
                    memory_mb=peak_mb(device),
                )
                rows.append(row)
            if experiences:
                strategy.eval(stream.test_stream[:1])
    return rows


def measure_sampling(config: RunConfig, repeats: int) -> list[Measurement]:
    """Measure sampling in batches of training and of evaluation, and its passes alone."""
    seed_everything(config.seed)
    model = config.model.make(config.benchmark.n_classes).to(config.torch_device)
    model.eval()  # as a teacher, and in an evaluation
    bare = BarePasses(model, config.generator.learning_rate)
    timer = partial(clock, config.torch_device)
    rows = []
    for images in sorted({config.generator.batch_size, config.evaluation.batch_size}):
        for steps in _SAMPLED_BY:
            sample = Timer(partial(model.generate, images, steps=steps), timer=timer)
            passes = Counter({(images, 0): steps})
            times = [(sample.timeit(1), bare.seconds(passes)) for _ in range(1 + repeats)]
            at = "sampling", f"{steps} steps", images
            taken = zip(*times[1:], strict=True)
            rows.append(measured(*at, *taken, images=images, cost=steps))
    return rows


def measure_evaluation(config: RunConfig, repeats: int) -> list[Measurement]:
    """Measure an evaluation, and its parts: generating, features and FID."""
    stream, sampling = _random_stream(config, 2), config.evaluation.sampling()
    steps = {"generator.steps": 1, "generator.epochs": None}
    small = config.replaced({**steps, "generator.decay_steps": 0})
    with trial(small) as learner:
        strategy = learner.strategies["generator"]
        strategy.train(stream.train_stream, eval_streams=[])
        strategy.eval(stream.test_stream)  # reads the real images
        oracle: Any = oracle_classifier(*stream_tensors(stream.train_stream))
        oracle.to(config.torch_device)
        images = generate_images(strategy.model, sampling)
        features = partial(in_batches, oracle.get_features, images, sampling.batch_size)
        generated = features()
        parts = {
            "in all": partial(strategy.eval, stream.test_stream),
            "generating": partial(generate_images, strategy.model, sampling),
            "features": features,
            "FID": partial(frechet_distance, Moments.of(generated), generated),
        }
        timer, count, rows = partial(clock, config.torch_device), sampling.images, []
        for name, work in parts.items():
            times = Timer(work, timer=timer).repeat(repeats, number=1)
            rows.append(measured("evaluation", name, count, times, images=count))
    return rows


class _StepTimer(SupervisedPlugin):
    """Times a generator's steps, in turns with their passes alone and with other passes.

    A step lasts from the end of the previous step to its own end, data loading included. If
    a teacher looks L steps ahead, a time is the mean of L steps, as one step does the work
    for all.

    :param learner: the learner of the generator, whose strategy it joins.
    """

    def __init__(self, learner: Learner):
        super().__init__()
        self.repeats = 0
        """How many steps of an experience are timed, at least; else only a few are."""
        self.separate: Passes = Counter()
        """The other passes of a step."""
        self._learner: Any = learner
        learner.strategies["generator"].plugins.append(self)

    def times(self) -> Any:
        """The seconds of steps, of their own passes, and of the other passes."""
        return zip(*self._times[self._warm_up :], strict=True)

    def mean_images(self) -> float:
        """The mean cost of a timed step, in forward passes of one image."""
        steps = self.steps[self._warm_up * self._window :]
        return sum(map(images_passed, steps)) / len(steps)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        config = self._learner.config
        self.steps: list[Passes] = []
        self._before: Passes = Counter()
        self._times: list[list[float]] = []
        self._device = config.torch_device
        steps = _UNTIMED
        if self.repeats:
            self._bare = BarePasses(strategy.model, config.generator.learning_rate)
            ahead = [getattr(plugin, "look_ahead", 1) for plugin in strategy.plugins]
            self._window = max(ahead)
            self._warm_up = math.ceil(_WARM_UP / self._window)
            steps = self._window * (self._warm_up + math.ceil(self.repeats / self._window))
        strategy.train_steps = max(steps, least_steps(config))
        self._began = clock(self._device)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        so_far = self._learner.counter.passes["generator"][-1]
        self.steps.append(so_far - self._before)
        self._before = so_far.copy()
        if self.repeats and len(self.steps) % self._window == 0:
            step = (clock(self._device) - self._began) / self._window
            own = sum(map(self._bare.seconds, self.steps[-self._window :])) / self._window
            self._times.append([step, own, self._bare.seconds(self.separate)])
            self._began = clock(self._device)


def _random_stream(config: RunConfig, n_experiences: int) -> Any:
    """Make a benchmark of random images, each experience with its own classes."""
    generator = torch.Generator().manual_seed(0)

    def dataset(index: int, count: int) -> Any:
        images = torch.rand(count, *config.model.shape, generator=generator) * 2 - 1
        labels = (2 * index + torch.arange(count) % 2) % config.benchmark.n_classes
        return as_dataset(images, labels)

    count = max(_IMAGES, config.generator.batch_size)
    return as_benchmark(
        train=[dataset(index, count) for index in range(n_experiences)],
        test=[dataset(index, 256) for index in range(n_experiences)],
    )
