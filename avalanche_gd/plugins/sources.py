"""Where the noisy images come from on which a student is taught."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Source(Protocol):
    """A source of noisy images and their timesteps."""

    def draw(
        self, teacher: Any, current: Tensor, steps: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Noisy images to distil on.

        :param teacher: the frozen :class:`~avalanche_gd.DiffusionModel`.
        :param current: the clean images of the current batch, ``(N, C, H, W)``.
        :param steps: k, the teacher's sampling steps.
        :param generator: the source of all randomness.
        :return: ``x_t`` of shape ``(N, C, H, W)`` and ``t`` of shape ``(N,)``.
        """


class Generation:
    """The teacher's samples, noised again: ``x_0 ~ teacher``, ``x_t = q(x_t | x_0)``.

    Generative distillation proper (arXiv 2311.14028, algorithm 1). Costs k F.
    """

    def draw(
        self, teacher: Any, current: Tensor, steps: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        x0 = teacher.generate(len(current), steps=steps, generator=generator)
        timesteps = draw_timesteps(teacher, len(current), generator)
        noise = teacher.draw_noise(len(current), generator)
        return teacher.add_noise(x0, noise, timesteps), timesteps


def draw_timesteps(teacher: Any, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps uniform over ``[0, T)``, on the teacher's device."""
    timesteps = torch.randint(
        teacher.num_timesteps, (count,), generator=generator, device=generator.device
    )
    return timesteps.to(teacher.device)


SOURCES: dict[str, type] = {"generation": Generation}
"""The sources by name."""


def source_by_name(source: str | Source) -> Source:
    """The source itself, or a new one by name.

    :raises ValueError: if there is no source of that name.
    :raises TypeError: if it is neither a name nor an object with ``draw``.
    """
    if isinstance(source, str):
        if source not in SOURCES:
            raise ValueError(f"no source {source!r}; choose from {', '.join(SOURCES)}")
        return SOURCES[source]()
    if not isinstance(source, Source):
        raise TypeError(f"source must be a name or have a method draw, got {source!r}")
    return source
