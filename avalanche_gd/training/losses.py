"""The criterion of a diffusion model."""

from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.models.denoising import Denoising, NoisyImages

_REDUCTIONS = ("mean", "none")


class DenoisingLoss(nn.Module):
    """Mean squared error between a diffusion model's prediction and its target.

    ``L = E || eps - eps_theta(x_t, t) ||^2`` per pixel (arXiv 2006.11239, equation 14),
    as the criterion of an Avalanche strategy.

    With ``min_snr_gamma``, each sample is weighted by its timestep (min-SNR, arXiv
    2303.09556, section 3.4): with ``SNR(t) = alpha_bar[t] / (1 - alpha_bar[t])``, by
    ``min(SNR, gamma)`` on the image, which is ``min(SNR, gamma) / SNR`` on the noise and
    ``min(SNR, gamma) / (SNR + 1)`` on v. Distillation is weighted alike, as plugins use
    the strategy's criterion.

    :param reduction: ``"mean"`` over the batch, or ``"none"`` for one loss a sample;
        an attribute, as some of Avalanche's plugins change it for a while.
    :param min_snr_gamma: gamma, above 0; the authors' choice is 5. None for no weights.
    :param noise_scheduler: the model's, which knows alpha_bar; with ``min_snr_gamma``.
    :raises ValueError: for another reduction, a gamma of 0 or below, or one of gamma and
        scheduler without the other.
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        min_snr_gamma: float | None = None,
        noise_scheduler: Any = None,
    ):
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"no reduction {reduction!r}; choose from {', '.join(_REDUCTIONS)}"
            )
        if (min_snr_gamma is None) != (noise_scheduler is None):
            raise ValueError("min_snr_gamma and noise_scheduler go together; give both")
        if min_snr_gamma is not None and min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma must be above 0, got {min_snr_gamma}")
        self.reduction = reduction
        self._weights: Tensor | None = None
        if min_snr_gamma is not None:
            self._weights = _min_snr_weights(noise_scheduler, min_snr_gamma)

    def forward(
        self, denoising: Denoising | NoisyImages, y: Tensor | None = None
    ) -> Tensor:
        """The loss.

        :param denoising: the output of a :class:`~avalanche_gd.DiffusionModel`.
        :param y: the classes, ``(N,)``, which condition a conditioned model; else ignored.
        :return: a scalar, or ``(N,)`` with the reduction ``"none"``.
        :raises ValueError: if a conditioned model gets no labels, or such as do not fit.
        """
        if isinstance(denoising, NoisyImages):
            denoising = denoising.given(y)
        error = (denoising.prediction - denoising.target).square().flatten(1).mean(1)
        if self._weights is not None:
            self._weights = self._weights.to(error.device)
            error = error * self._weights[denoising.timesteps]
        return error if self.reduction == "none" else error.mean()


def _min_snr_weights(noise_scheduler: Any, gamma: float) -> Tensor:
    """The weight of each timestep, ``(T,)``."""
    alpha_bar = noise_scheduler.alphas_cumprod.double()
    snr = alpha_bar / (1 - alpha_bar)
    clamped = snr.clamp(max=gamma)
    by_target = {
        "epsilon": clamped / snr,
        "v_prediction": clamped / (snr + 1),
        "sample": clamped,
    }
    weights: Tensor = by_target[noise_scheduler.config.prediction_type]
    return weights.to(torch.float32)
