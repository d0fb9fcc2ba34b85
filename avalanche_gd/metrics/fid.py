"""The Frechet inception distance of generated images, as an Avalanche metric."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from avalanche_gd.data.images import image_of
from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.metrics.features import checked_features, feature_extractor
from avalanche_gd.metrics.oracle_choice import OracleChoice
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import (
    Sampling,
    SharedImages,
    classifier_labels,
    in_batches,
)
from avalanche_gd.metrics.summary import Qualities, generation_summary
from avalanche_gd.metrics.trained import Counted, ExperienceKey, StreamKey, experience_key


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
        oracle: OracleChoice,
        experience: bool,
        stream: bool,
        summary: bool,
    ):
        super().__init__(sampling)
        self._extractor, self._oracle = extractor, oracle
        self._by_experience, self._over_stream = experience, stream
        self._summary = summary
        self._qualities: dict[StreamKey, Qualities] = {}
        self._loaded: dict[str, Qualities] = {}
        self._real: dict[tuple[ExperienceKey, Any], Moments] = {}  # by extractor too
        self._reading: Moments | None = None

    @property
    def qualities(self) -> dict[str, Qualities]:
        """FID by the stream's name, the number of experiences trained on, and experience.

        A new metric that is given it goes on from there, with streams of the same names.

        :raises ValueError: if two benchmarks have streams of the same name.
        """
        names = [stream.name for stream in self._qualities]
        if len(set(names)) < len(names):
            raise ValueError(
                f"streams of the same name, {', '.join(sorted(names))}, cannot be told "
                "apart when they are loaded; keep one benchmark to a strategy"
            )
        return self._loaded | {key.name: q for key, q in self._qualities.items()}

    @qualities.setter
    def qualities(self, qualities: dict[str, Qualities]) -> None:
        if not all(isinstance(name, str) for name in qualities):
            raise ValueError(
                "the checkpoint is of an earlier version, whose summary was over all "
                "streams together; begin the run anew"
            )
        self._qualities, self._loaded = {}, dict(qualities)

    def check(self, strategy: Any) -> None:
        """Raise ValueError unless there are, or can be, the labels and features needed."""
        experience, dataset = strategy.experience, strategy.experience.dataset
        if self._of_experiences and not dataset_classes(dataset):
            raise ValueError(
                "FID by experience goes by the classes of an experience, but its images "
                "have no labels; give fid_metrics() without experience= and summary="
            )
        conditioned = getattr(strategy.model, "num_classes", None) is not None
        if self._extractor is None or (self._of_experiences and not conditioned):
            self._oracle.check(experience)
        image = image_of(dataset[0])
        given = self._oracle.classifier if self._extractor is None else self._extractor
        if given is not None and isinstance(image, Tensor):
            self._features(strategy, given, image[None].to(strategy.device))

    def before_eval_exp(self, strategy: Any) -> None:
        """Read the real images of an experience unless they have been read before."""
        super().before_eval_exp(strategy)
        self._reading = None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Add the batch to the moments of the experience's real images."""
        key = experience_key(strategy.experience)
        if key not in self._counted:
            return
        extractor = self._extractor_of(strategy, self._counted[key])
        if (key, extractor) not in self._real:
            features = self._features(strategy, extractor, strategy.mb_x)
            batch = Moments.of(features)
            self._reading = batch if self._reading is None else self._reading + batch

    def after_eval_exp(self, strategy: Any) -> None:
        """Keep the moments for all evaluations to come."""
        if self._reading is not None:
            key = experience_key(strategy.experience)
            extractor = self._extractor_of(strategy, self._counted[key])
            self._real[key, extractor] = self._reading

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """FID over the stream and by experience, as asked for."""
        images, condition = SharedImages.of(strategy).samples(strategy.model, self.sampling)
        first = self._counted[experiences[0]]
        extractor = self._extractor_of(strategy, first)
        features = self._features(strategy, extractor, images)
        real = {key: self._real[key, extractor] for key in experiences}
        values = {}
        if self._of_experiences:
            if condition is None:
                condition = classifier_labels(
                    self._oracle.of(strategy, first), images, self.sampling.batch_size
                )
            distances = {}
            for key, moments in real.items():
                classes = torch.tensor(sorted(self._counted[key].classes))
                own = features[torch.isin(condition, classes.to(condition.device))]
                distances[key.place] = frechet_distance(moments, own)
            if self._by_experience:
                for place, distance in distances.items():
                    values[f"FID_Exp/Exp{place:03d}"] = distance
            if self._summary:
                for name, value in self._summarized(distances).items():
                    values[f"FID_{name}"] = value
        if self._over_stream:
            total, *others = real.values()
            for moments in others:
                total += moments
            values["FID_Stream"] = frechet_distance(total, features)
        return values

    @property
    def _of_experiences(self) -> bool:
        return self._by_experience or self._summary

    def _summarized(self, distances: dict[int, float]) -> dict[str, float]:
        """The summary of the evaluated stream, with these distances by experience."""
        stream = next(iter(self._counted)).stream
        if stream not in self._qualities:
            self._qualities[stream] = self._loaded.pop(stream.name, {})
        qualities = self._qualities[stream]
        qualities[next(iter(self._counted.values())).number] = distances
        after = {key.place: counted.after for key, counted in self._counted.items()}
        return generation_summary(qualities, after)

    def _extractor_of(self, strategy: Any, counted: Counted) -> Any:
        """What gives features for an experience."""
        if self._extractor is None:
            return self._oracle.of(strategy, counted)
        return self._extractor

    def _features(self, strategy: Any, extractor: Any, images: Tensor) -> Tensor:
        if isinstance(extractor, nn.Module):
            extractor.to(strategy.device)
        function = extractor.get_features if self._extractor is None else extractor
        function = partial(checked_features, function)
        return in_batches(function, images, self.sampling.batch_size)


def fid_metrics(
    *,
    experience: bool = False,
    stream: bool = True,
    summary: bool = False,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """FID against the evaluated experiences that were trained on so far.

    For the ``EvaluationPlugin`` of a strategy whose model is a
    :class:`~avalanche_gd.DiffusionModel`. Which experiences count is said in
    :class:`~avalanche_gd.metrics.trained.TrainedExperiences`. Features of real images are
    computed once a stream and kept.

    :param experience: also for each experience, between its real images and the
        generated ones of its classes, as ``FID_Exp/eval_phase/test_stream/Exp000``; not a
        number where there are fewer than 2. The class of a generated image is the one
        that a conditioned model was asked for, else what the oracle says.
    :param stream: over all of them, as ``FID_Stream/eval_phase/test_stream``.
    :param summary: final and mean quality and forgetting, as
        ``FID_Final/eval_phase/test_stream``, ``FID_Mean/...``, ``FID_Forgetting/...``: see
        :func:`~avalanche_gd.metrics.generation_summary`; of each stream by itself.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: ``"oracle"``, the penultimate layer (64 features) of a classifier
        trained on the whole training stream; ``"inception"``, InceptionV3 with 2,048;
        or a module called with images in model space that returns ``(N, D)``, D up to
        8,192. Values can only be compared under the same features.
    :param weights_path: the file of InceptionV3's weights, on a machine without network.
    :param oracle: a classifier in the place of the oracle, from images in model space to
        logits; with ``features="oracle"``, one with ``get_features``, as
        :class:`~avalanche_gd.SmallCNN` has.
    :param benchmark: the oracle is trained on its ``train_stream``; None for the stream
        that the strategy is trained on.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for unknown features, if InceptionV3 cannot be had, if both an
        oracle and a benchmark are given, or if the benchmark is not in model space.
    :raises TypeError: if features, oracle or benchmark are none of these.
    """
    if not (experience or stream or summary):
        return []
    extractor = feature_extractor(features, weights_path)
    if extractor is None and oracle is not None and not hasattr(oracle, "get_features"):
        raise TypeError(
            f"the oracle {type(oracle).__name__} has no get_features, as SmallCNN has; "
            "give features= beside it"
        )
    return [
        FID(
            sampling or Sampling(),
            extractor,
            oracle=OracleChoice(oracle, benchmark),
            experience=experience,
            stream=stream,
            summary=summary,
        )
    ]
