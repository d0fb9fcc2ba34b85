"""How evenly a generator covers the classes, as an Avalanche metric."""

from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.data.model_space import has_label
from avalanche_gd.metrics.oracle_choice import OracleChoice
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling, SharedImages
from avalanche_gd.metrics.trained import ExperienceKey, experience_key

_EPSILON = 1e-8
_ROUNDING = 1e-4  # how far from 1 the sum of ratios may be


def kl_divergence(true: Tensor, generated: Tensor) -> float:
    """``KLD = sum p log(p / q)``, with 1e-8 added to p and q.

    :param true: p, the true ratios of the classes, ``(num_classes,)``.
    :param generated: q, their ratios among the generated images, ``(num_classes,)``.
    :raises ValueError: unless they are of one shape, 0 or more, and their sums are 1.
    """
    p, q = _ratios(true, generated)
    return float((p * ((p + _EPSILON) / (q + _EPSILON)).log()).sum())


def absolute_ratio_difference(true: Tensor, generated: Tensor) -> float:
    """``ARD = 1/2 sum |p - q|``, from 0 to 1; p and q as in :func:`kl_divergence`.

    :raises ValueError: as in :func:`kl_divergence`.
    """
    p, q = _ratios(true, generated)
    return float((p - q).abs().sum() / 2)


def _ratios(true: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """The ratios in float64; raise ValueError if they are none, or do not fit."""
    for name, ratios in {"true": true, "generated": generated}.items():
        is_list = ratios.ndim == 1 and len(ratios) > 0
        sum_is_1 = abs(float(ratios.double().sum()) - 1) <= _ROUNDING
        if not (is_list and sum_is_1 and ratios.min() >= 0):
            raise ValueError(
                f"{name} must be ratios of classes, (num_classes,), 0 or more with the sum "
                f"1, such as counts / counts.sum(), got {tuple(ratios.shape)} with the sum "
                f"{float(ratios.double().sum()):g}"
            )
    if len(true) != len(generated):
        raise ValueError(
            f"true and generated must be of as many classes, got {len(true)} and "
            f"{len(generated)}"
        )
    return true.double(), generated.double()


class ClassBalance(GenerationMetric):
    """See :func:`class_balance_metrics`."""

    value_names = frozenset({"KLD_Stream"})
    without_labels = "remove class_balance_metrics"

    def __init__(self, sampling: Sampling, *, oracle: OracleChoice, histogram: bool):
        super().__init__(sampling)
        self._histogram = histogram
        self._oracle = oracle
        self._labels: dict[ExperienceKey, list[Tensor]] = {}
        self.classes_logged = 0
        """How many classes the histogram had so far, for a checkpoint."""

    def check(self, strategy: Any) -> None:
        """Raise ValueError if there is no classifier."""
        self._oracle.check_labels(strategy)

    def is_labelled(self, dataset: Any) -> bool:
        """Whether the items of a dataset have labels."""
        return has_label(dataset.eval()[0], dataset)

    def before_eval(self, strategy: Any) -> None:
        """Start from zero."""
        super().before_eval(strategy)
        self._labels = {}

    def before_eval_exp(self, strategy: Any) -> None:
        """Count an experience that is evaluated again once."""
        super().before_eval_exp(strategy)
        self._labels.pop(experience_key(strategy.experience), None)

    def after_eval_iteration(self, strategy: Any) -> None:
        """Count the true classes."""
        key = experience_key(strategy.experience)
        if key in self._counted:
            self._labels.setdefault(key, []).append(strategy.mb_y)

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """KLD and ARD over the evaluated experiences."""
        images = SharedImages.of(strategy).images(strategy.model, self.sampling)
        counted, size = self._counted[experiences[0]], self.sampling.batch_size
        generated = self._oracle.labels(strategy, counted, images, size)
        true = torch.cat([part for key in experiences for part in self._labels[key]])
        # What was logged once is logged again, also if there is none of that class.
        most = int(torch.cat([true, generated]).max()) + 1
        self.classes_logged = max(self.classes_logged, most)
        p, q = (
            torch.bincount(labels, minlength=self.classes_logged).double() / len(labels)
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
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """KLD and ARD between the classes of real and of generated images.

    They are logged as ``KLD_Stream/eval_phase/test_stream`` and ``ARD_Stream/...``, over
    the evaluated experiences that were trained on so far (arXiv 2311.14028, section 4); 0
    is perfect. Where a class is nearly missing, KLD hangs on single images: of ten equal
    classes, one that has 1 image in 10,000 adds 0.69, one that has none 1.61. ARD does not.

    :param histogram: also log the ratio of each class among the generated images, as
        ``ClassRatio_Stream/eval_phase/test_stream/Class003``.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param classifier: labels the generated images, from images in model space to logits;
        None for an oracle, a classifier of the whole training stream.
    :param benchmark: the oracle is trained on its ``train_stream``; None for the stream
        that the strategy is trained on.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for both a classifier and a benchmark, or if the benchmark is not in
        model space or gives other classes the same numbers. Before training, if images have
        no labels, also in the test stream, if the classifier or the oracle does not fit
        them, or if the model cannot be sampled so.
    :raises TypeError: if the classifier is not a module, the benchmark not a benchmark or
        the sampling not a :class:`~avalanche_gd.Sampling`.
    """
    oracle = OracleChoice(classifier, benchmark)
    return [ClassBalance(sampling or Sampling(), oracle=oracle, histogram=histogram)]
