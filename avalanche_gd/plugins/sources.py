"""The sources of distillation: noisy images, and what a student is taught there."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from avalanche_gd.checks import check_choice, check_number
from avalanche_gd.distributed.shares import (
    draw_share,
    gathered,
    own_share,
    sharing_processes,
    unshared,
)
from avalanche_gd.plugins.teaching import Taught, TeachingRequest


@runtime_checkable
class Source(Protocol):
    """A source of noisy images, and of the targets that a student learns there.

    If its images depend neither on the current batch nor on each other, a source can say so
    with an attribute ``independent = True``. Then it draws for several steps at once, so
    that the teacher makes fewer and larger passes, and it can fill a pool of pairs.
    """

    def draw(self, request: TeachingRequest) -> Taught:
        """Draw what a step teaches.

        :param request: the teacher, the current batch, and ways to ask the teacher.
        :return: N noisy images, their timesteps and targets, on the teacher's device.
        """


class Generation:
    """The teacher's samples, noised again: ``x_0 ~ teacher``, ``x_t = q(x_t | x_0)``.

    This is generative distillation as in its paper (arXiv 2311.14028, algorithm 1). Costs
    k F (k passes of the teacher); less from a pool.
    """

    independent = True

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        return request.noised(request.samples())


class Gaussian:
    """Pure noise, whatever the timestep is: ``x_t ~ N(0, I)``.

    (arXiv 2311.14028, section 4.) Costs nothing.
    """

    independent = True

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        timesteps = request.draw_timesteps()
        return request.taught(request.draw_noise(), timesteps)


class SymmetricGaussian:
    """Noise that is more symmetric at lower timesteps, at which images have less noise.

    ``x_t ~ N(0, I)``. For ``t`` in the middle third of ``[0, T)`` (334 to 666) one half of
    an image is the mirror image of the other: left and right in the first half of the
    batch, top and bottom in the second. For lower t (333 and less), both. Costs nothing.
    """

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        timesteps = request.draw_timesteps()
        noise = request.draw_noise()
        last = request.teacher.num_timesteps - 1
        low, high = timesteps <= last // 3, timesteps > 2 * last // 3
        first = draw_share(
            len(noise), lambda n: torch.arange(n, device=noise.device) < n // 2
        )
        x_t = _mirrored(noise, low | ~high & first, dim=3)
        return request.taught(_mirrored(x_t, low | ~high & ~first, dim=2), timesteps)


class Current:
    """The current data, noised: ``x_t = q(x_t | x_0)``, the idea of LwF.

    (arXiv 2311.14028, section 4.) With as many samples as the batch has, these are the
    noisy images on which the student is trained in the same step: its prediction there is
    used twice, and a step costs 4F. (A conditioned student needs another prediction, for a
    class that the teacher knows.)
    """

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        return request.taught(*request.noised_current())


class SNRSplit:
    """The teacher's samples where little noise is added, the current data where much is.

    Both are noised: the samples to timesteps with ``SNR(t) = a^2 / b^2`` above a threshold,
    the current images to the other ones. The share of samples in a batch is, on average,
    the share of such timesteps among those that are drawn. Samples cost k F, current images
    nothing.

    :param threshold: of the signal-to-noise ratio, 0 or more; with 0, current images
        are used only at timesteps without a signal.
    :raises ValueError: for a threshold that is negative or not finite; when training
        starts, for one that is not below the ratio of some timestep.
    """

    def __init__(self, threshold: float = 1.0):
        self.threshold = check_number("the threshold of the SNR", threshold, "0 or more")

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless the ratio of some timestep is above the threshold."""
        if self._end(model) == 0:
            raise ValueError(
                f"no timestep has a signal-to-noise ratio above {self.threshold:g}; lower "
                "the threshold"
            )

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        start, last = request.start, request.teacher.num_timesteps
        end = max(start, self._end(request.teacher))
        with unshared():  # the same number in all processes
            u = float(request.draw_uniform(1))
        images = gathered(request.current)
        expected = len(images) * (end - start) / (last - start)
        count = int(expected + u)  # rounded up or down at random
        if expected:
            number = math.ceil(math.ceil(expected) / sharing_processes())
            images = torch.cat([gathered(request.samples(number))[:count], images[count:]])
        is_sample = own_share(torch.arange(len(images), device=images.device)) < count
        low, high = torch.where(is_sample, start, end), torch.where(is_sample, end, last)
        uniform = request.draw_uniform(request.count)
        timesteps = (low + (uniform * (high - low)).long()).minimum(high - 1)
        x_t = request.teacher.add_noise(own_share(images), request.draw_noise(), timesteps)
        return request.taught(x_t, timesteps)

    def _end(self, model: Any) -> int:
        """The first timestep at which no sample is taught; T if there is none."""
        t = torch.arange(model.num_timesteps)
        a, b = (part.flatten() for part in model.process.coefficients(t, torch.zeros(1)))
        return int((a**2 > self.threshold * b**2).sum())


class PartialGeneration:
    """The teacher's reverse process, stopped at each sample's own timestep.

    From noise at T - 1, k DDIM steps lead to ``t``, evenly spaced between the two: after j
    steps at ``T - 1 - j (T - 1 - t) / k``, rounded. So the sample is not finished and then
    noised again; it is what the teacher itself would denoise next. Costs k F. (If t is less
    than k below T - 1, steps that would not move are left out.)
    """

    independent = True

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        teacher, steps = request.teacher, request.steps
        timesteps = request.draw_timesteps()
        x_t = request.draw_noise()
        denoise = teacher.guided(request.condition)
        last = teacher.num_timesteps - 1
        now = torch.full_like(timesteps, last)
        for step in range(1, steps + 1):
            passed = (2 * step * (last - timesteps) + steps) // (2 * steps)  # rounded
            end = last - passed
            stepped = teacher.process.ddim_step(x_t, denoise(x_t, now), now, end)
            x_t = torch.where((end < now).view(-1, 1, 1, 1), stepped, x_t)
            now = end
        return request.taught(x_t, timesteps)


class Trajectory:
    """The teacher's reverse process, each pass of which is also a target.

    A trajectory visits k timesteps, one in each of k equal parts of ``[0, T)``, at the same
    place u in all of them: ``t_j = T (1 - (j + u) / k)``, with u drawn for each trajectory,
    so that over the batch all t are covered. It starts from noise, as if ``t_0`` were
    T - 1, and continues by DDIM, with the teacher's guidance; its prediction there, without
    guidance, is the target at each ``x_t``. A batch of N takes N / k trajectories, and
    costs 1F, the targets included; with guidance 2F. The class of a trajectory is that of
    its first sample, or none, as ``condition_dropout`` says.
    """

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        teacher, count = request.teacher, request.count
        steps = min(request.steps, count)
        number = -(-count // steps)
        condition = request.drop_condition()
        if condition is not None:
            whole = gathered(condition)
            condition = own_share(whole[: -(-len(whole) // steps)])
        x_t = teacher.draw_noise(number, request.generator)
        place = request.draw_uniform(number)
        denoise = teacher.given_and_guided(condition)
        last = teacher.num_timesteps - 1
        timesteps = [
            ((1 - (j + place) / steps) * teacher.num_timesteps).long().clamp(max=last)
            for j in range(steps)
        ]
        visited: list[tuple[Tensor, Tensor, Tensor]] = []
        for now, following in zip(timesteps, [*timesteps[1:], None], strict=True):
            target, guided = denoise(x_t, now)
            visited.append((x_t, now, target))
            if following is not None:
                x_t = teacher.process.ddim_step(x_t, guided, now, following)
        x_t, t, target = (torch.cat(parts)[:count] for parts in zip(*visited, strict=True))
        if condition is not None:
            condition = condition.repeat(steps)[:count]
        return Taught(x_t, t, target, condition)


class Retraining:
    """The teacher's samples, noised again, with the added noise as the target.

    This is not distillation, but generative replay. Costs k F; less from a pool.
    """

    independent = True

    def draw(self, request: TeachingRequest) -> Taught:
        """See :meth:`Source.draw`."""
        return request.retrained(request.samples())


def _mirrored(images: Tensor, chosen: Tensor, *, dim: int) -> Tensor:
    """Make the second half of the chosen images, along an axis, the mirror of the first."""
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
    "snr_split": SNRSplit,
    "partial_generation": PartialGeneration,
    "trajectory": Trajectory,
}
"""The sources of distillation by name."""


def source_by_name(
    source: str | Source, known: Mapping[str, type] = MappingProxyType(SOURCES)
) -> Source:
    """Return the source itself, or make one by its name.

    :param known: the sources by name.
    :raises ValueError: if there is no source of that name.
    :raises TypeError: if it is neither a name nor an object with ``draw``, or is a class.
    """
    if isinstance(source, str):
        return known[check_choice("source", source, known)]()
    if isinstance(source, type):
        raise TypeError(
            f"source must be an object, not a class; give {source.__name__}(...)"
        )
    if not isinstance(source, Source):
        raise TypeError(f"source must be a name or have a method draw, got {source!r}")
    return source
