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
        self._classes: dict[ExperienceKey, set[int]] = {}
        self._evaluated: list[ExperienceKey] = []
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
        SharedImages.of(strategy).forget_images()

    def before_eval(self, strategy: Any) -> None:
        """Begin with new images."""
        self.reset()
        self._evaluated = []
        SharedImages.of(strategy).forget_images()

    def before_eval_exp(self, strategy: Any) -> None:
        """Note the experience."""
        key = experience_key(strategy.experience)
        self._evaluated.append(key)
        self._classes[key] = {
            int(c) for c in strategy.experience.classes_in_this_experience
        }

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Judge."""
        seen = SharedImages.of(strategy).seen_classes
        trained = [key for key in self._evaluated if self._classes[key] <= seen]
        if not trained or not has_classes(strategy.model):
            warnings.warn(
                f"{self}: no evaluated experience was trained on yet; nothing to judge",
                stacklevel=2,
            )
            return []
        self._results = self.compute(strategy, trained)
        position = strategy.clock.train_iterations
        return [
            MetricValue(self, full_name(name, strategy), value, position)
            for name, value in self._results.items()
        ]


def full_name(name: str, strategy: Any) -> str:
    """Avalanche's name: of the metric, the phase, the stream and the experience."""
    metric, *experience = name.split("/")
    full = get_metric_name(metric, strategy, add_experience=False, add_task=False)
    return "/".join([full, *experience])
