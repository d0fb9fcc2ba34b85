"""How evenly a generator covers the classes, as an Avalanche metric."""

from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import (
    ExperienceKey,
    Sampling,
    SharedImages,
    classifier_labels,
    experience_key,
)

_EPSILON = 1e-8


def kl_divergence(true: Tensor, generated: Tensor) -> float:
    """``KLD = sum p log(p / q)``, with 1e-8 added to both.

    :param true: p, the classes' true ratios, ``(num_classes,)``.
    :param generated: q, their ratios among generated images, ``(num_classes,)``.
    """
    p, q = true.double(), generated.double()
    return float((p * ((p + _EPSILON) / (q + _EPSILON)).log()).sum())


def absolute_ratio_difference(true: Tensor, generated: Tensor) -> float:
    """``ARD = 1/2 sum |p - q|``, from 0 to 1, of ratios as :func:`kl_divergence` takes."""
    return float((true.double() - generated.double()).abs().sum() / 2)


class ClassBalance(GenerationMetric):
    """See :func:`class_balance_metrics`."""

    def __init__(
        self, sampling: Sampling, *, classifier: nn.Module | None, histogram: bool
    ):
        super().__init__(sampling)
        self._histogram = histogram
        self._classifier = None if classifier is None else classifier.eval()
        self._labels: dict[ExperienceKey, list[Tensor]] = {}

    def before_eval_exp(self, strategy: Any) -> None:
        """Begin to count the true classes."""
        super().before_eval_exp(strategy)
        self._labels[experience_key(strategy.experience)] = []

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the true classes."""
        self._labels[experience_key(strategy.experience)].append(strategy.mb_y)

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """KLD and ARD over the evaluated experiences."""
        generation = SharedImages.of(strategy)
        classifier = self._classifier or generation.oracle(strategy)
        images = generation.images(strategy.model, self.sampling)
        generated = classifier_labels(
            classifier.to(strategy.device), images, self.sampling.batch_size
        )
        true = torch.cat([part for key in experiences for part in self._labels[key]])
        num_classes = int(torch.cat([true, generated]).max()) + 1
        p, q = (
            torch.bincount(labels, minlength=num_classes) / len(labels)
            for labels in (true, generated)
        )
        values = {
            "KLD_Stream": kl_divergence(p, q),
            "ARD_Stream": absolute_ratio_difference(p, q),
        }
        if self._histogram:
            values |= {
                f"ClassRatio_Stream/Class{label:03d}": ratio
                for label, ratio in enumerate(q.tolist())
            }
        return values


def class_balance_metrics(
    *,
    histogram: bool = False,
    sampling: Sampling | None = None,
    classifier: nn.Module | None = None,
) -> list[GenerationMetric]:
    """KLD and ARD between true classes and those of generated images.

    As ``KLD_Stream/eval_phase/test_stream`` and ``ARD_Stream/...``, over the classes
    trained on so far (arXiv 2311.14028, section 4): 0 is perfect.

    :param histogram: also the ratio of each class among the generated images, as
        ``ClassRatio_Stream/eval_phase/test_stream/Class003``.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param classifier: labels generated images, from images in model space to logits;
        None for the oracle of the benchmark.
    :return: the metrics, for an ``EvaluationPlugin``.
    """
    return [
        ClassBalance(sampling or Sampling(), classifier=classifier, histogram=histogram)
    ]
