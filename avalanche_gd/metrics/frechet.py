"""The Frechet distance between the features of real and of generated images."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance


@dataclass(frozen=True)
class Moments:
    """The mean and the scatter of features, in float64."""

    mean: Tensor
    """``(D,)``."""
    scatter: Tensor
    """The sum of outer products of what is above the mean, ``(D, D)``."""
    count: int

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """The moments of features ``(N, D)``."""
        features = features.double()
        mean = features.sum(dim=0) / max(len(features), 1)
        above = features - mean
        return cls(mean, above.T @ above, len(features))

    def to(self, device: torch.device) -> "Moments":
        """The same moments on a device."""
        return Moments(self.mean.to(device), self.scatter.to(device), self.count)

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both together (Chan, Golub and LeVeque, 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        between = torch.outer(apart, apart) * (self.count * other.count / count)
        return Moments(
            self.mean + apart * (other.count / count),
            self.scatter + other.scatter + between,
            count,
        )


class _Identity(nn.Identity):
    """Passes features to torchmetrics as they are."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


def frechet_distance(real: Moments, features: Tensor) -> float:
    """FID by torchmetrics between real moments and generated features, in float64.

    ``|mu - mu_g|^2 + tr(S + S_g - 2 (S S_g)^(1/2))`` (arXiv 1706.08500, equation 6).

    :param real: the moments of real features.
    :param features: the features of generated images, ``(N, D)``.
    :return: the distance; NaN for fewer than 2 real or 2 generated images.
    """
    if real.count < 2 or len(features) < 2:
        return float("nan")
    fid = FrechetInceptionDistance(
        _Identity(features.shape[1]),
        normalize=True,
        sync_on_compute=False,  # with several processes, each one has all features
    )
    fid, real = fid.to(features.device), real.to(features.device)
    # Around the mean of the real ones, so that a large one costs no digits.
    fid.real_features_cov_sum += real.scatter
    fid.real_features_num_samples += real.count
    fid.update(features.double() - real.mean, real=False)
    return float(fid.compute())
