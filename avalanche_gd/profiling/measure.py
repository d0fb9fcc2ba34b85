"""Measures steps, sampling and evaluations of a run's own strategies."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics.fid import Moments, frechet_distance
from avalanche_gd.metrics.shared_images import SharedImages, generate_images, in_batches
from avalanche_gd.models import DiffusionModel
from avalanche_gd.profiling.bare_passes import BarePasses, Pass, PassLog, clock
from avalanche_gd.profiling.memory import peak_mb, resident_mb, restart_peak
from avalanche_gd.profiling.timing_table import Measurement, measured
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.seeds import seed_everything

_WARM_UP = 3  # steps that are not timed: the first ones allocate, fill pools, compile
_IMAGES = 1280  # of an experience
_SHOWN_EXPERIENCES = (1, 2, 5, 10, 20, 50)
_SAMPLED_BY = (2, 10)  # steps


def measure_step(
    config: RunConfig, repeats: int, *, part: str = "step", at: float | None = None
) -> Measurement:
    """A training step of the generator in the second experience.

    In turns with the same passes alone.

    :param config: of the method; its data are random images.
    :param repeats: how many steps.
    :param part: of the row.
    :param at: of the row; the batch size where None.
    """
    least = [getattr(plugin, "delta_t", 0) for plugin in config.make_plugins()]  # RWalk's
    config = _with_steps(config, max(repeats + _WARM_UP, *least, 0))
    with _learner(config) as learner:
        strategy = learner.strategies["generator"]
        experiences = _random_stream(config, 2).train_stream
        strategy.train(experiences[0], eval_streams=[])
        restart_peak(config.torch_device)
        timer = _StepTimer(strategy.model, config)
        strategy.plugins.append(timer)
        strategy.train(experiences[1], eval_streams=[])
        batch_size = config.generator.batch_size
        row = measured(
            part,
            config.method.name,
            batch_size if at is None else at,
            timer.steps[_WARM_UP:],
            timer.bare[_WARM_UP:],
            cost=sum(a_pass.cost for a_pass in timer.passes) / batch_size,
            memory_mb=peak_mb(config.torch_device),
        )
    return dataclasses.replace(row, images_per_second=batch_size / row.ms * 1000)


def measure_sampling(config: RunConfig, repeats: int) -> list[Measurement]:
    """Sampling batches of training and of evaluation size, beside its passes alone."""
    seed_everything(config.seed)
    model = config.model.make(config.benchmark.n_classes).to(config.torch_device)
    model.eval()  # as a teacher, and in an evaluation
    bare = BarePasses(model, config.generator.learning_rate)
    rows = []
    for images in dict.fromkeys(
        (config.generator.batch_size, config.evaluation.batch_size)
    ):
        for steps in _SAMPLED_BY:
            passes = [Pass(images)] * steps
            taken, alone = [], []
            for _ in range(1 + repeats):
                generate = partial(model.generate, images, steps=steps)
                taken.append(_timed(config, generate))
                alone.append(bare.seconds(passes))
            row = measured(
                "sampling",
                f"{steps} steps",
                images,
                taken[1:],
                alone[1:],
                cost=steps,
            )
            rows.append(dataclasses.replace(row, images_per_second=images / row.ms * 1000))
    return rows


def measure_evaluation(config: RunConfig, repeats: int) -> list[Measurement]:
    """An evaluation, and what generating, features and FID take of it."""
    with _learner(_with_steps(config, 1)) as learner:
        strategy = learner.strategies["generator"]
        stream = _random_stream(config, 2)
        for experience in stream.train_stream:
            strategy.train(experience, eval_streams=[])
        sampling = config.evaluation.sampling()
        learner.strategies = {"generator": strategy}  # the solver has nothing to show
        learner.evaluate(stream.test_stream)  # reads the real images
        oracle: Any = SharedImages.of(strategy).oracle(_AtExperience(stream, strategy))
        images = generate_images(strategy.model, sampling)

        def features() -> torch.Tensor:
            return in_batches(oracle.get_features, images, sampling.batch_size)

        real = generated = features()
        moments = Moments.of(real)
        parts: dict[str, Callable[[], Any]] = {
            "in all": lambda: learner.evaluate(stream.test_stream),
            "generating": lambda: generate_images(strategy.model, sampling),
            "features": features,
            "FID": lambda: frechet_distance(moments, generated),
        }
        times: dict[str, list[float]] = {name: [] for name in parts}
        for _ in range(repeats):
            for name, work in parts.items():
                times[name].append(_timed(config, work))
    count = sampling.images
    rows = [measured("evaluation", name, count, taken) for name, taken in times.items()]
    return [
        dataclasses.replace(row, images_per_second=count / row.ms * 1000) for row in rows
    ]


def measure_experiences(
    config: RunConfig, repeats: int, shown: tuple[int, ...] = _SHOWN_EXPERIENCES
) -> list[Measurement]:
    """A step, and the memory held, in a stream of many experiences, each evaluated."""
    config = _with_steps(config, repeats + _WARM_UP)
    few = dataclasses.replace(
        config.evaluation, images=config.evaluation.batch_size, steps=1
    )
    config = dataclasses.replace(config, evaluation=few)
    rows = []
    with _learner(config) as learner:
        strategy = learner.strategies["generator"]
        learner.strategies = {"generator": strategy}
        stream = _random_stream(config, max(shown))
        timer = _StepTimer(strategy.model, config)
        strategy.plugins.append(timer)
        for number, experience in enumerate(stream.train_stream, 1):
            timer.restart()
            strategy.train(experience, eval_streams=[])
            learner.evaluate(stream.test_stream[:1])
            if number in shown:
                rows.append(
                    measured(
                        "step by experience",
                        config.method.name,
                        number,
                        timer.steps[_WARM_UP:],
                        timer.bare[_WARM_UP:],
                        memory_mb=resident_mb(config.torch_device),
                    )
                )
    return rows


class _StepTimer(SupervisedPlugin):
    """Times steps of a strategy in turns with the same passes alone.

    A step lasts from the end of the one before to its own, data loading included.
    """

    def __init__(self, model: DiffusionModel, config: RunConfig):
        super().__init__()
        self.passes: list[Pass] = []
        """Of the last step."""
        self._log = PassLog(model)
        self._bare = BarePasses(model, config.generator.learning_rate)
        self._device = config.torch_device
        self.restart()

    def restart(self) -> None:
        """Forget all times."""
        self.steps: list[float] = []
        self.bare: list[float] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        if not self.steps:
            self._log.take()
            self._began = clock(self._device)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.steps.append(clock(self._device) - self._began)
        self.passes = self._log.take()
        self.bare.append(self._bare.seconds(self.passes))
        self._began = clock(self._device)


class _AtExperience:
    """A strategy as it is in the evaluation of a stream's first experience."""

    def __init__(self, benchmark: Any, strategy: Any):
        self.experience = benchmark.test_stream[0]
        self.device = strategy.device


@contextmanager
def _learner(config: RunConfig) -> Iterator[Learner]:
    with tempfile.TemporaryDirectory() as folder:
        seed_everything(config.seed)
        learner = Learner(config, Path(folder))
        try:
            yield learner
        finally:
            learner.close()


def _with_steps(config: RunConfig, steps: int) -> RunConfig:
    budget = dataclasses.replace(config.generator, steps=steps, decay_steps=0)
    return dataclasses.replace(config, generator=budget)


def _random_stream(config: RunConfig, n_experiences: int) -> Any:
    """A benchmark of random images, the classes of each experience in turn."""
    generator = torch.Generator().manual_seed(0)
    per_experience = 2

    def dataset(index: int, count: int) -> Any:
        images = torch.rand(count, *config.sample_shape, generator=generator) * 2 - 1
        first = per_experience * index % config.benchmark.n_classes
        labels = first + torch.arange(count) % per_experience
        return as_dataset(images, labels)

    count = max(_IMAGES, config.generator.batch_size)
    return as_benchmark(
        train=[dataset(index, count) for index in range(n_experiences)],
        test=[dataset(index, 256) for index in range(n_experiences)],
    )


def _timed(config: RunConfig, work: Callable[[], Any]) -> float:
    began = clock(config.torch_device)
    work()
    return clock(config.torch_device) - began
