"""The reverse process of a diffusion model, by a diffusers scheduler."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

SAMPLERS: dict[str, Any] = {
    "own": None,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
"""diffusers' samplers by name; the model's own scheduler, DDIM by default, is the first."""

Denoise = Callable[[Tensor, Tensor], Tensor]
"""From noisy images ``(N, C, H, W)`` and timesteps ``(N,)`` to a prediction."""


class Sampler:
    """Samples with a scheduler of its own, as ``set_timesteps`` would change the model's.

    :param noise_scheduler: the model's.
    :param name: of :data:`SAMPLERS`: DPM-Solver++ (arXiv 2211.01095) and UniPC
        (arXiv 2302.04867) take the model's noise levels over.
    :raises ValueError: if there is no such sampler.
    """

    def __init__(self, noise_scheduler: Any, name: str = "own"):
        kind = SAMPLERS[check_sampler(name)]
        if kind is None:
            self.scheduler = copy.deepcopy(noise_scheduler)
        else:
            config = noise_scheduler.config
            self.scheduler = kind.from_config(config, timestep_spacing="trailing")
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

    def _options(self, eta: float, generator: torch.Generator | None) -> dict[str, Any]:
        options: dict[str, Any] = {"eta": eta, "generator": generator}
        if eta and "eta" not in self._takes:
            raise ValueError(
                f"{type(self.scheduler).__name__} does not know eta; leave it at 0"
            )
        return {name: options[name] for name in self._takes}


def check_sampler(name: str) -> str:
    """:raises ValueError: if there is no sampler of that name."""
    if name not in SAMPLERS:
        raise ValueError(f"no sampler {name!r}; choose from {', '.join(SAMPLERS)}")
    return name
