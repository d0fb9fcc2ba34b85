"""A teacher's samples, made for several steps at once."""

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.distributed.shares import (
    gathered,
    own_share,
    sharing_processes,
    unshared,
)
from avalanche_gd.models.sampler import check_sampler
from avalanche_gd.plugins.guidance import ClassifierGuidance

LOOK_AHEAD = 4
"""The default for how many steps at once a teacher makes samples."""


class Drawn(NamedTuple):
    """The samples that a step can replay."""

    condition: Tensor | None
    """The class of each sample, ``(N,)``, evenly over those that the teacher knew when the
    samples were made; None if it is not conditioned."""
    images: Callable[..., Tensor]
    """A function that returns the samples, ``(N, C, H, W)``, and makes them if necessary;
    called with a number from 0 to N, it returns only the first so many. Called again, it
    returns the same ones, and makes what is missing."""


class Ahead:
    """Makes, for several steps at once, what each of them takes.

    A copy, also by pickle, has nothing waiting: it makes it anew.

    :param ahead: how many steps at once, 1 or more.
    :raises ValueError: unless that is an integer of 1 or more.
    """

    def __init__(self, ahead: int):
        self.ahead = check_integer("look_ahead", ahead)
        self._waiting: list[Any] = []
        self._teacher: Any = None  # a weak reference to the one that made them
        self._asked: Any = None  # how they were drawn
        self._count = 0  # samples in most steps

    def next(
        self,
        teacher: Any,
        count: int,
        make: Callable[[int], list[Any]],
        steps_left: int | None = None,
        asked: Any = None,
    ) -> Any:
        """Return what this step takes.

        :param teacher: the teacher that makes it; what another teacher made is released.
        :param count: how many samples.
        :param make: makes it for a number of steps of ``count`` samples, in order.
        :param steps_left: how many steps the teacher still has, this one included; None if
            that is not known.
        :param asked: how it is made, which must be the same for one teacher.
        :raises ValueError: if it is another way.
        """
        if self._teacher is None or self._teacher() is not teacher:
            self.forget()
            self._teacher, self._asked = weakref.ref(teacher), asked
        check_asked("ahead", self._asked, asked)
        if count < self._count:  # the last batch of an epoch: the others' samples wait
            return make(1)[0]
        if count > self._count or not self._waiting:
            self._count = count
            steps = self.ahead if steps_left is None else min(self.ahead, steps_left)
            self._waiting = make(steps)
        return self._waiting.pop(0)

    def forget(self) -> None:
        """Release what waits, because the teacher changes."""
        self._waiting, self._teacher, self._asked, self._count = [], None, None, 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_waiting=[], _teacher=None, _asked=None, _count=0)


def check_asked(name: str, known: Any, asked: Any) -> None:
    """Raise ValueError if what is kept was drawn in another way than is asked for now.

    :param name: of the argument that keeps it.
    """
    if known != asked:
        raise ValueError(
            f"{name} keeps what this teacher drew with another source, start, steps or "
            "with_none; give another one for each"
        )


class LookAhead(Ahead):
    """A teacher's samples, made for several steps at once.

    A teacher is frozen during an experience, and one pass over several batches takes less
    time than several passes over one. The classes of these steps are drawn first, then
    their noise. So where classes, timesteps or an ``eta`` are drawn too, the samples of one
    state of the generator differ with ``ahead``; their distribution does not.

    :param ahead: how many steps at once, 1 or more.
    :param steps: k, the sampling steps.
    :param sampler: a name in :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :param eta: from 0 for DDIM to 1 for ancestral sampling.
    :param guidance: guides the teacher's sampling by a classifier; None for no guidance.
    :raises ValueError: unless ``ahead`` and ``steps`` are integers of 1 or more, for an
        unknown sampler, or for an ``eta`` that is not in ``[0, 1]``.
    """

    def __init__(
        self,
        ahead: int,
        *,
        steps: int,
        sampler: str = "own",
        eta: float = 0.0,
        guidance: ClassifierGuidance | None = None,
    ):
        super().__init__(ahead)
        self.options: dict[str, Any] = sampling_options(steps, sampler, eta)
        self.guidance = guidance

    def draw(
        self,
        teacher: Any,
        count: int,
        generator: torch.Generator,
        *,
        steps_left: int | None = None,
    ) -> Drawn:
        """Samples for a step.

        :param teacher: a :class:`~avalanche_gd.DiffusionModel`.
        :param count: how many.
        :param generator: the source of all randomness.
        :param steps_left: how many steps the teacher still has, this one included; None if
            that is not known.
        """

        def make(steps: int) -> list[Drawn]:
            return self._window(teacher, count, generator, steps)

        return self.next(teacher, count, make, steps_left)

    def _window(
        self, teacher: Any, count: int, generator: torch.Generator, steps: int
    ) -> list[Drawn]:
        conditions = [teacher.draw_condition(count, generator) for _ in range(steps)]
        made: list[Tensor] = []

        def noise(number: int) -> Tensor:
            return teacher.draw_noise(number, generator)

        def images(step: int, number: int) -> Tensor:
            check_integer("number", number, 0, count)
            if not made:
                noises = [_first(noise, count, number) for _ in range(steps)]
                classes = [c if c is None else first_of(c, number) for c in conditions]
                made.extend(self._samples(teacher, noises, classes, generator))
            have, condition = len(made[step]), conditions[step]
            if have < number:
                if condition is not None:
                    condition = first_of(condition, number, after=have)
                noises = [noise(number - have)]
                (more,) = self._samples(teacher, noises, [condition], generator)
                made[step] = own_share(torch.cat([gathered(made[step]), gathered(more)]))
            return first_of(made[step], number)

        return [
            Drawn(condition, lambda number=count, step=step: images(step, number))
            for step, condition in enumerate(conditions)
        ]

    def _samples(
        self,
        teacher: Any,
        noises: list[Tensor],
        conditions: list[Tensor | None],
        generator: torch.Generator,
    ) -> list[Tensor]:
        """The samples of several steps, in one pass.

        :param noises: where the reverse process of each step starts, ``(N, C, H, W)``.
        :param conditions: the classes of each step's samples, ``(N,)``.
        """
        sizes = [len(noise) for noise in noises]
        classes = [condition for condition in conditions if condition is not None]
        options = dict(self.options)
        if self.guidance is not None:
            asked = zip(conditions, sizes, strict=True)
            wanted = [self.guidance.draw_classes(*part, generator) for part in asked]
            options["guide"] = self.guidance.guide(teacher, torch.cat(wanted))
        condition = torch.cat(classes) if classes else None
        samples = teacher.reverse(
            torch.cat(noises), condition, generator=generator, **options
        )
        return list(samples.split(sizes))


def _first(draw: Callable[[int], Tensor], count: int, number: int) -> Tensor:
    """This process's share of the first rows of what all processes draw together.

    :param draw: draws this process's share of a batch.
    :param count: the size of that share.
    :param number: how many of the first rows are this process's.
    """
    if number == count:
        return draw(count)
    processes = sharing_processes()
    with unshared():
        whole = draw(processes * count)
    return own_share(whole[: processes * number])


def first_of(rows: Tensor, count: int, *, after: int = 0) -> Tensor:
    """This process's share of the first rows of all processes.

    :param rows: this process's share of all rows.
    :param count: how many of the first rows are this process's.
    :param after: how many of these, from the first on, are left out.
    """
    if len(rows) == count and not after:
        return rows
    processes = sharing_processes()
    return own_share(gathered(rows)[after * processes : count * processes])


def sampling_options(steps: int, sampler: str, eta: float) -> dict[str, Any]:
    """The keyword arguments for a teacher's sampling."""
    return dict(
        steps=check_integer("steps", steps),
        sampler=check_sampler(sampler),
        eta=check_number("eta", eta, "in [0, 1]"),
    )
