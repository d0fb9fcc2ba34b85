"""What a source gets when it is asked to draw, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avalanche_gd.distributed.shares import draw_share
from avalanche_gd.models.denoising import check_timesteps


class Taught(NamedTuple):
    """Noisy images, and what a student should predict there."""

    x_t: Tensor
    """``(N, C, H, W)``."""
    timesteps: Tensor
    """``(N,)``, integers in ``[0, T)``."""
    target: Tensor
    """``(N, C, H, W)``; in distillation, what the teacher predicts. If that is taught both
    with and without the class, ``(N, 2, C, H, W)``."""
    condition: Tensor | None
    """The class on which the student is conditioned, ``(N,)``, where ``num_classes`` stands
    for no class; None if it is not conditioned. With and without the class, ``(N, 2)``."""

    def at(self, place: Tensor | slice) -> "Taught":
        """The part at some places: indices, ``(M,)``, or a slice, which is not copied."""
        if isinstance(place, Tensor):
            place = place.to(self.x_t.device)
        condition = None if self.condition is None else self.condition[place]
        return Taught(self.x_t[place], self.timesteps[place], self.target[place], condition)

    def split(self, count: int) -> list["Taught"]:
        """Parts of ``count`` images, in order."""
        starts = range(0, len(self.x_t), count)
        return [self.at(slice(start, start + count)) for start in starts]

    def check(self, teacher: Any, count: int) -> None:
        """Raise ValueError unless this is what a student of a teacher can be taught.

        The range of timesteps is checked on the CPU only, as an accelerator would have to
        wait.

        :param count: N, how many images it must have.
        """
        _check_noisy(self.x_t, self.timesteps, teacher, count)
        if self.target.shape != self.x_t.shape:
            raise ValueError(
                f"a source drew targets of shape {tuple(self.target.shape)} for noisy "
                f"images of {tuple(self.x_t.shape)}; draw one for each"
            )
        if (self.condition is None) != (teacher.num_classes is None):
            has = "no condition, but" if self.condition is None else "a condition, but"
            raise ValueError(
                f"a source drew {has} the teacher's num_classes is {teacher.num_classes}"
            )
        if self.condition is not None and self.condition.shape != (count,):
            raise ValueError(
                f"a source drew a condition of shape {tuple(self.condition.shape)} for "
                f"{count} images"
            )

    def with_none(self, teacher: Any) -> "Taught":
        """Add the targets without a class at the same noisy images. Costs 1F.

        :param teacher: predicts the targets without a class.
        """
        assert self.condition is not None
        none = teacher.no_class(self.condition)
        without = teacher.denoise(self.x_t, self.timesteps, none)
        targets, conditions = (self.target, without), (self.condition, none)
        return self._replace(
            target=torch.stack(targets, dim=1), condition=torch.stack(conditions, dim=1)
        )

    def apart(self) -> "Taught":
        """If both are taught: first with, then without the class, ``(2 N, ...)``."""
        if self.condition is None or self.condition.ndim == 1:
            return self
        twice = torch.cat([self.x_t] * 2), torch.cat([self.timesteps] * 2)
        target = self.target.transpose(0, 1).flatten(0, 1)
        return Taught(*twice, target, self.condition.T.flatten())

    @staticmethod
    def joined(parts: Sequence["Taught"]) -> "Taught":
        """Several batches as one, in order."""
        *columns, conditions = zip(*parts, strict=True)
        condition = None if conditions[0] is None else torch.cat(conditions)
        x_t, timesteps, target = map(torch.cat, columns)
        return Taught(x_t, timesteps, target, condition)


def _check_noisy(x_t: Tensor, timesteps: Tensor, teacher: Any, count: int) -> None:
    """Raise ValueError unless there are so many noisy images and timesteps of a teacher."""
    _check_shape(x_t, teacher, count)
    check_timesteps("a source's timesteps", timesteps, count, teacher.num_timesteps)


def _check_shape(images: Tensor, teacher: Any, count: int) -> None:
    """Raise ValueError unless there are so many float images of a teacher's shape."""
    shape = (count, *teacher.sample_shape)
    if images.shape != shape or not images.is_floating_point():
        raise ValueError(
            f"a source must draw {count} float images of shape {teacher.sample_shape}, got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )


@dataclass(frozen=True)
class TeachingRequest:
    """What a source can use to draw: the teacher, the current batch, ways to ask both."""

    teacher: Any
    """The frozen :class:`~avalanche_gd.DiffusionModel`."""
    count: int
    """N, how many noisy images to draw."""
    condition: Tensor | None
    """The class on which the teacher is conditioned, for each image, ``(N,)``, evenly over
    those it was trained on; None if it is not conditioned."""
    steps: int
    """k, the teacher's sampling steps."""
    generator: torch.Generator
    """The source of all randomness."""
    samples: Callable[..., Tensor]
    """Returns samples of the teacher of these classes, ``(N, C, H, W)``; called with a
    number from 0 to N, the first so many, and called again, the same ones. New, made ahead
    or from a pool, as the plugin decides."""
    images: Tensor | None = None
    """The value of :attr:`current`; None for a source that is ``independent`` of it."""
    student: Any = None
    """The model in training, if the current images are its whole batch."""
    start: int = 0
    """The lowest timestep to draw."""
    parts: int = 1
    """For how many steps this is at once. Each kind of draw, such as timesteps or noise, is
    made for all of them before the next kind, in parts of ``count / parts``."""
    drops: bool = True
    """False if no class is dropped, because targets without a class are taught as well."""

    @property
    def current(self) -> Tensor:
        """The clean images of the current batch, ``(N, C, H, W)``.

        :raises ValueError: if the source says that it is independent of them, or if none
            were given.
        """
        if self.images is None:
            raise ValueError(
                "a source with independent = True gets no current images; remove that, or "
                "give current="
            )
        return self.images

    def noised(self, x0: Tensor) -> Taught:
        """The teacher's prediction on images, each noised to a random timestep.

        :param x0: clean images in model space, ``(N, C, H, W)``.
        :raises ValueError: if they are not N of the teacher's shape.
        """
        return self.taught(*self._noise(x0))

    def taught(self, x_t: Tensor, timesteps: Tensor) -> Taught:
        """The teacher's prediction at noisy images, 1F.

        A class is dropped as often as the model's ``condition_dropout`` says.

        :param x_t: ``(N, C, H, W)``.
        :param timesteps: ``(N,)``, integers in ``[0, T)``.
        :raises ValueError: if they are not; the range is checked on the CPU only.
        """
        _check_noisy(x_t, timesteps, self.teacher, self.count)
        condition = self.drop_condition()
        target = self.teacher.denoise(x_t, timesteps, condition)
        return Taught(x_t, timesteps, target, condition)

    def retrained(self, x0: Tensor) -> Taught:
        """Images, each noised to a random timestep, with the added noise as the target.

        :param x0: clean images in model space, ``(N, C, H, W)``.
        :raises ValueError: if they are not N of the teacher's shape.
        """
        _check_shape(x0, self.teacher, self.count)
        timesteps = self.draw_timesteps()
        noise = self.draw_noise()
        condition = self.drop_condition()
        x_t = self.teacher.add_noise(x0, noise, timesteps)
        target = self.teacher.process.target(x0, noise, timesteps)
        return Taught(x_t, timesteps, target, condition)

    def noised_current(self) -> tuple[Tensor, Tensor]:
        """The current images noised, ``(N, C, H, W)``, and their timesteps, ``(N,)``.

        If they are the student's whole batch, the noise is that of its training step.
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
        """The condition, with classes dropped as often as the model's dropout says."""
        if self.condition is None or not self.drops:
            return self.condition
        parts = self.condition.split(self.count // self.parts)
        return torch.cat([self.teacher.drop_condition(c, self.generator) for c in parts])

    def _each(self, draw: Callable[[int], Tensor]) -> Tensor:
        """What all steps draw of one kind, one step after the other."""
        count = self.count // self.parts
        return torch.cat([draw(count) for _ in range(self.parts)])

    def _noise(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        _check_shape(x0, self.teacher, self.count)
        timesteps = self.draw_timesteps()
        return self.teacher.add_noise(x0, self.draw_noise(), timesteps), timesteps
