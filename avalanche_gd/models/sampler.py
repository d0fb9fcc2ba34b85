"""The reverse process of a diffusion model, by a diffusers scheduler."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""From noisy images ``(N, C, H, W)`` and timesteps ``(N,)`` to a prediction."""


class Sampler:
    """Samples with a scheduler of its own, as ``set_timesteps`` would change the model's.

    :param noise_scheduler: the model's.
    """

    def __init__(self, noise_scheduler: Any):
        self.scheduler = copy.deepcopy(noise_scheduler)
        accepted = inspect.signature(self.scheduler.step).parameters
        self._takes = {"eta", "generator"} & set(accepted)

    def timesteps(self, steps: int) -> list[int]:
        """The timesteps that sampling in k steps visits, from the noisiest on."""
        self.scheduler.set_timesteps(steps)
        return [int(t) for t in self.scheduler.timesteps]

    def reverse(
        self,
        denoise: Denoise,
        noise: Tensor,
        steps: int,
        eta: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """From noise to images in model space.

        :raises ValueError: for an eta that the scheduler does not know.
        """
        options = self._options(eta, generator)
        self.scheduler.set_timesteps(steps)
        x_t = noise * self.scheduler.init_noise_sigma
        for t in self.scheduler.timesteps:
            timesteps = torch.full((len(x_t),), int(t), device=x_t.device)
            prediction = denoise(self.scheduler.scale_model_input(x_t, t), timesteps)
            x_t = self.scheduler.step(prediction, t, x_t, **options).prev_sample
        return x_t.clamp(-1, 1)

    def ddim_step(self, denoise: Denoise, x_t: Tensor, t: int, end: Tensor) -> Tensor:
        """One deterministic DDIM step to a timestep of each sample's own.

        (arXiv 2010.02502, equation 12 with sigma = 0, the predicted image clipped to
        model space.)

        :param t: the timestep of ``x_t``.
        :param end: the timesteps to go to, ``(N,)``.
        """
        alpha_bar = self.scheduler.alphas_cumprod.to(x_t)
        a, a_end = alpha_bar[t], alpha_bar[end].view(-1, 1, 1, 1)
        output = denoise(x_t, torch.full((len(x_t),), t, device=x_t.device))
        prediction_type = self.scheduler.config.prediction_type
        if prediction_type == "epsilon":
            x0 = (x_t - (1 - a).sqrt() * output) / a.sqrt()
            noise = output
        elif prediction_type == "v_prediction":
            x0 = a.sqrt() * x_t - (1 - a).sqrt() * output
            noise = a.sqrt() * output + (1 - a).sqrt() * x_t
        else:
            x0 = output
            noise = (x_t - a.sqrt() * x0) / (1 - a).sqrt()
        return a_end.sqrt() * x0.clamp(-1, 1) + (1 - a_end).sqrt() * noise

    def _options(self, eta: float, generator: torch.Generator | None) -> dict[str, Any]:
        options: dict[str, Any] = {"eta": eta, "generator": generator}
        if eta and "eta" not in self._takes:
            raise ValueError(
                f"{type(self.scheduler).__name__} does not know eta; leave it at 0"
            )
        return {name: options[name] for name in self._takes}
