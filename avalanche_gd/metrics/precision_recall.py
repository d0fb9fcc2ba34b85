"""Precision, recall, density and coverage of generated images, as an Avalanche metric."""

import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from avalanche_gd.checks import check_integer
from avalanche_gd.metrics.feature_metric import FeatureChoice, FeatureMetric
from avalanche_gd.metrics.plugin import GenerationMetric
from avalanche_gd.metrics.shared_images import Sampling
from avalanche_gd.metrics.trained import ExperienceKey

NAMES = ("Precision", "Recall", "Density", "Coverage")


def precision_recall(real: Tensor, features: Tensor, nearest_k: int) -> dict[str, float]:
    """Precision and recall (arXiv 1904.06991), density and coverage (2002.09797) by prdc.

    ``B_k(x)`` is the ball around x that reaches its k-th nearest neighbour: for a real
    image among the N real ``x_i``, for a generated one among the M generated ``y_j``::

        precision = the share of y_j that are in some B_k(x_i)
        recall    = the share of x_i that are in some B_k(y_j)
        density   = 1 / (k M) times the number of pairs with y_j in B_k(x_i)
        coverage  = the share of x_i with some y_j in B_k(x_i)

    All are 0 or more; all but density are 1 or less.

    :param real: the features of real images, ``(N, D)``.
    :param features: the features of generated images, ``(M, D)``.
    :param nearest_k: k, up to N - 2 and M - 2. Memory grows with N times M and N times N.
    """
    compute = importlib.import_module("prdc").compute_prdc
    arrays = [_as_array(side) for side in (real, features)]
    with redirect_stdout(io.StringIO()):  # prdc prints
        found = compute(*arrays, nearest_k=nearest_k)
    return {name: float(found[name.lower()]) for name in NAMES}


def _as_array(features: Tensor) -> NDArray[Any]:
    """Features in float32, or in float64 if they are: NumPy has no bfloat16."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return features.to("cpu", dtype).numpy()


class PrecisionRecall(FeatureMetric):
    """See :func:`precision_recall_metrics`."""

    value_names = frozenset({"Precision_Stream"})

    def __init__(self, sampling: Sampling, choice: FeatureChoice, *, nearest_k: int):
        self.nearest_k = check_integer("nearest_k", nearest_k)
        super().__init__(
            sampling,
            choice,
            least_images=nearest_k + 2,
            hint="give more, or a smaller nearest_k",
        )

    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """The four values over the evaluated experiences."""
        compared = self.compared(strategy, experiences)
        if compared is None:
            return {f"{name}_Stream": float("nan") for name in NAMES}
        values = precision_recall(*compared, self.nearest_k)
        return {f"{name}_Stream": value for name, value in values.items()}


def precision_recall_metrics(
    *,
    nearest_k: int = 5,
    sampling: Sampling | None = None,
    features: Any = "oracle",
    weights_path: str | Path | None = None,
    oracle: nn.Module | None = None,
    benchmark: Any = None,
) -> list[GenerationMetric]:
    """Precision, recall, density and coverage: how good and how varied images are.

    They are logged as ``Precision_Stream/eval_phase/test_stream``, and in the same way
    ``Recall``, ``Density`` and ``Coverage``, over the evaluated experiences that were
    trained on so far: see :func:`precision_recall`. A class that is never generated lowers
    recall and coverage. Blur lowers precision in some features (an oracle's on digits,
    MobileNetV2's on Fashion-MNIST) and raises it in others (MobileNetV2's on CIFAR-10). The
    values depend on how many images there are: compare them for the same numbers. They are
    NaN until ``nearest_k + 2`` real images were evaluated.

    :param nearest_k: k, the neighbour that a ball reaches.
    :param sampling: how images are generated; the default is 2,000 by 10 DDIM steps.
    :param features: for this and for ``weights_path``, ``oracle`` and ``benchmark`` see
        :func:`~avalanche_gd.metrics.fid_metrics`. Metrics with the same module compute its
        features once.
    :return: the metrics, for an ``EvaluationPlugin``.
    :raises ValueError: if prdc is not installed, for fewer than 1 neighbour, for fewer than
        ``nearest_k + 2`` generated images, or as in ``fid_metrics``. Before training, if
        the test stream has fewer.
    :raises TypeError: as in ``fid_metrics``.
    """
    try:
        importlib.import_module("prdc")
    except ModuleNotFoundError as error:
        raise ValueError(
            "precision_recall_metrics need prdc: pip install 'avalanche-gd[prdc]'"
        ) from error
    choice = FeatureChoice.of(features, weights_path, oracle, benchmark)
    return [PrecisionRecall(sampling or Sampling(), choice, nearest_k=nearest_k)]
