"""The base of metrics that compare features of generated and of real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.metrics.features import CheckedFeatures, feature_extractor
from avalanche_gd.metrics.module_state import tensors_state
from avalanche_gd.metrics.oracle_choice import OracleChoice
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages
from avalanche_gd.metrics.trained import (
    Counted,
    ExperienceKey,
    experience_key,
    known_tests_of,
    whole_stream,
)
from avalanche_gd.metrics.trying import first_image, name_of, trying
from avalanche_gd.models.evaluation_mode import in_evaluation_mode, module_of


@dataclass(frozen=True)
class FeatureChoice:
    """The features by which images are compared."""

    extractor: Any
    """A function from images in model space to ``(N, D)``; None for the oracle's."""
    oracle: OracleChoice

    @classmethod
    def of(
        cls,
        features: Any,
        weights_path: str | Path | None,
        oracle: nn.Module | None,
        benchmark: Any,
    ) -> "FeatureChoice":
        """Choose by the arguments of :func:`~avalanche_gd.metrics.fid_metrics`.

        :raises ValueError: as in ``fid_metrics``.
        :raises TypeError: as in ``fid_metrics``.
        """
        extractor = feature_extractor(features, weights_path)
        if extractor is None and oracle is not None and not hasattr(oracle, "get_features"):
            raise TypeError(
                f"the oracle {type(oracle).__name__} has no get_features, as SmallCNN has; "
                "give features= as well"
            )
        return cls(extractor, OracleChoice(oracle, benchmark))

    @property
    def given(self) -> Any:
        """The function or the classifier that was given; None for the default oracle."""
        return self.oracle.classifier if self.extractor is None else self.extractor

    def state(self) -> Any:
        """The :func:`tensors_state` of the given module.

        Of a function without a module, which may be any, each state is another one.
        """
        if self.given is None:
            return None
        module = module_of(self.given)
        if module is None:
            return object()
        return tensors_state([*module.parameters(), *module.buffers()])

    def check(self, strategy: Any) -> None:
        """Raise ValueError unless the images of a strategy's experience have features.

        Or if the first one is not in model space, where the generated ones are.
        """
        if self.extractor is None:
            self.oracle.check(strategy.experience)
        image = first_image(strategy.experience)
        if image is not None and self.given is not None:
            image = image.to(strategy.device)
            with trying(f"the module of features, {name_of(self.given)},", image):
                self.compute(strategy, self.given, image[None], 1)

    def extractor_for(self, strategy: Any, counted: Counted) -> Any:
        """The function that computes features for an experience in evaluation."""
        if self.extractor is None:
            return self.oracle.of(strategy, counted)
        return self.extractor

    def compute(
        self, strategy: Any, extractor: Any, images: Tensor, batch_size: int
    ) -> Tensor:
        """The features of images, computed once for all metrics of a strategy: ``(N, D)``.

        :param extractor: from :meth:`extractor_for`.
        :raises ValueError: if they are of another shape, or not finite.
        """
        module = module_of(extractor)
        if module is not None:
            module.to(strategy.device)
        function = extractor.get_features if self.extractor is None else extractor
        if self.given is None:  # an oracle computes in float32
            images = images.float()
        shared = SharedImages.of(strategy)
        with in_evaluation_mode(extractor):
            return shared.features(CheckedFeatures(function), images, batch_size)


class FeatureMetric(GenerationMetric):
    """Compares features of generated images with those of the real ones.

    Features of real images are computed once per stream, and kept until the module that
    computes them is changed by training.

    :param choice: which features.
    :param least_images: with fewer real or generated images than this there is no value.
    :param hint: the end of an error message for too few images: what to change.
    :raises ValueError: if fewer images than that are generated.
    """

    def __init__(
        self,
        sampling: Sampling,
        choice: FeatureChoice,
        *,
        least_images: int = 2,
        hint: str = "",
    ):
        super().__init__(sampling)
        self.choice = choice
        self.least_images, self._hint = least_images, hint
        self._real: dict[tuple[ExperienceKey, Any], Any] = {}  # also by extractor
        self._state: Any = None  # of the module that computed them
        self._reading: Any = None
        self.check_enough("generated", sampling.images)

    def kept(self, features: Tensor) -> Any:
        """What is kept of a batch of real features; two such objects can be added."""
        return [features]

    def check(self, strategy: Any) -> None:
        """Raise ValueError unless features and enough test images are possible."""
        self.choice.check(strategy)
        stream = known_tests_of(strategy.experience)
        tests = None if stream is None else whole_stream(stream)
        if tests is not None:
            count = sum(len(experience.dataset) for experience in tests)
            self.check_enough("in the test stream", count)

    def before_training_exp(self, strategy: Any) -> None:
        """Note the experience that is trained on."""
        self._forget_older()
        super().before_training_exp(strategy)

    def before_eval(self, strategy: Any) -> None:
        """Start without images."""
        self._forget_older()
        super().before_eval(strategy)

    def _forget_older(self) -> None:
        """Forget the features of real images that an older state of a module computed."""
        state = self.choice.state()
        if state != self._state:
            self._real.clear()
            self._state = state

    def before_eval_exp(self, strategy: Any) -> None:
        """Start to read the real images of an experience, if they were not read before."""
        super().before_eval_exp(strategy)
        self._reading = None

    def after_eval_iteration(self, strategy: Any) -> None:
        """Add the batch to what is kept of the experience's real images."""
        key = experience_key(strategy.experience)
        counted = self.counted_for(key)
        if counted is None:
            return
        extractor = self.choice.extractor_for(strategy, counted)
        if (key, extractor) not in self._real:
            batch = self.kept(self.features(strategy, extractor, strategy.mb_x))
            self._reading = batch if self._reading is None else self._reading + batch

    def after_eval_exp(self, strategy: Any) -> None:
        """Keep what was read for later evaluations."""
        key = experience_key(strategy.experience)
        counted = self.counted_for(key)
        if counted is not None and self._reading is not None:
            extractor = self.choice.extractor_for(strategy, counted)
            self._real[key, extractor] = self._reading

    def counted_for(self, key: ExperienceKey) -> Counted | None:
        """How an evaluated experience counts; None if it is not read."""
        return self._counted.get(key)

    def features(self, strategy: Any, extractor: Any, images: Tensor) -> Tensor:
        """The features of images: ``(N, D)``."""
        return self.choice.compute(strategy, extractor, images, self.sampling.batch_size)

    def compared(
        self, strategy: Any, experiences: list[ExperienceKey]
    ) -> tuple[Tensor, Tensor] | None:
        """All real and all generated features; None if either are too few."""
        images = SharedImages.of(strategy).images(strategy.model, self.sampling)
        first = self._counted[experiences[0]]
        extractor = self.choice.extractor_for(strategy, first)
        generated = self.features(strategy, extractor, images)
        kept = [part for key in experiences for part in self._real[key, extractor]]
        real = torch.cat([part.to(generated.device) for part in kept])
        enough = min(len(real), len(generated)) >= self.least_images
        return (real, generated) if enough else None

    def check_enough(self, where: str, count: int) -> None:
        """Raise ValueError if there are fewer images than a value needs."""
        if count < self.least_images:
            raise ValueError(
                f"{self} needs {self.least_images} images, but {count} are {where}"
                f"{self._hint and '; '}{self._hint}"
            )
