"""What a source draws for a step: at once, ahead of it, or from a pool."""

from typing import Any

import torch
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.plugins.pool import Ahead, Drawn, LookAhead, PairPool, ReplayPool
from avalanche_gd.plugins.sources import Source, source_by_name
from avalanche_gd.plugins.teacher import default_generator
from avalanche_gd.plugins.teaching import Taught, TeachingRequest


@torch.no_grad()
def draw(
    source: str | Source,
    teacher: Any,
    count: int,
    *,
    steps: int = 2,
    generator: torch.Generator | None = None,
    current: Tensor | None = None,
    condition: Tensor | None = None,
    student: Any = None,
    start: int = 0,
    samples: LookAhead | ReplayPool | None = None,
    pairs: PairPool | None = None,
    ahead: Ahead | None = None,
    steps_left: int | None = None,
    unconditional_weight: float | None = None,
) -> Taught:
    """What a student is taught in a step, without gradients.

    :param source: a name in :data:`~avalanche_gd.plugins.SOURCES`, or an object with the
        method ``draw`` of :class:`~avalanche_gd.plugins.Source`.
    :param teacher: a :class:`~avalanche_gd.DiffusionModel`, frozen and in evaluation mode;
        of a U-Net, ``DiffusionModel(unet, noise_scheduler, sample_shape)``.
    :param count: N, how many.
    :param steps: k, the teacher's sampling steps; ``samples`` has its own.
    :param generator: the source of all randomness; None for torch's own random state.
    :param current: the clean images of the current batch, ``(N, C, H, W)``, for sources
        that take them: ``"current"``, ``"snr_split"``, or one's own.
    :param condition: the classes that a conditioned teacher is asked for, ``(N,)``; None
        for an equal number of those that it was trained on.
    :param student: the :class:`~avalanche_gd.DiffusionModel` in training, for which
        ``"current"`` takes the noise of its next forward pass on ``current``.
    :param start: the lowest timestep that is drawn.
    :param samples: where the teacher's samples come from; None for fresh ones.
    :param pairs: what is drawn from instead, which the source fills; for one that is
        ``independent``.
    :param ahead: has such a source draw for several steps at once.
    :param steps_left: that the teacher will be asked in, this one included, so that no more
        are drawn ahead; None if that is not known.
    :param unconditional_weight: above 0 for what the teacher predicts both with the class
        and with none (:meth:`Taught.apart`); 0 for the class alone; None for either, as
        the model's ``condition_dropout`` says.
    :raises TypeError: if the teacher is no diffusion model, or the source is neither a name
        nor has a method ``draw``.
    :raises ValueError: for an unknown source, a count or steps that are not integers of 1
        or more, a start that is no timestep, another number of current images or classes
        than the count, a source that needs current images and has none, pairs of a source
        that is not independent, or a condition beside samples, pairs or draws ahead, which
        have their own.
    """
    source = source_by_name(source)
    if not hasattr(teacher, "denoise"):
        raise TypeError(
            f"the teacher must be a DiffusionModel, not a {type(teacher).__name__}; give "
            "DiffusionModel(denoiser, noise_scheduler, sample_shape)"
        )
    check_integer("count", count)
    check_integer("steps", steps, 1, teacher.num_timesteps)
    check_integer("start", start, 0, teacher.num_timesteps - 1)
    is_independent = bool(getattr(source, "independent", False))
    if pairs is not None and not is_independent:
        raise ValueError(
            f"{type(source).__name__} depends on the current batch and cannot fill a pool "
            "of pairs; choose another source"
        )
    if current is not None and len(current) != count:
        raise ValueError(f"there are {len(current)} current images; give a count of those")
    if condition is not None:
        condition = teacher.check_condition(condition, count)
        if any(kept is not None for kept in (samples, pairs, ahead)):
            raise ValueError(
                "condition= is for fresh samples; leave samples, pairs and ahead out"
            )
    generator = generator or default_generator(teacher.device)

    def drawn(number: int, parts: int) -> list[Drawn]:
        """The teacher's samples of some steps."""
        if condition is not None:

            def images(first: int = count) -> Tensor:
                how: dict[str, Any] = dict(steps=steps, generator=generator)
                return teacher.generate(first, condition[:first], **how)

            return [Drawn(condition, images)]
        kept = samples or LookAhead(parts, steps=steps)
        left = [parts - part for part in range(parts)] if is_independent else [steps_left]
        return [kept.draw(teacher, number, generator, steps_left=each) for each in left]

    def made(number: int, parts: int = 1) -> Taught:
        """What the source draws for some steps, as it would for each of them."""
        each = drawn(number, parts)
        classes = [one.condition for one in each if one.condition is not None]
        request = TeachingRequest(
            teacher=teacher,
            count=number * parts,
            images=None if is_independent else current,
            condition=torch.cat(classes) if classes else None,
            steps=steps,
            generator=generator,
            samples=lambda *first: torch.cat([one.images(*first) for one in each]),
            student=None if is_independent else student,
            start=start,
            parts=parts,
            drops=unconditional_weight is None,
        )
        taught = source.draw(request)
        return taught.with_none(teacher) if unconditional_weight else taught

    if pairs is not None:
        return pairs.draw(teacher, count, generator, made)
    if ahead is None or not is_independent:
        return made(count)
    return ahead.next(
        teacher, count, lambda parts: made(count, parts).split(count), steps_left
    )
