"""The settings of an evaluation, and the metrics that they ask for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avalanche_gd.checks import check_choice
from avalanche_gd.metrics import Sampling
from avalanche_gd.metrics.feature_metric import FeatureMetric
from avalanche_gd.metrics.features import check_feature_choice, feature_extractor
from avalanche_gd.metrics.labeller import resnet18_weights
from avalanche_gd.runs.column import Column
from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.errors import naming

LABELLERS = ("oracle", "resnet18")
"""What can label generated images."""


@dataclass
class EvaluationConfig:
    """The metrics of generated images, and what they are computed on.

    :raises ValueError: for an unknown value, or too few images for a measure.
    """

    images: int
    steps: int
    batch_size: int
    features: str = "oracle"
    """The features of FID: ``oracle``, ``inception``, or a classifier of torchvision."""
    weights_path: str | None = None
    """The file of the features' weights."""
    measures: list[str] = field(default_factory=list)
    """Metrics in addition to those that are always measured; brought into their order."""
    labeller: str = "oracle"
    """What labels generated images: ``oracle``, or ``resnet18`` as in the paper."""
    labeller_weights: str | None = None
    """The file of the ImageNet weights of ``resnet18``."""

    def __post_init__(self) -> None:
        with naming("evaluation"):
            self._check_labeller()
            check_feature_choice(self.features, self.weights_path)
            generation_metrics(self.sampling(), "oracle", self.measures)
        self.measures = [name for name in measure_names() if name in self.measures]

    def sampling(self) -> Sampling:
        """The settings of sampling, for the metrics."""
        return Sampling(self.images, self.steps, batch_size=self.batch_size)

    def metrics(
        self, labeller: Any = None, columns: Sequence[Column] = METRICS
    ) -> list[Any]:
        """Make the plugin metrics that tables show.

        :param labeller: labels generated images; None for the oracle.
        :param columns: the columns of the tables.
        :raises ValueError: if the weights of the features cannot be found or read.
        """
        with naming("evaluation"):
            extractor = feature_extractor(self.features, self.weights_path)
        features = "oracle" if extractor is None else extractor
        how = self.sampling(), features, self.measures, labeller
        return generation_metrics(*how, columns)

    def check_weights(self) -> None:
        """Raise ValueError if weights cannot be found or read.

        Those of the labeller are checked only if given, as it may be trained already.
        """
        with naming("evaluation"):
            feature_extractor(self.features, self.weights_path)
            if self.labeller_weights is not None:
                resnet18_weights(self.labeller_weights)

    def check_test_images(self, count: int) -> None:
        """Raise ValueError if a measure needs more test images than there are."""
        with naming("evaluation"):
            made = generation_metrics(self.sampling(), "oracle", self.measures)
            for part in made:
                for metric in part if isinstance(part, Sequence) else [part]:
                    if isinstance(metric, FeatureMetric):
                        metric.check_enough("in the test stream", count)

    def _check_labeller(self) -> None:
        check_choice("labeller", self.labeller, LABELLERS)
        if self.labeller == "oracle" and self.labeller_weights is not None:
            raise ValueError("labeller_weights goes with labeller=resnet18")


def generation_metrics(
    sampling: Sampling,
    features: Any = "oracle",
    measures: Sequence[str] = (),
    labeller: Any = None,
    columns: Sequence[Column] = METRICS,
) -> list[Any]:
    """Make the plugin metrics of a generator that tables show.

    :param sampling: how images are generated.
    :param features: as in :func:`~avalanche_gd.metrics.fid_metrics`.
    :param measures: additional metrics, from :func:`measure_names`.
    :param labeller: a classifier that labels generated images; None for the oracle.
    :param columns: the metrics of the tables.
    :raises ValueError: for another name or one that is named twice, or if one is not
        possible with this sampling.
    """
    for name in measures:
        check_choice("measure", name, measure_names())
    if len(set(measures)) < len(measures):
        raise ValueError(f"a measure is named twice: {', '.join(measures)}")
    return [
        metric.measure(
            sampling=sampling,
            **({"features": features} if metric.in_features else {}),
            **({"classifier": labeller} if metric.is_labelled else {}),
        )
        for metric in columns
        if metric.measure and (not metric.asked_as or metric.asked_as in measures)
    ]


def measure_names() -> list[str]:
    """The names of metrics that can be added to those that are always measured."""
    return list(dict.fromkeys(m.asked_as for m in METRICS if m.asked_as))
