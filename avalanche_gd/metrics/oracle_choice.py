"""The choice of the classifier that labels generated images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.data.benchmark import check_one_numbering
from avalanche_gd.data.images import image_of
from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.metrics.shared_images import SharedImages, classifier_labels
from avalanche_gd.metrics.trained import (
    Counted,
    StreamKey,
    experience_key,
    origin,
    whole_stream,
)
from avalanche_gd.metrics.trying import first_image, name_of, trying
from avalanche_gd.models.evaluation_mode import in_evaluation_mode

_LEAST_SIDE = 4  # of an image, for the two poolings of an oracle
_OTHERWISE = "give your own classifier, or benchmark= with a train_stream to train on"


@dataclass(frozen=True)
class OracleChoice:
    """A given classifier, or an oracle that is trained on a whole training stream.

    :param classifier: from images in model space to logits, called in evaluation mode;
        None for an oracle.
    :param benchmark: the oracle is trained on its ``train_stream``; None for the stream
        that the strategy is trained on.
    :raises ValueError: for both a classifier and a benchmark, or if the benchmark's images
        are not labelled tensors in model space of 4x4 or more, or its experiences give
        other classes the same numbers.
    :raises TypeError: if the classifier is not a module or the benchmark not a benchmark.
    """

    classifier: nn.Module | None = None
    benchmark: Any = None

    def __post_init__(self) -> None:
        if self.classifier is not None and self.benchmark is not None:
            raise ValueError("give either a classifier or benchmark=, not both")
        if self.classifier is not None and not isinstance(self.classifier, nn.Module):
            raise TypeError(
                "the classifier must be a module from images to logits, "
                f"got {self.classifier!r}"
            )
        if self.benchmark is not None:
            if "train" not in getattr(self.benchmark, "streams", {}):
                raise TypeError(
                    "benchmark must have a train_stream, as Avalanche's do, "
                    f"got a {type(self.benchmark).__name__}"
                )
            check_one_numbering(self.benchmark)
            _check_stream(self._training_stream)

    def check(self, experience: Any) -> None:
        """Raise ValueError unless a classifier is given, or an oracle fits.

        :param experience: the next experience to train on.
        """
        if self.benchmark is not None:
            self._check_benchmark(experience)
        elif self.classifier is None:
            _check_numbering(experience)
            _check_stream(experience_key(origin(experience)).stream)

    def _check_benchmark(self, experience: Any) -> None:
        """Raise ValueError if an experience has other images or classes than the oracle."""
        trained = self.benchmark.streams["train"]
        image = image_of(experience.dataset.eval()[0])
        known = image_of(next(iter(trained)).dataset.eval()[0])
        if isinstance(image, Tensor) and image.shape != known.shape:
            raise ValueError(
                f"the oracle of benchmark= takes images of shape {tuple(known.shape)}, but "
                f"those that are trained on are {tuple(image.shape)}; give a benchmark of "
                "images of that shape"
            )
        classes = frozenset().union(*(dataset_classes(part.dataset) for part in trained))
        if strange := dataset_classes(experience.dataset) - classes:
            raise ValueError(
                "the oracle of benchmark= does not know the classes "
                f"{sorted(strange)} that are trained on; give a benchmark that has them"
            )

    def check_labels(self, strategy: Any) -> None:
        """Raise ValueError unless there is a classifier, with a logit for each class.

        :param strategy: a strategy that is about to train on an experience.
        """
        experience = strategy.experience
        _check_numbering(experience)
        self.check(experience)
        image, classes = first_image(experience), stream_classes(experience)
        if self.classifier is None or not classes or image is None:
            return
        self.classifier.to(strategy.device)
        given = image.to(strategy.device, copy=True)[None]
        check_logits("the classifier", self.classifier, given, max(classes) + 1)

    def of(self, strategy: Any, counted: Counted) -> nn.Module:
        """The classifier for an experience in evaluation.

        :raises ValueError: if the oracle does not know the classes of the experience.
        """
        if self.classifier is not None:
            return self.classifier.to(strategy.device)
        shared = SharedImages.of(strategy)
        training = counted.training if self.benchmark is None else self._training_stream
        strange = counted.classes - shared.trained.classes_of(training)
        if strange:
            raise ValueError(
                f"the oracle of the stream {training.name} does not know the classes "
                f"{sorted(strange)} that are evaluated; {_OTHERWISE}"
            )
        return shared.oracle(training, strategy.device)

    def labels(
        self, strategy: Any, counted: Counted, images: Tensor, batch_size: int
    ) -> Tensor:
        """The classes of images by the classifier for an experience, ``(N,)``.

        :raises ValueError: as in :meth:`of`.
        """
        given = images if self.classifier is not None else images.float()
        return classifier_labels(self.of(strategy, counted), given, batch_size)

    @property
    def _training_stream(self) -> StreamKey:
        return StreamKey(self.benchmark, "train")


def stream_classes(experience: Any) -> frozenset[int]:
    """The classes of an experience's stream; if that has no end, the experience's own.

    :raises ValueError: if one is below 0.
    """
    experiences = whole_stream(experience_key(origin(experience)).stream)
    parts = [experience] if experiences is None else experiences
    classes = frozenset().union(*(dataset_classes(part.dataset) for part in parts))
    _check_not_negative(classes)
    return classes


def _check_not_negative(classes: frozenset[int]) -> None:
    """Raise ValueError if a class, such as a mark for no label, is below 0."""
    if min(classes, default=0) < 0:
        raise ValueError(
            f"a class is {min(classes)}, but classes are numbered from 0; leave images "
            "without a label out, or metrics that need labels"
        )


@torch.no_grad()
def check_logits(
    what: str, classifier: nn.Module, images: Tensor, num_classes: int
) -> None:
    """Raise ValueError unless a classifier has a logit for each class.

    :param what: its name in messages.
    :param images: some in model space, ``(N, C, H, W)``, which it may change.
    """
    with trying(f"{what}, {name_of(classifier)},", images[0]):
        with in_evaluation_mode(classifier):
            logits = classifier(images)
        shape = tuple(logits.shape)
    if len(shape) != 2 or shape[0] != len(images) or shape[1] < num_classes:
        raise ValueError(
            f"{what} needs a logit for each class from 0 to {num_classes - 1}, but for "
            f"images of {tuple(images.shape)} it gives {shape}"
        )


def _check_numbering(experience: Any) -> None:
    """Raise ValueError if the benchmark gives several classes one number."""
    stream = experience_key(origin(experience)).stream
    if stream.knows_benchmark:
        check_one_numbering(stream.owner)


def _check_stream(stream: StreamKey) -> None:
    """Raise ValueError unless an oracle can be trained on a stream."""
    experiences = whole_stream(stream)
    if experiences is None:
        raise ValueError(
            f"the stream {stream.name} has no known end, but an oracle is trained on all "
            f"of its classes; {_OTHERWISE}"
        )
    for experience in experiences:
        if not hasattr(experience.dataset, "targets"):
            raise ValueError(
                f"the stream {stream.name} has no labels to train an oracle on; "
                f"{_OTHERWISE}"
            )
        _check_not_negative(dataset_classes(experience.dataset))
        image = image_of(experience.dataset.eval()[0])
        if not (isinstance(image, Tensor) and image.ndim == 3 and _in_range(image)):
            raise ValueError(
                "an oracle is trained on tensors (C, H, W) in [-1, 1], but the images of "
                f"the stream {stream.name} are not; bring the benchmark to model space "
                "with to_model_space"
            )
        if min(image.shape[1:]) < _LEAST_SIDE:
            raise ValueError(
                f"an oracle needs images of {_LEAST_SIDE}x{_LEAST_SIDE} or more, but those "
                f"of the stream {stream.name} are {image.shape[1]}x{image.shape[2]}; give "
                "your own classifier"
            )


def _in_range(image: Tensor) -> bool:
    return image.is_floating_point() and bool(torch.all(image.abs() <= 1))
