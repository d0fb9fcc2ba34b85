"""What a denoiser predicts of noisy images: the noise, the image, or v."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
"""What a denoiser may predict, by diffusers' names: eps, x_0, and v = a eps - b x_0."""


class NoiseProcess:
    """``x_t = a x_0 + b eps``, and what a denoiser predicts of it.

    With ``a = sqrt(alpha_bar[t])`` and ``b = sqrt(1 - alpha_bar[t])`` (DDPM, arXiv
    2006.11239, equation 4), of the scheduler's ``alphas_cumprod`` and nothing else.
    v is that of progressive distillation (arXiv 2202.00512, section 4).

    :param noise_scheduler: a diffusers scheduler with ``alphas_cumprod``.
    :raises TypeError: if it has none.
    :raises ValueError: for a ``prediction_type`` that is not in :data:`PREDICTION_TYPES`,
        or ``alphas_cumprod`` that are not T numbers falling from below 1 to 0 or above; 0,
        as with zero terminal SNR, only where the noise is not what is predicted.
    """

    def __init__(self, noise_scheduler: Any):
        alpha_bar = getattr(noise_scheduler, "alphas_cumprod", None)
        if alpha_bar is None:
            raise TypeError(
                "noise_scheduler must be a diffusers scheduler with alphas_cumprod, "
                f"not {type(noise_scheduler).__name__}"
            )
        config = noise_scheduler.config
        self.prediction_type: str = config.get("prediction_type", "epsilon")
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"no prediction_type {self.prediction_type!r}; "
                f"choose from {', '.join(PREDICTION_TYPES)}"
            )
        self.alpha_bar = torch.as_tensor(alpha_bar)
        """Of each timestep, ``(T,)``, falling."""
        self._check(config.get("num_train_timesteps"))

    @property
    def num_timesteps(self) -> int:
        """T."""
        return len(self.alpha_bar)

    def trailing_timesteps(self, steps: int) -> list[int]:
        """k timesteps evenly from T - 1 down: of k = 2 and T = 1000, 999 and 499.

        diffusers' spacing ``"trailing"`` (arXiv 2305.08891, table 2), rounded as there.
        """
        count = self.num_timesteps
        ends = np.arange(count, 0, -count / steps).round().astype(int)
        return (ends - 1).tolist()

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a and b of timesteps ``(N,)``, each ``(N, 1, 1, 1)``, of the type of ``like``."""
        alpha_bar = self.alpha_bar.to(like)[timesteps].view(-1, 1, 1, 1)
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t = a x_0 + b eps``.

        :param x0: clean images, ``(N, C, H, W)``.
        :param noise: eps, standard normal, of the same shape.
        :param timesteps: t, ``(N,)``, in ``[0, T)``.
        """
        a, b = self.coefficients(timesteps, x0)
        return a * x0 + b * noise

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a denoiser should predict at :meth:`add_noise` of the same."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        a, b = self.coefficients(timesteps, x0)
        return a * noise - b * x0

    def image_and_noise(
        self, x_t: Tensor, output: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``x_0`` and ``eps`` that a denoiser's output at ``x_t`` stands for."""
        a, b = self.coefficients(timesteps, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - b * output) / a, output
        if self.prediction_type == "sample":
            return output, (x_t - a * output) / b
        return a * x_t - b * output, a * output + b * x_t

    def ddim_step(self, x_t: Tensor, output: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """One deterministic DDIM step, from and to a timestep of each sample's own.

        (arXiv 2010.02502, equation 12 with sigma = 0, the predicted image clipped to model
        space.)

        :param x_t: noisy images at timesteps ``t``, ``(N, C, H, W)``.
        :param output: the denoiser's output there.
        :param t: ``(N,)``.
        :param end: the timesteps to go to, ``(N,)``, in ``[0, T)``.
        """
        x0, noise = self.image_and_noise(x_t, output, t)
        return self.add_noise(x0.clamp(-1, 1), noise, end)

    def min_snr_weights(self, gamma: float) -> Tensor:
        """The weight of a squared error at each timestep, ``(T,)``.

        ``min(SNR, gamma)`` on the image (min-SNR, arXiv 2303.09556, section 3.4), which is
        ``min(SNR, gamma) / SNR`` on the noise and ``min(SNR, gamma) / (SNR + 1)`` on v,
        with ``SNR = alpha_bar / (1 - alpha_bar)``.
        """
        alpha_bar = self.alpha_bar.double()
        snr = alpha_bar / (1 - alpha_bar)
        if self.prediction_type == "epsilon":
            weights = (gamma / snr).clamp(max=1)
        else:
            weights = snr.clamp(max=gamma)
            if self.prediction_type == "v_prediction":
                weights = weights / (snr + 1)
        return weights.to(torch.float32)

    def _check(self, num_train_timesteps: int | None) -> None:
        """Raise ValueError unless the noise grows from timestep to timestep."""
        alpha_bar, count = self.alpha_bar, self.num_timesteps
        if num_train_timesteps not in (None, count):
            raise ValueError(
                f"the scheduler has {count} betas, but num_train_timesteps is "
                f"{num_train_timesteps}; make it with num_train_timesteps={count}"
            )
        # Some of diffusers' schedulers put 2^-24 in the place of a last 0.
        falls = bool((alpha_bar.diff() < 1e-6).all())
        if not (falls and alpha_bar[0] < 1 and alpha_bar[-1] >= 0):
            raise ValueError(
                "alphas_cumprod must fall, from below 1 to 0 or above; choose betas "
                "between 0 and 1"
            )
        if alpha_bar[-1] == 0 and self.prediction_type == "epsilon":
            raise ValueError(
                "with zero terminal SNR, the noise says nothing of the image at T - 1; "
                'choose prediction_type="v_prediction" or "sample", or betas whose last '
                "alphas_cumprod is above 0"
            )
