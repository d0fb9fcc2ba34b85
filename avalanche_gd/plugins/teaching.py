"""What a source is asked, and what it answers."""

from collections.abc import Callable, Sequence
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
    """``(N, C, H, W)``; in distillation, what the teacher predicts. Where that is taught
    both with the class and with none, ``(N, 2, C, H, W)``."""
    condition: Tensor | None
    """The class that the student is asked for, ``(N,)``, where ``num_classes`` is none;
    None if it is not conditioned. Of both, ``(N, 2)``."""

    def at(self, place: Tensor | slice) -> "Taught":
        """Those at some places: indices, ``(M,)``, or a slice, which is not copied."""
        if isinstance(place, Tensor):
            place = place.to(self.x_t.device)
        condition = None if self.condition is None else self.condition[place]
        return Taught(self.x_t[place], self.timesteps[place], self.target[place], condition)

    def split(self, count: int) -> list["Taught"]:
        """Parts of so many, in order."""
        starts = range(0, len(self.x_t), count)
        return [self.at(slice(start, start + count)) for start in starts]

    def with_none(self, teacher: Any) -> "Taught":
        """Both with the class and with none at the same noisy images, 1F.

        :param teacher: predicts what is taught with none.
        """
        assert self.condition is not None
        none = teacher.no_class(self.condition)
        without = teacher.denoise(self.x_t, self.timesteps, none)
        targets, conditions = (self.target, without), (self.condition, none)
        return self._replace(
            target=torch.stack(targets, dim=1), condition=torch.stack(conditions, dim=1)
        )

    def apart(self) -> "Taught":
        """Of both, first those with the class, then those with none: ``(2 N, ...)``."""
        if self.condition is None or self.condition.ndim == 1:
            return self
        twice = torch.cat([self.x_t] * 2), torch.cat([self.timesteps] * 2)
        target = self.target.transpose(0, 1).flatten(0, 1)
        return Taught(*twice, target, self.condition.T.flatten())

    @staticmethod
    def joined(parts: Sequence["Taught"]) -> "Taught":
        """Several as one, in order."""
        *columns, conditions = zip(*parts, strict=True)
        condition = None if conditions[0] is None else torch.cat(conditions)
        x_t, timesteps, target = map(torch.cat, columns)
        return Taught(x_t, timesteps, target, condition)


@dataclass(frozen=True)
class TeachingRequest:
    """What a source may work with, and ways to ask the teacher."""

    teacher: Any
    """The frozen :class:`~avalanche_gd.DiffusionModel`."""
    count: int
    """N, how many are wanted."""
    condition: Tensor | None
    """The class that the teacher is asked for at each image, ``(N,)``, evenly over those it
    was trained on; None if it is not conditioned."""
    steps: int
    """k, the teacher's sampling steps."""
    generator: torch.Generator
    """The source of all randomness."""
    samples: Callable[..., Tensor]
    """Gives samples of the teacher of these classes, ``(N, C, H, W)``, or called with a
    number, of the first so many: fresh, made ahead, or from a pool, as the plugin says."""
    images: Tensor | None = None
    """As :attr:`current`; None for a source that is ``independent`` of it."""
    student: Any = None
    """The model in training, where the current images are the whole of its batch."""
    start: int = 0
    """The lowest timestep that is drawn."""
    parts: int = 1
    """How many steps are asked for at once, each of which draws as if it were alone."""
    drops: bool = True
    """False where no class is left out, as what is predicted without is taught beside."""

    @property
    def current(self) -> Tensor:
        """The clean images of the current batch, ``(N, C, H, W)``.

        :raises ValueError: for a source that says that it is independent of them, or where
            none are given.
        """
        if self.images is None:
            raise ValueError(
                "a source with independent = True has no current images; give them to "
                "another one, as current="
            )
        return self.images

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
        condition = self.drop_condition()
        target = self.teacher.denoise(x_t, timesteps, condition)
        return Taught(x_t, timesteps, target, condition)

    def retrained(self, x0: Tensor) -> Taught:
        """Images, each noised to a random timestep, with the true noise as the target.

        :param x0: clean images, ``(N, C, H, W)``.
        """
        timesteps = self.draw_timesteps()
        noise = self.draw_noise()
        condition = self.drop_condition()
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
        """Standard normal noise of the images' shape, ``(N, C, H, W)``."""
        return self._each(lambda n: self.teacher.draw_noise(n, self.generator))

    def draw_timesteps(self) -> Tensor:
        """Timesteps uniform over ``[start, T)``, ``(N,)``."""
        ends = self.start, self.teacher.num_timesteps
        generator, device = self.generator, self.generator.device

        def draw(count: int) -> Tensor:
            return torch.randint(*ends, (count,), generator=generator, device=device)

        return self._each(lambda n: draw_share(n, draw)).to(self.teacher.device)

    def draw_uniform(self, count: int) -> Tensor:
        """Numbers uniform over ``[0, 1)``, ``(count,)``."""
        device = self.generator.device
        return draw_share(
            count, lambda n: torch.rand(n, generator=self.generator, device=device)
        ).to(self.teacher.device)

    def drop_condition(self) -> Tensor | None:
        """The condition, with classes left out as often as the model's dropout says."""
        if self.condition is None or not self.drops:
            return self.condition
        parts = self.condition.split(self.count // self.parts)
        return torch.cat([self.teacher.drop_condition(c, self.generator) for c in parts])

    def _each(self, draw: Callable[[int], Tensor]) -> Tensor:
        """What each of the steps draws, one after the other."""
        count = self.count // self.parts
        return torch.cat([draw(count) for _ in range(self.parts)])

    def _noise(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        timesteps = self.draw_timesteps()
        return self.teacher.add_noise(x0, self.draw_noise(), timesteps), timesteps
