"""The Frechet inception distance of generated images, as an Avalanche metric."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from avalanche_gd.metrics.features import feature_extractor
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import (
    ExperienceKey,
    Sampling,
    SharedImages,
    classifier_labels,
    experience_key,
    in_batches,
)
from avalanche_gd.metrics.summary import Qualities, generation_summary


@dataclass(frozen=True)
class Moments:
    """Sums over features, in float64, from which mean and covariance follow."""

    total: Tensor
    """The sum, ``(D,)``."""
    products: Tensor
    """The sum of outer products, ``(D, D)``."""
    count: int

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features ``(N, D)``."""
        features = features.double()
        return cls(features.sum(dim=0), features.T @ features, len(features))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.total + other.total,
            self.products + other.products,
            self.count + other.count,
        )


class _Identity(nn.Identity):
    """Features are given to torchmetrics as they are."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def frechet_distance(real: Moments, features: Tensor) -> float:
    """FID by torchmetrics between real moments and generated features, in float64.

    ``|mu - mu_g|^2 + tr(S + S_g - 2 (S S_g)^(1/2))`` (arXiv 1706.08500, equation 6).

    :param real: the moments of real features.
    :param features: of generated images, ``(N, D)``.
    :return: the distance; not a number for fewer than 2 images on a side.
    """
    if real.count < 2 or len(features) < 2:
        return float("nan")
    fid = FrechetInceptionDistance(
        _Identity(features.shape[1]),
        normalize=True,
        sync_on_compute=False,  # of several processes, each has all features
    )
    fid = fid.to(features.device)
    fid.real_features_sum += real.total
    fid.real_features_cov_sum += real.products
    fid.real_features_num_samples += real.count
    fid.update(features.double(), real=False)
    return float(fid.compute())


class FID(GenerationMetric):
    """See :func:`fid_metrics`."""

    def __init__(
        self,
        sampling: Sampling,
        extractor: Any,
        *,
        experience: bool,
        stream: bool,
        summary: bool,
    ):
        super().__init__(sampling)
        self._extractor = extractor
        self._by_experience, self._over_stream = experience, stream
        self._summary = summary
        self.qualities: Qualities = {}
        """FID by number of experiences trained on and by experience."""
        self._real: dict[ExperienceKey, Moments] = {}
        self._reading: Moments | None = None

    def before_eval_exp(self, strategy: Any) -> None:
        """Read the real images of an experience unless they have been read before."""
        super().before_eval_exp(strategy)
        self._reading = None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Add the batch to the moments of the experience's real images."""
        if experience_key(strategy.experience) not in self._real:
            batch = Moments.of(self._features(strategy, strategy.mb_x))
            self._reading = batch if self._reading is None else self._reading + batch

    def after_eval_exp(self, strategy: Any) -> None:
        """Keep the moments for all evaluations to come."""
        if self._reading is not None:
            self._real[experience_key(strategy.experience)] = self._reading

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """FID over the stream and by experience, as asked for."""
        generation = SharedImages.of(strategy)
        images, condition = generation.samples(strategy.model, self.sampling)
        features = self._features(strategy, images)
        values = {}
        if self._by_experience or self._summary:
            if condition is None:
                condition = classifier_labels(
                    generation.oracle(strategy), images, self.sampling.batch_size
                )
            distances = {}
            for key in experiences:
                classes = torch.tensor(sorted(self._classes[key]), device=condition.device)
                own = features[torch.isin(condition, classes)]
                distances[key[1]] = frechet_distance(self._real[key], own)
            if self._by_experience:
                for index, distance in distances.items():
                    values[f"FID_Exp/Exp{index:03d}"] = distance
            if self._summary:
                self.qualities[len(generation.seen_experiences)] = distances
                for name, value in generation_summary(self.qualities).items():
                    values[f"FID_{name}"] = value
        if self._over_stream:
            real = self._real[experiences[0]]
            for key in experiences[1:]:
                real += self._real[key]
            values["FID_Stream"] = frechet_distance(real, features)
        return values

    def _features(self, strategy: Any, images: Tensor) -> Tensor:
        extractor = self._extractor
        if extractor is None:
            extractor = SharedImages.of(strategy).oracle(strategy).get_features
        elif isinstance(extractor, nn.Module):
            extractor = extractor.to(strategy.device)
        return in_batches(extractor, images, self.sampling.batch_size)


def fid_metrics(
    *,
    experience: bool = False,
    stream: bool = True,
    summary: bool = False,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
) -> list[GenerationMetric]:
    """FID against the evaluated images of the classes trained on so far.

    For the ``EvaluationPlugin`` of a strategy whose model is a
    :class:`~avalanche_gd.DiffusionModel`. Features of real images are computed once a
    stream and kept.

    :param experience: also for each experience, between its real images and the
        generated ones of its classes, as ``FID_Exp/eval_phase/test_stream/Exp000``; not a
        number where there are fewer than 2. The class of a generated image is the one
        that a conditioned model was asked for, else what the oracle says.
    :param stream: over all of them, as ``FID_Stream/eval_phase/test_stream``.
    :param summary: final and mean quality and forgetting, as
        ``FID_Final/eval_phase/test_stream``, ``FID_Mean/...``, ``FID_Forgetting/...``: see
        :func:`~avalanche_gd.metrics.generation_summary`.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: ``"oracle"``, the penultimate layer (64 features) of a classifier
        trained on all classes of the benchmark; ``"inception"``, InceptionV3 with 2,048;
        or a module called with images in model space that returns ``(N, D)``. Values can
        only be compared under the same features.
    :param weights_path: the file of InceptionV3's weights, on a machine without network.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for unknown features, or if InceptionV3 cannot be had.
    """
    if not (experience or stream or summary):
        return []
    sampling = sampling or Sampling()
    extractor = feature_extractor(features, weights_path)
    return [FID(sampling, extractor, experience=experience, stream=stream, summary=summary)]
