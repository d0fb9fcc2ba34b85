"""The base of Avalanche plugin metrics that judge generated images."""

import warnings
from abc import abstractmethod
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

from avalanche_gd.metrics.shared_images import (
    ExperienceKey,
    Sampling,
    SharedImages,
    experience_classes,
    experience_key,
    has_classes,
)


class GenerationMetric(PluginMetric[dict[str, float]]):
    """Judges the images a strategy's model generates at the end of an evaluation.

    Only the classes trained on so far count, whatever stream is evaluated. Before any
    training there is nothing to judge, and a warning says so.

    :param sampling: how the images are generated. All metrics with the same sampling
        judge the same images.
    """

    def __init__(self, sampling: Sampling):
        super().__init__()
        self.sampling = sampling
        self._classes: dict[ExperienceKey, set[int]] = {}  # of what is evaluated
        self._results: dict[str, float] = {}

    @abstractmethod
    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """The values by name.

        :param strategy: at the end of an evaluation.
        :param experiences: the evaluated ones whose classes were all trained on.
        """

    def result(self) -> dict[str, float]:
        """The values of the last evaluation by name."""
        return self._results

    def reset(self) -> None:
        """Forget the values of the last evaluation."""
        self._results = {}

    def before_training_exp(self, strategy: Any) -> None:
        """Note the classes that are trained on."""
        SharedImages.of(strategy).observe(strategy.experience)

    def before_eval(self, strategy: Any) -> None:
        """Begin with new images."""
        self.reset()
        self._classes = {}
        SharedImages.of(strategy).forget_images()

    def before_eval_exp(self, strategy: Any) -> None:
        """Note the classes of an experience that is evaluated."""
        classes = experience_classes(strategy.experience)
        self._classes[experience_key(strategy.experience)] = classes

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the values over the evaluated experiences that were trained on."""
        seen = SharedImages.of(strategy).seen_classes
        trained = [key for key, classes in self._classes.items() if classes <= seen]
        if not trained or not has_classes(strategy.model):
            warnings.warn(
                f"{self}: no evaluated experience was trained on yet; nothing to judge",
                stacklevel=2,
            )
            return []
        self._results = self.compute(strategy, trained)
        return [self.emitted(*item, strategy) for item in self._results.items()]

    def emitted(self, name: str, value: Any, strategy: Any) -> MetricValue:
        """A value under Avalanche's name: metric, phase, stream and experience."""
        metric, *experience = name.split("/")
        full = get_metric_name(metric, strategy, add_experience=False, add_task=False)
        full = "/".join([full, *experience])
        return MetricValue(self, full, value, strategy.clock.train_iterations)

    def __str__(self) -> str:
        return type(self).__name__
