"""Samples of a teacher, generated once and drawn from."""

import math
import weakref
from typing import Any

import psutil
import torch
from torch import Tensor

from avalanche_gd.distributed.shares import draw_share, unshared

_BATCH_SIZE = 500  # generated at once
_BYTES = 4  # of a pixel
_SHARE = 0.5  # of the free memory that a pool may take


class ReplayPool:
    """A bounded memory of a teacher's samples.

    Filled when an experience begins, it costs ``k size / (B S)`` F a step for k sampling
    steps, batches of B and S steps an experience, instead of k F.

    :param size: how many samples it holds.
    :param refresh_every: draws after which it is filled anew; None for never within an
        experience.
    :raises ValueError: for a size or a refresh below 1.
    """

    def __init__(self, size: int, refresh_every: int | None = None):
        if size < 1:
            raise ValueError(f"a pool must hold 1 sample or more, got {size}")
        if refresh_every is not None and refresh_every < 1:
            raise ValueError(f"refresh_every must be 1 or more, got {refresh_every}")
        self.size = size
        self.refresh_every = refresh_every
        self._images: Tensor | None = None
        self._first: Tensor | None = None
        self._teacher: Any = None
        self._draws = 0

    def check_memory(self, model: Any) -> None:
        """Whether the samples of this model fit.

        :raises ValueError: if they would take more than half of the free memory.
        """
        needed = self.size * math.prod(model.sample_shape) * _BYTES
        if model.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(model.device)
        else:
            free = psutil.virtual_memory().available
        if needed > _SHARE * free:
            raise ValueError(
                f"a pool of {self.size} samples takes {needed / 2**30:.1f} GiB of the "
                f"{free / 2**30:.1f} GiB that are free; make it smaller"
            )

    def draw(
        self,
        teacher: Any,
        count: int,
        condition: Tensor | None = None,
        *,
        generator: torch.Generator,
        **options: Any,
    ) -> Tensor:
        """Samples with replacement.

        :param teacher: fills the pool where it is another's, or due.
        :param count: how many.
        :param condition: the class of each, ``(count,)``; None without conditioning.
        :param generator: the source of all randomness.
        :param options: of the teacher's ``generate``.
        :return: ``(count, C, H, W)``.
        """
        is_due = self.refresh_every is not None and self._draws == self.refresh_every
        if self._teacher is None or self._teacher() is not teacher or is_due:
            with unshared():  # the same whole pool in every process
                self._fill(teacher, generator, options)
        assert self._images is not None
        self._draws += 1
        device = generator.device
        u = draw_share(count, lambda n: torch.rand(n, generator=generator, device=device))
        u = u.to(self._images.device)
        if condition is None or self._first is None:
            return self._images[(u * self.size).long()]
        first, end = self._first[condition], self._first[condition + 1]
        within = (u * (end - first)).long()  # before the sum, which would round up to end
        return self._images[first + within]

    def empty(self) -> None:
        """Let go of the samples, as when a teacher has learned more."""
        self._images = self._first = self._teacher = None

    def _fill(
        self, teacher: Any, generator: torch.Generator, options: dict[str, Any]
    ) -> None:
        """Generate, sorted by class."""
        self._draws = 0
        self._teacher = weakref.ref(teacher)
        self._images = self._first = None
        condition = teacher.draw_condition(self.size, generator)
        if condition is not None:
            condition = condition.sort().values
            counts = torch.bincount(condition, minlength=teacher.num_classes)
            self._first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._images = torch.cat(
            [
                teacher.generate(
                    min(_BATCH_SIZE, self.size - start),
                    None if condition is None else condition[start : start + _BATCH_SIZE],
                    generator=generator,
                    **options,
                )
                for start in range(0, self.size, _BATCH_SIZE)
            ]
        )
