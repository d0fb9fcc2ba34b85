"""A teacher's samples: made ahead for some steps, or made once and drawn from a pool."""

import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.distributed.shares import (
    draw_share,
    gathered,
    own_share,
    sharing_processes,
    unshared,
)
from avalanche_gd.models.sampler import check_sampler
from avalanche_gd.plugins.guidance import ClassifierGuidance
from avalanche_gd.plugins.teaching import Taught

LOOK_AHEAD = 4
"""The default for how many steps at once a teacher makes samples."""

_BATCH_SIZE = 500  # samples that are generated at once
_BYTES = 4  # per pixel
_SHARE = 0.5  # of the free memory, at most, for a pool


class Drawn(NamedTuple):
    """The samples that a step can replay."""

    condition: Tensor | None
    """The class of each sample, ``(N,)``, evenly over those that the teacher was trained
    on; None if it is not conditioned."""
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
        self._count = 0  # samples per step

    def next(
        self,
        teacher: Any,
        count: int,
        make: Callable[[int], list[Any]],
        steps_left: int | None = None,
    ) -> Any:
        """Return what this step takes.

        :param teacher: the teacher that makes it; what another teacher made is released.
        :param count: how many samples.
        :param make: makes it for a number of steps of ``count`` samples, in order.
        :param steps_left: how many steps the teacher still has, this one included; None if
            that is not known.
        """
        if self._teacher is None or self._teacher() is not teacher:
            self.forget()
            self._teacher = weakref.ref(teacher)
        if self._waiting and self._count != count:
            # The last batch of an epoch may be smaller: keep what waits for later steps.
            return make(1)[0]
        if not self._waiting:
            self._count = count
            steps = self.ahead if steps_left is None else min(self.ahead, steps_left)
            self._waiting = make(steps)
        return self._waiting.pop(0)

    def forget(self) -> None:
        """Release what waits, because the teacher changes."""
        self._waiting, self._teacher = [], None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_waiting=[], _teacher=None)


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
        self.options: dict[str, Any] = _sampling(steps, sampler, eta)
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
                classes = [c if c is None else _first_of(c, number) for c in conditions]
                made.extend(self._samples(teacher, noises, classes, generator))
            have, condition = len(made[step]), conditions[step]
            if have < number:
                if condition is not None:
                    condition = _first_of(condition, number, after=have)
                noises = [noise(number - have)]
                (more,) = self._samples(teacher, noises, [condition], generator)
                made[step] = own_share(torch.cat([gathered(made[step]), gathered(more)]))
            return _first_of(made[step], number)

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


class ReplayPool:
    """A memory of a teacher's samples, of a fixed size.

    It is filled when an experience begins. With k sampling steps, batches of B and S steps
    an experience, it costs ``k size / (B S)`` F a step instead of k F. A copy, also by
    pickle, is empty, and is filled when it is drawn from.

    :param size: how many samples it holds.
    :param refresh_every: after how many draws it is filled again; None to keep it for the
        experience.
    :param per_class: True if ``size`` is of each class that a conditioned teacher was
        trained on.
    :param steps: k, the sampling steps.
    :param sampler: a name in :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :param eta: from 0 for DDIM to 1 for ancestral sampling.
    :param guidance: guides the teacher's sampling by a classifier; None for no guidance.
    :raises ValueError: unless size, refresh and ``steps`` are integers of 1 or more, for an
        unknown sampler, or for an ``eta`` that is not in ``[0, 1]``; when it is filled, for
        a size below the number of classes, or ``per_class`` with a teacher without classes.
    """

    def __init__(
        self,
        size: int,
        refresh_every: int | None = None,
        *,
        steps: int,
        sampler: str = "own",
        eta: float = 0.0,
        per_class: bool = False,
        guidance: ClassifierGuidance | None = None,
    ):
        self.size = check_integer("pool_per_class" if per_class else "pool_size", size)
        self.per_class = per_class
        self.refresh_every = refresh_every
        if refresh_every is not None:
            self.refresh_every = check_integer("pool_refresh", refresh_every)
        self.options: dict[str, Any] = _sampling(steps, sampler, eta)
        self.guidance = guidance
        self._images: Tensor | None = None
        self._first: Tensor | None = None
        self._teacher: Any = None
        self._draws = 0

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless a pool of this model's samples is possible.

        It must hold a sample of each class, and take at most half of the free memory.
        """
        _check_memory(model, self.samples_of(model.num_classes))

    def samples_of(self, n_classes: int | None) -> int:
        """How many samples it holds if the teacher knows ``n_classes`` classes.

        :param n_classes: None for a teacher that is not conditioned.
        :raises ValueError: if there are fewer samples than classes, or for ``per_class``
            with a teacher that is not conditioned.
        """
        if n_classes is None:
            if self.per_class:
                raise ValueError(
                    "pool_per_class needs a model that is conditioned on the class; make "
                    "it with num_classes=, or give pool_size"
                )
            return self.size
        size = self.size * n_classes if self.per_class else self.size
        if size < n_classes:
            raise ValueError(
                f"a pool of {size} samples is too small for {n_classes} classes; "
                f"give a pool_size of {n_classes} or more"
            )
        return size

    def draw(
        self,
        teacher: Any,
        count: int,
        generator: torch.Generator,
        *,
        steps_left: int | None = None,
    ) -> Drawn:
        """Draw samples with replacement.

        :param teacher: fills the pool if it holds another teacher's samples, or if they are
            due to be refreshed.
        :param count: how many.
        :param generator: the source of all randomness.
        :param steps_left: not used.
        """
        condition = teacher.draw_condition(count, generator)
        drawn: list[Tensor] = []

        def images(number: int = count) -> Tensor:
            check_integer("number", number, 0, count)
            if not drawn:
                drawn.append(self._draw(teacher, count, condition, generator))
            return _first_of(drawn[0], number)

        return Drawn(condition, images)

    def forget(self) -> None:
        """Release the samples, because the teacher changes."""
        self._images = self._first = self._teacher = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_images=None, _first=None, _teacher=None)

    def _draw(
        self,
        teacher: Any,
        count: int,
        condition: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        is_due = self.refresh_every is not None and self._draws == self.refresh_every
        if self._teacher is None or self._teacher() is not teacher or is_due:
            with unshared():  # the same whole pool in every process
                self._fill(teacher, generator)
        assert self._images is not None
        self._draws += 1
        device = generator.device
        u = draw_share(count, lambda n: torch.rand(n, generator=generator, device=device))
        u = u.to(self._images.device)
        if condition is None or self._first is None:
            return self._images[(u * len(self._images)).long()]
        first, end = self._first[condition], self._first[condition + 1]
        within = (u * (end - first)).long()  # first, as the sum could round up to end
        return self._images[first + within]

    def _fill(self, teacher: Any, generator: torch.Generator) -> None:
        """Generate the samples, sorted by class."""
        self.forget()
        self._draws = 0
        self._teacher = weakref.ref(teacher)
        known = teacher.num_classes and int(teacher.classes_seen.sum())
        size = self.samples_of(known)
        condition = teacher.draw_condition(size, generator)
        if condition is not None:
            condition = condition.sort().values
            counts = torch.bincount(condition, minlength=teacher.num_classes)
            self._first = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        guidance, wanted = self.guidance, None
        if guidance is not None:
            wanted = guidance.draw_classes(condition, size, generator)
        made, options = [], dict(self.options)
        for start in range(0, size, _BATCH_SIZE):
            part = slice(start, min(size, start + _BATCH_SIZE))
            if guidance is not None and wanted is not None:
                options["guide"] = guidance.guide(teacher, wanted[part])
            classes = None if condition is None else condition[part]
            count = part.stop - start
            made.append(teacher.generate(count, classes, generator=generator, **options))
        self._images = torch.cat(made)


class PairPool:
    """A memory of noisy images and a teacher's predictions there, of a fixed size.

    It is filled when an experience begins, in large batches, so that a step needs no pass
    of the teacher. With k sampling steps, batches of B and S steps an experience, it costs
    ``(k + 1) size / (B S)`` F a step instead of (k + 1) F. A copy, also by pickle, is
    empty, and is filled when it is drawn from.

    :param size: how many pairs it holds.
    :param refresh_every: after how many draws it is filled again; None to keep it for the
        experience.
    :param with_none: True if a pair has two predictions, with and without a class.
    :raises ValueError: unless size and refresh are integers of 1 or more.
    """

    def __init__(
        self, size: int, refresh_every: int | None = None, *, with_none: bool = False
    ):
        self._images = 3 if with_none else 2  # per pair
        self.size = check_integer("pool_size", size)
        self.refresh_every = refresh_every
        if refresh_every is not None:
            self.refresh_every = check_integer("pool_refresh", refresh_every)
        self._pairs: Taught | None = None
        self._teacher: Any = None
        self._draws = 0

    per_class = False

    def samples_of(self, n_classes: int | None) -> int:
        """How many pairs it holds, which does not depend on the classes."""
        return self.size

    def check_model(self, model: Any) -> None:
        """Raise ValueError if it would take more than half of the free memory."""
        _check_memory(model, self.size, images=self._images)

    def draw(
        self,
        teacher: Any,
        count: int,
        generator: torch.Generator,
        make: Callable[[int], Taught],
    ) -> Taught:
        """Draw pairs with replacement.

        :param teacher: the pool is filled if its pairs are from another teacher, or if they
            are due to be refreshed.
        :param count: how many.
        :param generator: decides which pairs are drawn.
        :param make: makes the given number of pairs.
        """
        is_due = self._draws == self.refresh_every
        if self._teacher is None or self._teacher() is not teacher or is_due:
            self.forget()
            self._teacher = weakref.ref(teacher)
            starts = range(0, self.size, _BATCH_SIZE)
            with unshared():  # the same whole pool in every process
                made = [make(min(_BATCH_SIZE, self.size - start)) for start in starts]
            self._pairs = Taught.joined(made)
        assert self._pairs is not None
        self._draws += 1
        device = generator.device
        u = draw_share(count, lambda n: torch.rand(n, generator=generator, device=device))
        return self._pairs.at((u * self.size).long().clamp(max=self.size - 1))

    def forget(self) -> None:
        """Release the pairs, because the teacher changes."""
        self._pairs = self._teacher = None
        self._draws = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_pairs=None, _teacher=None, _draws=0)


def _check_memory(model: Any, size: int, images: int = 1) -> None:
    """Raise ValueError if a pool would take more than half of the free memory.

    :param images: how many images each of its samples has.
    """
    needed = size * images * math.prod(model.sample_shape) * _BYTES
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
    else:
        free = psutil.virtual_memory().available
    if needed > _SHARE * free:
        raise ValueError(
            f"a pool of {size} samples needs {needed / 2**30:.1f} GiB, more than half of "
            f"the {free / 2**30:.1f} GiB that are free; make it smaller"
        )


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


def _first_of(rows: Tensor, count: int, *, after: int = 0) -> Tensor:
    """This process's share of the first rows of all processes.

    :param rows: this process's share of all rows.
    :param count: how many of the first rows are this process's.
    :param after: how many of these, from the first on, are left out.
    """
    if len(rows) == count and not after:
        return rows
    processes = sharing_processes()
    return own_share(gathered(rows)[after * processes : count * processes])


def _sampling(steps: int, sampler: str, eta: float) -> dict[str, Any]:
    """The keyword arguments for a teacher's sampling."""
    return dict(
        steps=check_integer("steps", steps),
        sampler=check_sampler(sampler),
        eta=check_number("eta", eta, "in [0, 1]"),
    )
