"""What a denoiser predicts for noisy images: the noise, the image, v, or the velocity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avalanche_gd.checks import check_number
from avalanche_gd.models.denoising import check_timesteps

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow_prediction")
"""What a denoiser can predict, by diffusers' names: eps, x_0, v = a eps - b x_0, and the
velocity eps - x_0."""


def is_flow(noise_scheduler: Any) -> bool:
    """True for a diffusers scheduler of flow matching."""
    config = getattr(noise_scheduler, "config", None)
    if not isinstance(config, Mapping):
        return False
    interpolates = hasattr(noise_scheduler, "scale_noise") or config.get("use_flow_sigmas")
    return bool(interpolates) and "num_train_timesteps" in config


def flow_shift(config: Mapping[str, Any]) -> float:
    """The shift of the noise levels in a configuration of flow matching.

    :raises ValueError: unless it is a finite number above 0.
    """
    shift = config.get("shift", config.get("flow_shift", 1.0))
    return check_number("shift", shift, "above 0")


class NoiseProcess:
    """``x_t = a x_0 + b eps``, and what a denoiser predicts there.

    DDPM (arXiv 2006.11239, equation 4): ``a^2 = alpha_bar[t]`` and ``b^2 = 1 - a^2``, from
    the scheduler's ``alphas_cumprod`` and nothing else.

    Flow matching (arXiv 2209.03003, equation 1, with image and noise exchanged):
    ``a = 1 - sigma`` and ``b = sigma``, with ``sigma = (t + 1) / T`` or, with the
    scheduler's shift s, ``s sigma / (1 + (s - 1) sigma)`` (arXiv 2403.03206, equation 23).
    At T - 1, x_t is pure noise.

    v is that of progressive distillation (arXiv 2202.00512, section 4).

    :param noise_scheduler: a diffusers scheduler with ``alphas_cumprod``, or one of flow
        matching. Its ``prediction_type`` decides what is predicted; without one, it is the
        noise, or in flow matching the velocity.
    :raises TypeError: if it is neither.
    :raises ValueError: for a ``prediction_type`` that is not in :data:`PREDICTION_TYPES`,
        the velocity with ``alphas_cumprod`` (diffusers cannot sample by it), or the noise
        in flow matching (at T - 1 it tells nothing about the image); for a shift that is
        not above 0, or ``alphas_cumprod`` that are not T numbers, falling from below 1 to 0
        or above. (0, as with zero terminal SNR, only if not the noise is predicted.)
    """

    def __init__(self, noise_scheduler: Any):
        flow, name = is_flow(noise_scheduler), type(noise_scheduler).__name__
        alpha_bar = getattr(noise_scheduler, "alphas_cumprod", None)
        if not flow and alpha_bar is None:
            raise TypeError(
                "noise_scheduler must be a diffusers scheduler of flow matching, or one "
                f"with alphas_cumprod, not {name}"
            )
        config = getattr(noise_scheduler, "config", None)
        if not isinstance(config, Mapping):
            raise TypeError(
                "noise_scheduler must be a scheduler of diffusers with its config, such as "
                f"ddim_scheduler(), not {name}"
            )
        usual, other = "epsilon", "flow_prediction"
        if flow:
            usual, other = other, usual
        known = [kind for kind in PREDICTION_TYPES if kind != other]
        self.prediction_type: str = config.get("prediction_type", usual)
        if self.prediction_type not in known:
            raise ValueError(
                f"{name} has no prediction_type {self.prediction_type!r}; choose from "
                f"{', '.join(known)}"
            )
        self.clips = not flow
        """True if a predicted image is clipped to model space, as diffusers' DDIM does."""
        if flow:
            sigma = _sigmas(config)
            alpha_bar, beta_bar = (1 - sigma) ** 2, sigma**2
        else:
            alpha_bar = torch.as_tensor(alpha_bar).double()
            beta_bar = 1 - alpha_bar
        self.alpha_bar: Tensor = alpha_bar
        """``a^2`` of the timesteps, ``(T,)``, falling, in float64."""
        self.beta_bar: Tensor = beta_bar
        """``b^2``."""
        self._check(config.get("num_train_timesteps"))

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps."""
        return len(self.alpha_bar)

    def is_like(self, other: "NoiseProcess") -> bool:
        """True if both add the same noise and predict the same quantity."""
        if self is other:
            return True
        if self.num_timesteps != other.num_timesteps:
            return False
        timesteps = torch.arange(self.num_timesteps)
        image = torch.ones(len(timesteps), 1, 1, 1)
        probe = image, torch.zeros_like(image), timesteps
        return torch.allclose(self.add_noise(*probe), other.add_noise(*probe)) and (
            torch.allclose(self.target(*probe), other.target(*probe))
        )

    def trailing_timesteps(self, steps: int) -> list[int]:
        """k timesteps, evenly spaced down from T - 1: for k = 2 and T = 1000, 999 and 499.

        This is diffusers' spacing ``"trailing"`` (arXiv 2305.08891, table 2), without the
        -1 in which that ends for some k, such as 61.
        """
        count = self.num_timesteps
        ends = np.arange(count, 0, -count / steps)[:steps]  # for k = 61, arange adds a 0
        return (ends.round().astype(int) - 1).tolist()

    def coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """a and b at timesteps, each ``(N, 1, 1, 1)``, of the type of ``like``.

        :param timesteps: integers in ``[0, T)``, ``(N,)``, or a single one.
        :raises ValueError: for others, where they can be read
            (:func:`~avalanche_gd.models.denoising.check_timesteps`), or if ``like`` is not
            float.
        """
        timesteps = torch.as_tensor(timesteps).reshape(-1)
        check_timesteps("timesteps", timesteps, len(timesteps), self.num_timesteps)
        if not like.is_floating_point():
            raise ValueError(f"images must be float, not {like.dtype}")
        a_squared = self._at(self.alpha_bar, timesteps, like)
        return a_squared.sqrt(), self._at(self.beta_bar, timesteps, like).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t = a x_0 + b eps``.

        :param x0: clean images, ``(N, C, H, W)``.
        :param noise: eps, standard normal, of the same shape.
        :param timesteps: t, ``(N,)``, in ``[0, T)``.
        """
        a, b = self.coefficients(timesteps, x0)
        return a * x0 + b * noise

    def target(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a denoiser should predict at ``add_noise(x0, noise, timesteps)``."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return x0
        if self.prediction_type == "flow_prediction":
            return noise - x0
        a, b = self.coefficients(timesteps, x0)
        return a * noise - b * x0

    def image_and_noise(
        self, x_t: Tensor, output: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``x_0`` and ``eps`` according to a denoiser's output at ``x_t``."""
        a, b = self.coefficients(timesteps, x_t)
        if self.prediction_type == "epsilon":
            return (x_t - b * output) / a, output
        if self.prediction_type == "sample":
            return output, (x_t - a * output) / b
        if self.prediction_type == "flow_prediction":
            return x_t - b * output, x_t + a * output  # as a + b = 1
        length = self._at(self.alpha_bar + self.beta_bar, timesteps, x_t)
        return (a * x_t - b * output) / length, (a * output + b * x_t) / length

    def clipped(self, x_t: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        """A denoiser's output at ``x_t``, its image clipped to model space.

        Where the image is in model space, and in flow matching, which does not clip, it is
        the output itself.
        """
        if not self.clips:
            return output
        image, _ = self.image_and_noise(x_t, output, timesteps)
        x0 = image.clamp(-1, 1)
        a, b = self.coefficients(timesteps, x_t)
        kept = self.target(x0, (x_t - a * x0) / b, timesteps)
        return torch.where(x0 == image, output, kept)

    def velocity(self, x_t: Tensor, output: Tensor, timesteps: Tensor) -> Tensor:
        """``eps - x_0`` according to a denoiser's output at ``x_t``."""
        if self.prediction_type == "flow_prediction":
            return output
        x0, noise = self.image_and_noise(x_t, output, timesteps)
        return noise - x0

    def ddim_step(self, x_t: Tensor, output: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """One deterministic DDIM step, from and to a timestep of each sample's own.

        (arXiv 2010.02502, equation 12 with sigma = 0, the predicted image clipped to model
        space.) In flow matching, which does not clip, it is a step of Euler's method.

        :param x_t: noisy images at timesteps ``t``, ``(N, C, H, W)``.
        :param output: the denoiser's output there.
        :param t: ``(N,)``.
        :param end: the timesteps to go to, ``(N,)``, in ``[0, T)``.
        """
        x0, noise = self.image_and_noise(x_t, output, t)
        return self.add_noise(x0.clamp(-1, 1) if self.clips else x0, noise, end)

    def min_snr_weights(self, gamma: float) -> Tensor:
        """The weight of a squared error at each timestep, ``(T,)``.

        It is ``min(SNR, gamma)`` on the image (min-SNR, arXiv 2303.09556, section 3.4), so
        ``min(SNR, gamma) / SNR`` on the noise, ``min(SNR, gamma) / (SNR + 1)`` on v (in
        flow matching, that divided by ``a^2 + b^2``) and ``min(SNR, gamma) b^2`` on the
        velocity, with ``SNR = a^2 / b^2``.

        :param gamma: above 0.
        :raises ValueError: unless it is.
        """
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        snr = self.alpha_bar / self.beta_bar
        if self.prediction_type == "epsilon":
            weights = (gamma / snr).clamp(max=1)
        else:
            weights = snr.clamp(max=gamma)
            if self.prediction_type == "v_prediction":
                weights = weights / (snr + 1) / (self.alpha_bar + self.beta_bar)
            if self.prediction_type == "flow_prediction":
                weights = weights * self.beta_bar
        return weights.to(torch.float32)

    @staticmethod
    def _at(values: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
        """The values at some timesteps, with as many dimensions as ``like``."""
        return values.to(like)[torch.as_tensor(timesteps).reshape(-1)].view(
            -1, *[1] * (like.ndim - 1)
        )

    def _check(self, num_train_timesteps: int | None) -> None:
        """Raise ValueError unless the noise grows with the timestep."""
        alpha_bar, count = self.alpha_bar, self.num_timesteps
        if num_train_timesteps not in (None, count):
            raise ValueError(
                f"the scheduler has {count} betas, but num_train_timesteps is "
                f"{num_train_timesteps}; make it with num_train_timesteps={count}"
            )
        # Some of diffusers' schedulers replace a last 0 by 2^-24.
        falls = bool((alpha_bar.diff() < 1e-6).all())
        if not (falls and alpha_bar[0] < 1 and alpha_bar[-1] >= 0):
            raise ValueError(
                "alphas_cumprod must fall, from below 1 to 0 or above; choose betas "
                "between 0 and 1"
            )
        if alpha_bar[-1] == 0 and self.prediction_type == "epsilon":
            raise ValueError(
                "with zero terminal SNR, the noise tells nothing about the image at T - 1; "
                'choose prediction_type="v_prediction" or "sample", or betas whose last '
                "alphas_cumprod is above 0"
            )


def _sigmas(config: Mapping[str, Any]) -> Tensor:
    """The noise levels of flow matching, ``(T,)``, up to 1."""
    count, shift = config["num_train_timesteps"], flow_shift(config)
    sigma = torch.arange(1, count + 1, dtype=torch.float64) / count
    return shift * sigma / (1 + (shift - 1) * sigma)
