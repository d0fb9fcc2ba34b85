"""The kernel inception distance of generated images, as an Avalanche metric."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.kid import poly_mmd

from avalanche_gd.checks import check_integer
from avalanche_gd.metrics.feature_metric import FeatureChoice, FeatureMetric
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling
from avalanche_gd.metrics.trained import ExperienceKey


def kernel_distance(
    real: Tensor, features: Tensor, *, subsets: int, subset_size: int, seed: int = 0
) -> float:
    """KID (arXiv 1801.01401, section 4) by torchmetrics, in float64.

    It is an unbiased estimate of the squared maximum mean discrepancy with the kernel
    ``k(x, y) = (x . y / D + 1)^3``: for random subsets of m images, the mean over them of::

        sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m - 1))
            - 2 sum_{i, j} k(x_i, y_j) / m^2

    For equal distributions it is 0 on average, so it can be below 0.

    :param real: the features of real images, ``(N, D)``.
    :param features: the features of generated images, ``(M, D)``.
    :param subsets: how many subsets are drawn, from the real and the generated images.
    :param subset_size: m, from 2 to N and M.
    :param seed: decides the subsets.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(one: Tensor) -> Tensor:
        chosen = torch.randperm(len(one), generator=generator)[:subset_size]
        return one[chosen.to(one.device)].double()

    values = [poly_mmd(drawn(real), drawn(features)) for _ in range(subsets)]
    return float(torch.stack(values).mean())


class KID(FeatureMetric):
    """See :func:`kid_metrics`."""

    value_names = frozenset({"KID_Stream"})

    def __init__(
        self,
        sampling: Sampling,
        choice: FeatureChoice,
        *,
        subsets: int,
        subset_size: int,
        seed: int,
    ):
        self.subsets = check_integer("subsets", subsets)
        self.subset_size = check_integer("subset_size", subset_size, 2)
        self.seed = check_integer("seed", seed, 0)
        hint = "give more, or leave KID out (in Python also: a smaller subset_size)"
        super().__init__(sampling, choice, least_images=subset_size, hint=hint)

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """KID over the evaluated experiences."""
        compared = self.compared(strategy, experiences)
        if compared is None:
            return {"KID_Stream": float("nan")}
        value = kernel_distance(
            *compared,
            subsets=self.subsets,
            subset_size=self.subset_size,
            seed=self.seed,
        )
        return {"KID_Stream": value}


def kid_metrics(
    *,
    subsets: int = 100,
    subset_size: int = 100,
    seed: int = 0,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """KID against the evaluated experiences that were trained on so far.

    It is logged as ``KID_Stream/eval_phase/test_stream``: see :func:`kernel_distance`.
    Unlike FID it has no bias, even with few images. It is NaN until ``subset_size`` real
    images were evaluated.

    :param subsets: how many subsets are drawn.
    :param subset_size: images of each; papers take 1,000, which only lowers the noise.
    :param seed: decides the subsets, the same in every evaluation.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: for this and for ``weights_path``, ``oracle`` and ``benchmark`` see
        :func:`~avalanche_gd.metrics.fid_metrics`. Metrics with the same module compute its
        features once.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: for numbers out of range, if a subset is larger than the number of
        generated images, or as in ``fid_metrics``. Before training, if it is larger than
        the test stream.
    :raises TypeError: as in ``fid_metrics``.
    """
    choice = FeatureChoice.of(features, weights_path, oracle, benchmark)
    numbers = dict(subsets=subsets, subset_size=subset_size, seed=seed)
    return [KID(sampling or Sampling(), choice, **numbers)]
