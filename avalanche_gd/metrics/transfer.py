"""How far what was learned helps with what comes next, and with what came before."""

from pathlib import Path
from typing import Any

from avalanche.evaluation.metric_results import MetricValue
from torch import nn

from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.metrics.feature_metric import FeatureChoice
from avalanche_gd.metrics.fid import FID, frechet_distance
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages, generate_samples
from avalanche_gd.metrics.summary import transfer_summary
from avalanche_gd.metrics.trained import (
    Counted,
    ExperienceKey,
    StreamKey,
    experience_key,
)


class FIDTransfer(FID):
    """See :func:`fid_transfer_metrics`."""

    def __init__(self, sampling: Sampling, choice: FeatureChoice):
        super().__init__(
            sampling, choice, experience=True, stream=False, summary=False, afid=False
        )
        self._ahead: dict[ExperienceKey, Counted] = {}  # evaluated, but not trained on yet

    def before_eval(self, strategy: Any) -> None:
        """Begin anew."""
        super().before_eval(strategy)
        self._ahead = {}

    def before_eval_exp(self, strategy: Any) -> None:
        """Note an experience that is evaluated, trained on or not."""
        super().before_eval_exp(strategy)
        key = experience_key(strategy.experience)
        if key not in self._counted:
            classes = dataset_classes(strategy.experience.dataset)
            training = StreamKey(self.choice.oracle.benchmark, "train")
            self._ahead[key] = Counted(classes, after=0, number=0, training=training)

    def counted_for(self, key: ExperienceKey) -> Counted | None:
        """What an experience counts for; one ahead is read as well."""
        return self._counted.get(key) or self._ahead.get(key)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the transfer; before any training, note what it is compared with."""
        if SharedImages.of(strategy).trained:
            return super().after_eval(strategy)
        for key in list(self._ahead)[:1]:
            self.recorded_at(key.stream, 0, self._distances_ahead(strategy))
        return []

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """The transfer so far."""
        distances = self.distances(strategy, experiences) | self._distances_ahead(strategy)
        summary = transfer_summary(self.recorded(distances), self.counts_after)
        return {f"FID_{name}Transfer": value for name, value in summary.items()}

    def _distances_ahead(self, strategy: Any) -> dict[int, float]:
        """FID between each experience ahead and all that is generated."""
        model, shared, distances = strategy.model, SharedImages.of(strategy), {}
        classes = None if shared.trained else getattr(model, "num_classes", None)
        if classes is None:
            images = shared.images(model, self.sampling)
        else:
            images, _ = generate_samples(model, self.sampling, classes=range(classes))
        for key, counted in self._ahead.items():
            extractor = self.choice.extractor_for(strategy, counted)
            features = self.features(strategy, extractor, images)
            distances[key.place] = frechet_distance(self._real[key, extractor], features)
        return distances


def fid_transfer_metrics(
    *,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """Backward and forward transfer of FID, between what was trained on when.

    As ``FID_BackwardTransfer/eval_phase/test_stream`` from the second experience on, and
    ``FID_ForwardTransfer/...``: see :func:`~avalanche_gd.metrics.transfer_summary`; above 0
    is good. On an experience that was trained on, FID is with the generated images of its
    classes. On one that was not yet, it is with all of them, which is how close to it the
    model comes by itself. A conditioned model is asked before any training for all of its
    classes.

    Forward transfer needs evaluations of the whole test stream, the first before any
    training::

        strategy.eval(benchmark.test_stream)
        for experience in benchmark.train_stream:
            strategy.train(experience)
            strategy.eval(benchmark.test_stream)

    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: as :func:`~avalanche_gd.metrics.fid_metrics` takes; so are
        ``weights_path``, ``oracle`` and ``benchmark``. With the oracle's, one of the last
        two has to be given: it judges before it is known what will be trained on.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: as ``fid_metrics`` does, or for an oracle of which nothing is known.
    :raises TypeError: as ``fid_metrics`` does.
    """
    choice = FeatureChoice.of(features, weights_path, oracle, benchmark)
    if choice.extractor is None and oracle is None and benchmark is None:
        raise ValueError(
            'fid_transfer_metrics with features="oracle" need benchmark=, whose '
            "train_stream it is trained on, or oracle="
        )
    return [FIDTransfer(sampling or Sampling(), choice)]
