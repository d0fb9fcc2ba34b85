"""The Frechet inception distance of generated images, as an Avalanche metric."""

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.metrics.feature_metric import FeatureChoice, FeatureMetric
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.metrics.measured import Measured
from avalanche_gd.metrics.module_state import tensors_state
from avalanche_gd.metrics.plugin import EVALUATE_ALL, GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages, is_conditioned
from avalanche_gd.metrics.summary import Qualities, afid_summary, generation_summary
from avalanche_gd.metrics.trained import (
    ExperienceKey,
    StreamKey,
    known_tests_of,
    label_counts,
    whole_stream,
)


class FID(FeatureMetric):
    """See :func:`fid_metrics`."""

    needs_all_classes = False  # by experience, only its own classes count
    without_labels = "use fid_metrics() without experience=, summary= and afid="

    def __init__(
        self,
        sampling: Sampling,
        choice: FeatureChoice,
        *,
        experience: bool,
        stream: bool,
        summary: bool,
        afid: bool,
    ):
        super().__init__(sampling, choice)
        self._by_experience, self._over_stream = experience, stream
        self._summary, self._afid = summary, afid
        asked = dict(FID_Exp=experience, FID_Stream=stream, FID_Final=summary, AFID=afid)
        self.value_names = frozenset(name for name, is_asked in asked.items() if is_asked)
        self._measured = Measured()  # on the strategy that was seen last
        self._labels: dict[StreamKey, Counter[int]] = {}

    @property
    def qualities(self) -> dict[str, Qualities]:
        """FID by the stream's name, the number of experiences trained on, and experience.

        A new metric that gets this value continues from it, with streams of the same names.

        :raises ValueError: if two benchmarks have streams of the same name.
        """
        return self._measured.by_name()

    @qualities.setter
    def qualities(self, qualities: dict[str, Qualities]) -> None:
        if not all(isinstance(name, str) for name in qualities):
            raise ValueError(
                "the checkpoint is from an earlier version, whose summary was over all "
                "streams together; start the run again in a new folder"
            )
        self._measured.qualities, self._measured.loaded = {}, dict(qualities)

    def qualities_of(self, strategy: Any) -> dict[str, Qualities]:
        """:attr:`qualities` of a strategy, one of those that share this metric.

        :raises ValueError: as there.
        """
        return self._measured_on(strategy).by_name()

    def go_on_from(self, strategy: Any, qualities: dict[str, Qualities]) -> None:
        """Let a strategy continue from its :meth:`qualities_of`.

        :raises ValueError: if they are from an earlier version.
        """
        self._turn_to(strategy)
        self.qualities = qualities

    def before_training_exp(self, strategy: Any) -> None:
        """Note the experience; warn if FID by experience will have no value."""
        self._turn_to(strategy)
        super().before_training_exp(strategy)
        tests = known_tests_of(strategy.experience)
        if self._of_experiences and tests is not None:
            self.tells_apart(strategy, tests)

    def before_eval(self, strategy: Any) -> None:
        """Start without images."""
        self._turn_to(strategy)
        super().before_eval(strategy)

    def _turn_to(self, strategy: Any) -> None:
        """Go on with what was measured on this strategy, and not on another."""
        self._measured = self._measured_on(strategy)

    def _measured_on(self, strategy: Any) -> Measured:
        """What was measured on a strategy."""
        kept = SharedImages.of(strategy).measured
        if self not in kept:  # what was loaded is for the first strategy
            kept[self] = Measured() if self._measured.is_used else self._measured
            kept[self].is_used = True
        return kept[self]

    def tells_apart(self, strategy: Any, stream: StreamKey) -> bool:
        """Warn and return False if images of two experiences cannot be told apart.

        Which experience an image is of is known by its class.
        """
        sharing = SharedImages.of(strategy).trained.sharing(stream)
        if sharing is None:
            return True
        warnings.warn(
            "FID by experience, its summary and its transfer have no value, as experiences "
            f"of the stream {sharing.name} share classes, by which generated images would "
            "be told apart; use fid_metrics(stream=True) only",
            stacklevel=2,
        )
        return False

    def compares(self, strategy: Any) -> bool:
        """Warn and return False if a model cannot be compared with earlier ones.

        FID is kept by the number of experiences that were trained on.
        """
        if not SharedImages.of(strategy).trained.repeats:
            return True
        warnings.warn(
            "the summary of FID, AFID and transfer have no value, as an experience was "
            "trained on again after another; compare FID by experience",
            stacklevel=2,
        )
        return False

    def measured(
        self, strategy: Any, distances: dict[int, float]
    ) -> tuple[Qualities, dict[int, int]]:
        """Add FID by place of this evaluation; return all so far, and when each counts."""
        model = strategy.clock.train_iterations, tensors_state(strategy.model.parameters())
        qualities = self._measured.add(self._counted, distances, model)
        return qualities, self._measured.counts_after(self._counted)

    def has_all(
        self, strategy: Any, qualities: Qualities, after: Mapping[int, int]
    ) -> bool:
        """Warn and return False if the present model was measured on a part only.

        Of the experiences that were trained on, and that the evaluated stream has; of a
        stream without a known end, of those that were ever measured.

        :param after: those by place, from :meth:`measured`.
        """
        key, one = next(iter(self._counted.items()))
        trained = SharedImages.of(strategy).trained
        places = {
            place
            for place, experience in enumerate(whole_stream(key.stream) or ())
            if len(experience.dataset) > 0 and trained.counted(experience)
        }
        if whole_stream(key.stream) is None:
            places = set(after)
        if places <= qualities[one.number].keys():
            return True
        warnings.warn(
            "the summary of FID, AFID and transfer have no new value, as experiences that "
            f"were trained on are not evaluated; {EVALUATE_ALL}",
            stacklevel=2,
        )
        return False

    def check(self, strategy: Any) -> None:
        """Raise ValueError unless the necessary labels and features are possible."""
        if self._of_experiences and not is_conditioned(strategy.model):
            self.choice.oracle.check_labels(strategy)
        super().check(strategy)

    def is_labelled(self, dataset: Any) -> bool:
        """Whether a dataset has the classes that FID by experience needs."""
        return not self._of_experiences or bool(dataset_classes(dataset))

    def kept(self, features: Tensor) -> Moments:
        """The moments of a batch of real features."""
        return Moments.of(features)

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """FID over the stream and by experience, as chosen."""
        extractor = self.choice.extractor_for(strategy, self._counted[experiences[0]])
        values = {}
        if self._of_experiences and self.tells_apart(strategy, self._whole):
            distances = self.distances(strategy, experiences)
            if self._by_experience:
                for place, distance in distances.items():
                    values[f"FID_Exp/Exp{place:03d}"] = distance
            if (self._summary or self._afid) and self.compares(strategy):
                qualities, after = self.measured(strategy, distances)
                if self.has_all(strategy, qualities, after):
                    values |= self._summaries(qualities, after)
        if self._over_stream and not self.lacks_classes(strategy):
            images = SharedImages.of(strategy).images(strategy.model, self.sampling)
            features = self.features(strategy, extractor, images)
            total, *others = (
                self._real[key, extractor].to(features.device) for key in experiences
            )
            for moments in others:
                total += moments
            values["FID_Stream"] = frechet_distance(total, features)
        return values

    def _summaries(self, qualities: Qualities, after: dict[int, int]) -> dict[str, float]:
        """The summaries that were asked for."""
        values = {}
        if self._summary:
            for name, value in generation_summary(qualities, after).items():
                values[f"FID_{name}"] = value
        if self._afid:
            values |= afid_summary(qualities, after)
        return values

    def distances(
        self, strategy: Any, experiences: list[ExperienceKey]
    ) -> dict[int, float]:
        """FID by the place of an experience, with the generated images of its classes."""
        images, condition = SharedImages.of(strategy).samples(strategy.model, self.sampling)
        first = self._counted[experiences[0]]
        extractor = self.choice.extractor_for(strategy, first)
        features = self.features(strategy, extractor, images)
        if condition is None:
            size = self.sampling.batch_size
            condition = self.choice.oracle.labels(strategy, first, images, size)
        distances = {}
        for key in experiences:
            own = features[self._of_classes(key, condition)]
            distances[key.place] = frechet_distance(self._real[key, extractor], own)
        return distances

    def _of_classes(self, key: ExperienceKey, condition: Tensor) -> Tensor:
        """The places of an experience's share of the generated images.

        The first of its classes, as many as there are of them when the images are of all
        classes of the stream. The bias of FID depends on the number of images, so that with
        all that there are, FID on an experience would rise with each further experience.
        """
        classes = self._counted[key].classes
        wanted = torch.tensor(sorted(classes), device=condition.device)
        own = torch.isin(condition, wanted).nonzero().flatten()
        if key.stream not in self._labels:
            self._labels[key.stream] = label_counts(whole_stream(key.stream) or ())
        counts = self._labels[key.stream]
        share = sum(counts[label] for label in classes)
        if 0 < share < counts.total():
            own = own[: self.sampling.images * share // counts.total()]
        return own

    @property
    def _of_experiences(self) -> bool:
        return self._by_experience or self._summary or self._afid


def fid_metrics(
    *,
    experience: bool = False,
    stream: bool = True,
    summary: bool = False,
    afid: bool = False,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """FID between generated images and the evaluated experiences trained on so far.

    It is for the ``EvaluationPlugin`` of a strategy whose model is a
    :class:`~avalanche_gd.DiffusionModel`. For which experiences count see
    :class:`~avalanche_gd.metrics.trained.TrainedExperiences`. Features of real images are
    computed once per stream and kept, until a module of features is trained further; of a
    function that is no module or method of one, in each evaluation.

    :param experience: also log FID for each experience, between its real images and the
        generated images of its classes, as ``FID_Exp/eval_phase/test_stream/Exp000``; NaN
        if there are fewer than 2. The class of a generated image is the one on which it was
        conditioned; without conditioning the oracle predicts it. The first of them are
        taken, as many of all as there are of its classes in the whole stream, so that FID
        of an earlier model is not of more images: its bias depends on their number. (Of
        fewer, if the model makes fewer.) Where two experiences of the stream share a class,
        as in domain-incremental streams, their images cannot be told apart, and a warning
        says that there is no value; this is also true where two of the training stream do
        and the evaluated stream has other experiences than that one, such as a single one,
        and for ``summary`` and ``afid``.
    :param stream: log FID over all of them, as ``FID_Stream/eval_phase/test_stream``. There
        is no value, and a warning, if a part of a stream is evaluated that lacks a class
        which was trained on, or one of the experiences trained on where experiences share
        classes: images of it are generated too. It is the same if a conditioned model has
        learned other classes in another strategy, or if these metrics were put into the
        evaluator after the first experience. Of a model without condition that was trained
        elsewhere, this is not known, and its images are compared with the experiences of
        this strategy only. Images of a class that the evaluated stream lacks count as they
        are: a conditioned model is asked for what it was trained on.
    :param summary: log final and mean quality and forgetting, as
        ``FID_Final/eval_phase/test_stream``, ``FID_Mean/...``, ``FID_Forgetting/...``, one
        set per stream: see :func:`~avalanche_gd.metrics.generation_summary`. There is no
        value, and a warning, before all experiences of the stream that were trained on are
        evaluated, together or one by one, or once an experience is trained on again after
        another; this is also true for ``afid``.
    :param afid: log AFID@k and F of arXiv 2509.23593, as ``AFID/eval_phase/test_stream``
        and ``F/...``: see :func:`~avalanche_gd.metrics.afid_summary`.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: ``"oracle"``, the penultimate layer (64 features) of a classifier
        trained on the whole training stream; ``"inception"``, InceptionV3 with 2,048; the
        name of a torchvision classifier, such as ``"mobilenet_v2"``, for the input of its
        last linear layer; or a module called with images in model space that returns
        ``(N, D)``, D up to 8,192, which computes in evaluation mode, also while it is in
        training elsewhere. Compare values only if their features are the same.
    :param weights_path: the file of the weights of InceptionV3 or of a torchvision
        classifier, for a machine without a network.
    :param oracle: a classifier that replaces the oracle, from images in model space to
        logits; with ``features="oracle"`` it needs ``get_features``, as
        :class:`~avalanche_gd.SmallCNN` has.
    :param benchmark: the oracle is trained on its ``train_stream``; None for the stream
        that the strategy is trained on.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for unknown features, if their weights cannot be found or read, if
        both an oracle and a benchmark are given, or if the benchmark is not in model space
        or gives other classes the same numbers. Before training, if images have no features
        or are not in model space, if the oracle does not fit them, if labels lack that FID
        by experience needs, also in the test stream, or if the model cannot be sampled so.
    :raises TypeError: if features, oracle, benchmark or sampling are none of these, or if
        features are not hashable.
    """
    if not (experience or stream or summary or afid):
        return []
    choice = FeatureChoice.of(features, weights_path, oracle, benchmark)
    asked = dict(experience=experience, stream=stream, summary=summary, afid=afid)
    return [FID(sampling or Sampling(), choice, **asked)]
