"""Where the noisy images come from on which a student is taught."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from avalanche_gd.distributed.shares import draw_share, gathered, own_share
from avalanche_gd.models.sampler import check_sampler
from avalanche_gd.plugins.pool import ReplayPool


@runtime_checkable
class Source(Protocol):
    """A source of noisy images and their timesteps."""

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Noisy images to distil on.

        :param teacher: the frozen :class:`~avalanche_gd.DiffusionModel`.
        :param current: the clean images of the current batch, ``(N, C, H, W)``.
        :param condition: the class that the teacher is asked for at each image, ``(N,)``,
            evenly over those it was trained on; None if it is not conditioned.
        :param steps: k, the teacher's sampling steps.
        :param generator: the source of all randomness.
        :return: ``x_t`` of shape ``(N, C, H, W)`` and ``t`` of shape ``(N,)``.
        """


class Generation:
    """The teacher's samples, noised again: ``x_0 ~ teacher``, ``x_t = q(x_t | x_0)``.

    Generative distillation proper (arXiv 2311.14028, algorithm 1). Costs k F.

    :param pool: draws the samples from there; see its cost.
    :param sampler: of the teacher, a name in :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    """

    def __init__(self, pool: ReplayPool | None = None, sampler: str = "own"):
        self.pool = pool
        self.sampler = check_sampler(sampler)

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        options: dict[str, Any] = dict(
            steps=steps, sampler=self.sampler, generator=generator
        )
        if self.pool is not None:
            x0 = self.pool.draw(teacher, len(current), condition, **options)
        else:
            x0 = teacher.generate(len(current), condition, **options)
        return _noised(teacher, x0, generator)


class Gaussian:
    """Pure noise at any timestep: ``x_t ~ N(0, I)``.

    (arXiv 2311.14028, section 4.) Costs nothing.
    """

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        timesteps = draw_timesteps(teacher, len(current), generator)
        return teacher.draw_noise(len(current), generator), timesteps


class SymmetricGaussian:
    """Noise that is the more symmetric, the less noise its timestep stands for.

    ``x_t ~ N(0, I)``, of which for ``t`` in the middle third of ``[0, T)`` (334 to 666)
    one half is the mirror image of the other: left and right in the first half of the
    batch, top and bottom in the second; below (333 and less) both. Costs nothing.
    """

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        noise, timesteps = Gaussian().draw(teacher, current, condition, steps, generator)
        low = timesteps <= (teacher.num_timesteps - 1) // 3
        high = timesteps > 2 * (teacher.num_timesteps - 1) // 3
        first = draw_share(
            len(noise), lambda n: torch.arange(n, device=noise.device) < n // 2
        )
        x_t = _mirrored(noise, low | ~high & first, dim=3)
        return _mirrored(x_t, low | ~high & ~first, dim=2), timesteps


class Current:
    """The current data, noised: ``x_t = q(x_t | x_0)``, the idea of LwF.

    (arXiv 2311.14028, section 4.) Costs nothing.
    """

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        return _noised(teacher, current, generator)


class PartialGeneration:
    """The teacher's reverse process, stopped at each sample's own timestep.

    From noise at T - 1 down the k timesteps of DDIM sampling, where the step that would
    pass ``t`` ends at it. The sample is not finished and noised again, but is what the
    teacher itself would denoise next. Costs k F.
    """

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        timesteps = draw_timesteps(teacher, len(current), generator)
        x_t = teacher.draw_noise(len(current), generator)
        visited = teacher.sampling_timesteps(steps)
        for t, next_t in zip(visited, [*visited[1:], -1], strict=True):
            end = timesteps.clamp(min=next_t)
            stepped = teacher.ddim_step(x_t, t, end, condition)
            x_t = torch.where((end < t).view(-1, 1, 1, 1), stepped, x_t)
        return x_t, timesteps


class Trajectory:
    """The teacher's reverse process, each pass of which is also a target.

    A trajectory visits k timesteps, one in each of k equal parts of ``[0, T)``, at the same
    place u in all of them, ``t_j = T (1 - (j + u) / k)``, u drawn for each trajectory: so
    that over the batch all t are covered. It starts from noise, as if ``t_0`` were T - 1,
    and goes on by DDIM; the teacher's prediction there is the target at each ``x_t``. A
    batch of N takes N / k trajectories, and costs 1F, the targets included.
    """

    def draw(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Source.draw`."""
        return self.draw_taught(teacher, current, condition, steps, generator)[:2]

    def draw_taught(
        self,
        teacher: Any,
        current: Tensor,
        condition: Tensor | None,
        steps: int,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """``x_t`` and t as :meth:`Source.draw`, the targets there, and their condition.

        The condition of a trajectory is the first of its samples'.
        """
        count = len(current)
        steps = min(steps, count)
        number = -(-count // steps)
        x_t = teacher.draw_noise(number, generator)
        device = generator.device
        place = draw_share(
            number, lambda n: torch.rand(n, generator=generator, device=device)
        )
        given = None
        if condition is not None:
            whole = gathered(condition)
            given = own_share(whole[: -(-len(whole) // steps)])
        visited: list[tuple[Tensor, Tensor, Tensor]] = []
        for j in range(steps):
            share = 1 - (j + place.to(x_t.device)) / steps
            t = (share * teacher.num_timesteps).long().clamp(max=teacher.num_timesteps - 1)
            if visited:
                x, before, output = visited[-1]
                x_t = teacher.ddim_move(x, output, before, t)
            visited.append((x_t, t, teacher.denoise(x_t, t, given)))
        x_t, t, target = (torch.cat(parts)[:count] for parts in zip(*visited, strict=True))
        repeated = None if given is None else given.repeat(steps)[:count]
        return x_t, t, target, repeated


def draw_timesteps(teacher: Any, count: int, generator: torch.Generator) -> Tensor:
    """Timesteps uniform over ``[0, T)``, on the teacher's device."""
    high, device = teacher.num_timesteps, generator.device
    return draw_share(
        count, lambda n: torch.randint(high, (n,), generator=generator, device=device)
    ).to(teacher.device)


def _noised(teacher: Any, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clean images, each noised to a random timestep."""
    timesteps = draw_timesteps(teacher, len(x0), generator)
    noise = teacher.draw_noise(len(x0), generator)
    return teacher.add_noise(x0, noise, timesteps), timesteps


def _mirrored(images: Tensor, chosen: Tensor, *, dim: int) -> Tensor:
    """The chosen images with their second half along an axis the mirror of the first."""
    size = images.shape[dim]
    first = images.narrow(dim, 0, (size + 1) // 2)
    second = images.narrow(dim, 0, size // 2).flip(dim)
    mirrored = torch.cat([first, second], dim=dim)
    return torch.where(chosen.view(-1, 1, 1, 1), mirrored, images)


SOURCES: dict[str, type] = {
    "generation": Generation,
    "gaussian": Gaussian,
    "symmetric_gaussian": SymmetricGaussian,
    "current": Current,
    "partial_generation": PartialGeneration,
    "trajectory": Trajectory,
}
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
