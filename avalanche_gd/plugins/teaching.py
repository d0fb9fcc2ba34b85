"""What a source is asked, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avalanche_gd.distributed.shares import draw_share


class Taught(NamedTuple):
    """Noisy images, and what a student is to predict of them."""

    x_t: Tensor
    """``(N, C, H, W)``."""
    timesteps: Tensor
    """``(N,)``, integers in ``[0, T)``."""
    target: Tensor
    """``(N, C, H, W)``; in distillation, what the teacher predicts."""
    condition: Tensor | None
    """The class that the student is asked for, ``(N,)``, where ``num_classes`` is none;
    None if it is not conditioned."""


@dataclass(frozen=True)
class TeachingRequest:
    """What a source may work with, and ways to ask the teacher."""

    teacher: Any
    """The frozen :class:`~avalanche_gd.DiffusionModel`."""
    current: Tensor
    """The clean images of the current batch, ``(N, C, H, W)``; as many as are wanted."""
    condition: Tensor | None
    """The class that the teacher is asked for at each image, ``(N,)``, evenly over those it
    was trained on; None if it is not conditioned."""
    steps: int
    """k, the teacher's sampling steps."""
    generator: torch.Generator
    """The source of all randomness."""
    samples: Callable[[], Tensor]
    """Gives samples of the teacher of these classes, ``(N, C, H, W)``: fresh, made ahead,
    or from a pool, as the plugin says."""
    student: Any = None
    """The model in training, where the current images are the whole of its batch."""
    start: int = 0
    """The lowest timestep that is drawn."""

    @property
    def count(self) -> int:
        """N, how many are wanted."""
        return len(self.current)

    def noised(self, x0: Tensor) -> Taught:
        """The teacher's prediction on images, each noised to a random timestep.

        :param x0: clean images, ``(N, C, H, W)``.
        """
        return self.taught(*self._noise(x0))

    def taught(self, x_t: Tensor, timesteps: Tensor) -> Taught:
        """The teacher's prediction at noisy images, 1F.

        A class is left out as often as the model's ``condition_dropout`` says.

        :param x_t: ``(N, C, H, W)``.
        :param timesteps: ``(N,)``.
        """
        condition = self.teacher.drop_condition(self.condition, self.generator)
        target = self.teacher.denoise(x_t, timesteps, condition)
        return Taught(x_t, timesteps, target, condition)

    def retrained(self, x0: Tensor) -> Taught:
        """Images, each noised to a random timestep, with the true noise as the target.

        :param x0: clean images, ``(N, C, H, W)``.
        """
        timesteps = self.draw_timesteps()
        noise = self.draw_noise()
        condition = self.teacher.drop_condition(self.condition, self.generator)
        x_t = self.teacher.add_noise(x0, noise, timesteps)
        target = self.teacher.process.target(x0, noise, timesteps)
        return Taught(x_t, timesteps, target, condition)

    def noised_current(self) -> tuple[Tensor, Tensor]:
        """The current images noised, ``(N, C, H, W)``, and their timesteps, ``(N,)``.

        As the student is trained on them in this step, where they are its whole batch.
        """
        if self.student is None:
            return self._noise(self.current)
        noised = self.student.noise_ahead(self.current)
        return noised.x_t, noised.timesteps

    def draw_noise(self) -> Tensor:
        """Standard normal noise of the images' shape."""
        return self.teacher.draw_noise(self.count, self.generator)

    def draw_timesteps(self) -> Tensor:
        """Timesteps uniform over ``[start, T)``, ``(N,)``."""
        ends = self.start, self.teacher.num_timesteps
        generator, device = self.generator, self.generator.device
        return draw_share(
            self.count,
            lambda n: torch.randint(*ends, (n,), generator=generator, device=device),
        ).to(self.teacher.device)

    def draw_uniform(self, count: int) -> Tensor:
        """Numbers uniform over ``[0, 1)``, ``(count,)``."""
        device = self.generator.device
        return draw_share(
            count, lambda n: torch.rand(n, generator=self.generator, device=device)
        ).to(self.teacher.device)

    def _noise(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        timesteps = self.draw_timesteps()
        return self.teacher.add_noise(x0, self.draw_noise(), timesteps), timesteps
