"""A pool of a teacher's samples, or of its predictions, that steps draw from."""

import math
import weakref
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.distributed.shares import (
    draw_share,
    unshared,
)
from avalanche_gd.models.conditioning import draw_evenly
from avalanche_gd.plugins.guidance import ClassifierGuidance
from avalanche_gd.plugins.look_ahead import (
    Drawn,
    check_asked,
    first_of,
    sampling_options,
)
from avalanche_gd.plugins.teaching import Taught

_BATCH_SIZE = 500  # samples that are generated at once
_BYTES = 4  # per pixel
_SHARE = 0.5  # of the free memory, at most, for a pool


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
        self.options: dict[str, Any] = sampling_options(steps, sampler, eta)
        self.guidance = guidance
        self._images: Tensor | None = None
        self._first: Tensor | None = None
        self._teacher: Any = None
        self._draws = 0

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless a pool of this model's samples is possible.

        It must hold a sample of each class, and take at most half of the free memory.
        """
        size = self.samples_of(model.num_classes)
        check_memory(f"a pool of {size} samples", model, size, model.device)

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
        return _check_classes(size, n_classes)

    def draw(
        self,
        teacher: Any,
        count: int,
        generator: torch.Generator,
        *,
        steps_left: int | None = None,
    ) -> Drawn:
        """Draw samples with replacement, evenly over the classes in the pool.

        A class that the teacher gets to know later comes when the pool is filled again.

        :param teacher: fills the pool if it holds another teacher's samples, or if they are
            due to be refreshed.
        :param count: how many.
        :param generator: the source of all randomness.
        :param steps_left: not used.
        """
        condition = self._draw_condition(teacher, count, generator)
        drawn: list[Tensor] = []

        def images(number: int = count) -> Tensor:
            check_integer("number", number, 0, count)
            if not drawn:
                drawn.append(self._draw(teacher, count, condition, generator))
            return first_of(drawn[0], number)

        return Drawn(condition, images)

    def forget(self) -> None:
        """Release the samples, because the teacher changes."""
        self._images = self._first = self._teacher = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_images=None, _first=None, _teacher=None)

    def _draw_condition(
        self, teacher: Any, count: int, generator: torch.Generator
    ) -> Tensor | None:
        """The classes of a step's samples; None if the teacher is not conditioned."""
        if self._first is None or self._is_to_be_filled(teacher):
            return teacher.draw_condition(count, generator)
        held = self._first.diff().nonzero().flatten()
        return draw_evenly(held, count, generator)

    def _is_to_be_filled(self, teacher: Any) -> bool:
        """True if it is empty, holds another teacher's samples, or is to be refreshed."""
        is_due = self.refresh_every is not None and self._draws == self.refresh_every
        return self._teacher is None or self._teacher() is not teacher or is_due

    def _draw(
        self,
        teacher: Any,
        count: int,
        condition: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        if self._is_to_be_filled(teacher):
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
        size = self.samples_of(_known(teacher))
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
    :raises ValueError: unless size and refresh are integers of 1 or more; when it is
        filled, for a size below the number of classes.
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
        self._asked: Any = None
        self._draws = 0

    per_class = False

    def samples_of(self, n_classes: int | None) -> int:
        """How many pairs it holds, which does not depend on the classes.

        :param n_classes: None for a teacher that is not conditioned.
        :raises ValueError: if there are fewer pairs than classes.
        """
        return self.size if n_classes is None else _check_classes(self.size, n_classes)

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless a pool of this model's pairs is possible.

        It must hold as many as there are classes, and take at most half of the free memory.
        """
        size = self.samples_of(model.num_classes)
        check_memory(f"a pool of {size} samples", model, size * self._images, model.device)

    def draw(
        self,
        teacher: Any,
        count: int,
        generator: torch.Generator,
        make: Callable[[int], Taught],
        asked: Any = None,
    ) -> Taught:
        """Draw pairs with replacement.

        :param teacher: the pool is filled if its pairs are from another teacher, or if they
            are due to be refreshed.
        :param count: how many.
        :param generator: decides which pairs are drawn.
        :param make: makes the given number of pairs.
        :param asked: how they are made, which must be the same for one teacher.
        :raises ValueError: if it is another way.
        """
        is_due = self._draws == self.refresh_every
        is_known = self._teacher is not None and self._teacher() is teacher
        if is_known:
            check_asked("pairs", self._asked, asked)
        if not is_known or is_due:
            self.forget()
            self.samples_of(_known(teacher))
            self._teacher, self._asked = weakref.ref(teacher), asked
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
        self._pairs = self._teacher = self._asked = None
        self._draws = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | dict(_pairs=None, _teacher=None, _asked=None, _draws=0)


def _known(teacher: Any) -> int | None:
    """How many classes a teacher was trained on; None if it is not conditioned."""
    return teacher.num_classes and int(teacher.classes_seen.sum())


def _check_classes(size: int, n_classes: int) -> int:
    """Return the size of a pool; raise ValueError if it is below the number of classes."""
    if size < n_classes:
        raise ValueError(
            f"a pool of {size} samples is too small for {n_classes} classes; "
            f"give a pool_size of {n_classes} or more"
        )
    return size


def check_memory(what: str, model: Any, images: int, device: torch.device) -> None:
    """Raise ValueError if images would take more than half of the free memory.

    :param what: they are, in the message.
    :param model: makes them.
    :param images: how many are kept at a time.
    """
    needed = images * math.prod(model.sample_shape) * _BYTES
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    if needed > _SHARE * free:
        raise ValueError(
            f"{what} needs {needed / 2**30:.1f} GiB, more than half of the "
            f"{free / 2**30:.1f} GiB that are free; make it smaller"
        )
