"""Draw what a student is taught in a step: now, for several steps ahead, or from a pool."""

from typing import Any

import torch
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.models.evaluation_mode import in_evaluation_mode
from avalanche_gd.models.random_state import default_generator
from avalanche_gd.plugins.look_ahead import Ahead, Drawn, LookAhead
from avalanche_gd.plugins.pool import PairPool, ReplayPool
from avalanche_gd.plugins.sources import (
    Current,
    Gaussian,
    PartialGeneration,
    Source,
    SymmetricGaussian,
    Trajectory,
    source_by_name,
)
from avalanche_gd.plugins.teaching import Taught, TeachingRequest

WITHOUT_SAMPLES = (Gaussian, SymmetricGaussian, Current, PartialGeneration, Trajectory)
"""Sources that do not take the teacher's samples."""

_OWN_TIMESTEPS = (Current, Trajectory)


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
    with_none: bool | None = None,
) -> Taught:
    """Draw what a student is taught in a step, without gradients.

    :param source: a name in :data:`~avalanche_gd.plugins.SOURCES`, or an object with the
        method ``draw`` of :class:`~avalanche_gd.plugins.Source`.
    :param teacher: a :class:`~avalanche_gd.DiffusionModel`; for a U-Net,
        ``DiffusionModel(unet, noise_scheduler, sample_shape)``. It is asked in evaluation
        mode, and its mode after that is what it was.
    :param count: N, how many noisy images.
    :param steps: k, the teacher's sampling steps; ``samples`` has its own.
    :param generator: the source of all randomness; None for torch's own random state.
    :param current: the clean images of the current batch, ``(N, C, H, W)``, for sources
        that use them: ``"current"``, ``"snr_split"``, or your own.
    :param condition: the classes on which a conditioned teacher is conditioned, ``(N,)``;
        None for an equal number of those that it was trained on.
    :param student: the :class:`~avalanche_gd.DiffusionModel` in training. With it,
        ``"current"`` uses the noise of the student's next forward pass on ``current``.
    :param start: the lowest timestep that is drawn, for sources that draw it uniformly: not
        ``"current"`` and ``"trajectory"``.
    :param samples: where the teacher's samples come from; None to make new ones.
    :param pairs: a pool to draw from, filled by the source, which must be ``independent``.
    :param ahead: makes an ``independent`` source draw for several steps at once.
    :param steps_left: how many steps the teacher still has, this one included, so that no
        more are drawn ahead; None if that is not known.
    :param with_none: True to have the teacher predict both with and without the class
        (:meth:`Taught.apart`); False for with the class only; None for one of the two, as
        the model's ``condition_dropout`` says.
    :raises TypeError: if the teacher is not a diffusion model, or the source is neither a
        name nor has a method ``draw`` that returns a :class:`Taught`.
    :raises ValueError: for an unknown source, a count or steps that are not integers of 1
        or more, a start that is not a timestep or that the source does not use, if the
        number of current images or classes is not ``count``, if the current images do not
        fit the teacher, if a source needs them and has none, for pairs from a source that
        is not independent, for a condition together with samples, pairs or ahead, which
        have their own classes, for ``with_none`` of a teacher that cannot predict both
        with and without a class, if the source draws other shapes or timesteps than those
        of the teacher, or if pairs or ahead keep what this teacher drew with another
        source, start, steps or ``with_none``.
    """
    source = source_by_name(source)
    if not hasattr(teacher, "denoise"):
        raise TypeError(
            f"the teacher must be a DiffusionModel, not a {type(teacher).__name__}; give "
            "DiffusionModel(denoiser, noise_scheduler, sample_shape)"
        )
    check_integer("count", count)
    check_integer("steps", steps, 1, teacher.num_timesteps)
    check_start("start", start, source, teacher.num_timesteps - 1)
    is_independent = bool(getattr(source, "independent", False))
    if pairs is not None and not is_independent:
        raise ValueError(
            f"{type(source).__name__} depends on the current batch and cannot fill a pool "
            "of pairs; choose another source"
        )
    if current is not None and len(current) != count:
        raise ValueError(
            f"count is {count}, but there are {len(current)} current images; give the same "
            "number"
        )
    if current is not None:
        teacher.check_images(current)
    if condition is not None:
        condition = teacher.check_condition(condition, count)
        if any(kept is not None for kept in (samples, pairs, ahead)):
            raise ValueError(
                "condition= is for new samples; leave samples, pairs and ahead out"
            )
    if with_none is not None:
        check_both_predictions("with_none", teacher)
    generator = generator or default_generator(teacher.device)

    def drawn(number: int, parts: int) -> list[Drawn]:
        """The teacher's samples for some steps."""
        if condition is not None:
            kept_classes, have = condition, teacher.draw_noise(0, generator)

            def images(first: int = count) -> Tensor:
                nonlocal have
                check_integer("number", first, 0, count)
                missing = kept_classes[len(have) : first]
                if len(missing):
                    how: dict[str, Any] = dict(steps=steps, generator=generator)
                    more = teacher.generate(len(missing), missing, **how)
                    have = torch.cat([have, more])
                return have[:first]

            return [Drawn(condition, images)]
        kept = samples or LookAhead(parts, steps=steps)
        left = [parts - part for part in range(parts)] if is_independent else [steps_left]
        return [kept.draw(teacher, number, generator, steps_left=each) for each in left]

    def made(number: int, parts: int = 1) -> Taught:
        """What the source draws for some steps: each kind of draw for all of them."""
        each = drawn(number, parts)
        classes = [one.condition for one in each if one.condition is not None]

        def samples(first: int = number * parts) -> Tensor:
            check_integer("number", first, 0, number * parts)
            ends = [first - part * number for part in range(parts)]
            firsts = [min(max(end, 0), number) for end in ends]
            return torch.cat([one.images(n) for one, n in zip(each, firsts, strict=True)])

        request = TeachingRequest(
            teacher=teacher,
            count=number * parts,
            images=None if is_independent else current,
            condition=torch.cat(classes) if classes else None,
            steps=steps,
            generator=generator,
            samples=samples,
            student=None if is_independent else student,
            start=start,
            parts=parts,
            drops=with_none is None,
        )
        taught = source.draw(request)
        if not isinstance(taught, Taught):
            raise TypeError(
                f"{type(source).__name__}.draw must return what request.noised or "
                f"request.taught gives, a Taught, not a {type(taught).__name__}"
            )
        taught.check(teacher, number * parts)
        return taught.with_none(teacher) if with_none else taught

    asked = type(source), start, steps, with_none
    with in_evaluation_mode(teacher):
        if pairs is not None:
            return pairs.draw(teacher, count, generator, made, asked)
        if ahead is None or not is_independent:
            return made(count)
        return ahead.next(
            teacher, count, lambda parts: made(count, parts).split(count), steps_left, asked
        )


def check_start(name: str, start: int, source: Source, last: int | None = None) -> int:
    """Return the lowest timestep that a source draws; raise ValueError if it does not.

    :param name: of the argument, as the user knows it.
    :param last: the last timestep, T - 1; None if that is not known yet.
    """
    start = check_integer(name, start, 0, last)
    if start and isinstance(source, _OWN_TIMESTEPS):
        raise ValueError(
            f"{name} is for sources that draw timesteps uniformly, not "
            f"{type(source).__name__}; leave it at 0"
        )
    return start


def check_both_predictions(name: str, model: Any) -> None:
    """Raise ValueError unless a model can predict both with and without a class.

    :param name: of the argument that needs it, as the user knows it.
    """
    if model.none is None:
        raise ValueError(
            f"{name} needs a model that can predict both with and without a class; make it "
            "with num_classes= and condition_dropout="
        )
