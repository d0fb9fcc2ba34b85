"""The classification accuracy score of generated images, as an Avalanche metric."""

from collections.abc import Callable
from typing import Any

import torch
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_gd.checks import check_integer
from avalanche_gd.data.model_space import dataset_classes, has_label
from avalanche_gd.metrics.oracle_choice import (
    OracleChoice,
    check_logits,
    stream_classes,
)
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import (
    Sampling,
    SharedImages,
    classifier_labels,
    is_conditioned,
)
from avalanche_gd.metrics.trained import ExperienceKey, experience_key
from avalanche_gd.metrics.trying import first_image, trying
from avalanche_gd.models.classifier import SmallCNN
from avalanche_gd.models.random_state import seeded

MakeClassifier = Callable[[tuple[int, int, int], int], nn.Module]
"""A function that makes a new classifier from ``(C, H, W)`` and the number of classes."""

_BATCH_SIZE = 128
_LEARNING_RATE = 1e-3


def trained_classifier(
    make: MakeClassifier, images: Tensor, labels: Tensor, *, steps: int, seed: int = 0
) -> nn.Module:
    """Make a classifier and train it by Adam (1e-3) on batches of 128.

    :param images: in model space, ``(N, C, H, W)``.
    :param labels: their classes, ``(N,)``, from 0.
    :param steps: how many Adam steps.
    :param seed: decides the initial weights and the batches. The global random state does
        not change.
    :return: in evaluation mode, on the images' device.
    """
    shape = (images.shape[1], images.shape[2], images.shape[3])
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed, images.device), torch.enable_grad():
        classifier = make(shape, int(labels.max()) + 1).to(images.device)
        optimizer = torch.optim.Adam(classifier.parameters(), lr=_LEARNING_RATE)
        for _ in range(steps):
            chosen = torch.randint(len(images), (_BATCH_SIZE,), generator=generator)
            batch = chosen.to(images.device)
            optimizer.zero_grad()
            F.cross_entropy(classifier(images[batch]), labels[batch]).backward()
            optimizer.step()
    return classifier.eval()


class ClassificationAccuracy(GenerationMetric):
    """See :func:`classification_accuracy_metrics`."""

    value_names = frozenset({"CAS_Stream"})
    without_labels = "remove classification_accuracy_metrics"

    def __init__(
        self,
        sampling: Sampling,
        oracle: OracleChoice,
        *,
        steps: int,
        seed: int,
        make_classifier: MakeClassifier,
    ):
        super().__init__(sampling)
        if isinstance(make_classifier, nn.Module) or not callable(make_classifier):
            raise TypeError(
                "make_classifier must be a function or a class that makes a module from "
                f"(C, H, W) and the number of classes, got {make_classifier!r}"
            )
        self.steps = check_integer("steps", steps)
        self.seed = check_integer("seed", seed, 0)
        self._oracle, self._make = oracle, make_classifier
        # Images and labels by batch.
        self._real: dict[ExperienceKey, list[tuple[Tensor, Tensor]]] = {}

    def check(self, strategy: Any) -> None:
        """Raise ValueError if there is nothing that labels samples, or learns of them."""
        if not is_conditioned(strategy.model):
            self._oracle.check_labels(strategy)
        image = first_image(strategy.experience)
        classes = (
            dataset_classes(strategy.experience.dataset)
            if is_conditioned(strategy.model)
            else stream_classes(strategy.experience)
        )
        if image is None or image.ndim != 3 or not classes:
            return
        count = max(classes) + 1
        shape = (image.shape[0], image.shape[1], image.shape[2])
        with seeded(self.seed), trying("make_classifier", image):
            classifier = self._make(shape, count)
        if not isinstance(classifier, nn.Module):
            kind = type(classifier).__name__
            raise ValueError(f"make_classifier must make a module, not a {kind}")
        given = image.cpu().float().expand(2, *shape).clone()
        check_logits("what make_classifier makes", classifier.cpu(), given, count)
        labels = torch.tensor([0, count - 1])
        with trying("training what make_classifier makes", image):
            trained_classifier(self._make, given, labels, steps=1, seed=self.seed)

    def is_labelled(self, dataset: Any) -> bool:
        """Whether the items of a dataset have labels."""
        return has_label(dataset.eval()[0], dataset)

    def before_training_exp(self, strategy: Any) -> None:
        """Release real images of an evaluation that was not finished."""
        self._real = {}
        super().before_training_exp(strategy)

    def before_eval(self, strategy: Any) -> None:
        """Start from zero."""
        super().before_eval(strategy)
        self._real = {}

    def before_eval_exp(self, strategy: Any) -> None:
        """Count an experience that is evaluated again once."""
        super().before_eval_exp(strategy)
        self._real.pop(experience_key(strategy.experience), None)

    def after_eval_iteration(self, strategy: Any) -> None:
        """Remember a batch of real images."""
        key = experience_key(strategy.experience)
        if key in self._counted:
            self._real.setdefault(key, []).append((strategy.mb_x, strategy.mb_y))

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the accuracy, and release the real images."""
        values = super().after_eval(strategy)
        self._real = {}
        return values

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """The accuracy over the evaluated experiences."""
        shared, size = SharedImages.of(strategy), self.sampling.batch_size
        images, labels = shared.samples(strategy.model, self.sampling)
        if labels is None:
            first = self._counted[experiences[0]]
            labels = self._oracle.labels(strategy, first, images, size)
        classifier = trained_classifier(
            self._make, images.float(), labels, steps=self.steps, seed=self.seed
        )
        batches = [batch for key in experiences for batch in self._real[key]]
        real, true = (torch.cat(parts) for parts in zip(*batches, strict=True))
        right = classifier_labels(classifier, real.float(), size) == true
        return {"CAS_Stream": float(right.double().mean())}


def classification_accuracy_metrics(
    *,
    steps: int = 500,
    seed: int = 0,
    make_classifier: MakeClassifier = SmallCNN,
    sampling: Sampling | None = None,
    classifier: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """The classification accuracy score (arXiv 1905.10887): are samples as good as data?

    It is logged as ``CAS_Stream/eval_phase/test_stream``: the accuracy, from 0 to 1, of a
    new classifier that is trained on generated images only, on the real images of the
    evaluated experiences that were trained on so far. A generated image has the class on
    which it was conditioned; without conditioning an oracle labels it, and then the score
    depends on the oracle too.

    :param steps: how many Adam steps the new classifier may spend in each evaluation, with
        batches of 128 and learning rate 1e-3.
    :param seed: decides its initial weights and its batches.
    :param make_classifier: makes it from ``(C, H, W)`` and the number of classes.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param classifier: labels generated images instead of the oracle, from images in model
        space to logits.
    :param benchmark: the oracle is trained on its ``train_stream``; None for the stream
        that the strategy is trained on.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for numbers out of range, if a classifier and a benchmark are given,
        or the benchmark is not in model space or gives other classes the same numbers.
        Before training, if images have no labels, also in the test stream, or are not in
        model space, if the classifier, or what ``make_classifier`` makes, fails on them or
        has fewer logits than there are classes, if the oracle does not fit the images, or
        if the model cannot be sampled so.
    :raises TypeError: if the classifier is not a module, the benchmark not a benchmark, the
        sampling not a :class:`~avalanche_gd.Sampling`, or ``make_classifier`` a module or
        not callable.
    """
    metric = ClassificationAccuracy(
        sampling or Sampling(),
        OracleChoice(classifier, benchmark),
        steps=steps,
        seed=seed,
        make_classifier=make_classifier,
    )
    return [metric]
