"""Teach a student what a source draws, in the same pass as its current batch."""

import inspect
from typing import Any

import torch
from torch import Tensor

from avalanche_gd.checks import check_choice, check_integer, check_number
from avalanche_gd.distributed.shares import (
    check_shares,
    gathered,
    own_share,
    sharing_processes,
)
from avalanche_gd.models.denoising import Denoising, Question
from avalanche_gd.models.random_state import default_generator
from avalanche_gd.plugins.drawing import (
    WITHOUT_SAMPLES,
    check_both_predictions,
    check_start,
    draw,
)
from avalanche_gd.plugins.experiences import experience_number
from avalanche_gd.plugins.guidance import ClassifierGuidance
from avalanche_gd.plugins.look_ahead import Ahead, Drawn, LookAhead
from avalanche_gd.plugins.pool import PairPool, ReplayPool
from avalanche_gd.plugins.sources import Source, Trajectory
from avalanche_gd.plugins.teaching import Taught

POOLS = ("samples", "pairs")
"""What a pool can hold: a teacher's samples, or noisy images and its predictions there."""


class Lesson:
    """Teaches a student what a source draws, in the forward pass of its current batch.

    For the options see :class:`~avalanche_gd.GenerativeDistillationPlugin` and
    :class:`~avalanche_gd.GenerativeReplayPlugin`.

    :param source: draws what is taught.
    :raises ValueError: for teacher steps, a replay size, a look-ahead or a pool that is not
        an integer of 1 or more, a ratio that is not a finite number above 0, a refresh
        without a pool, both kinds of a pool, an unknown sampler, an eta that is not in
        ``[0, 1]`` or that the sampler does not have, a start that is not an integer of 0 or
        more, a replay size that is both fixed and increasing, a ratio beside a size, or an
        unconditional weight that is negative or not finite.
    :raises TypeError: if the generator is not a :class:`torch.Generator`, or the guidance
        not a :class:`~avalanche_gd.ClassifierGuidance`.
    """

    def __init__(
        self,
        source: Source,
        *,
        teacher_steps: int,
        replay_ratio: float,
        look_ahead: int,
        pool_size: int | None,
        pool_per_class: int | None,
        pool_refresh: int | None,
        teacher_sampler: str,
        teacher_eta: float,
        replay_start_timestep: int,
        increasing_replay_size: bool,
        generator: torch.Generator | None,
        replay_size: int | None = None,
        pool_of: str = "samples",
        unconditional_weight: float | None = None,
        guidance: ClassifierGuidance | None = None,
    ):
        self.source = source
        self.is_independent = bool(getattr(source, "independent", False))
        self.steps = check_integer("teacher_steps", teacher_steps)
        self.ratio = check_number("replay_ratio", replay_ratio, "above 0")
        self.size = None
        if replay_size is not None:
            self.size = check_integer("replay_size", replay_size)
            if replay_ratio != 1:
                raise ValueError(
                    "replay_ratio is of the current batch, but replay_size is fixed; give "
                    "one of the two"
                )
            if increasing_replay_size:
                raise ValueError(
                    "increasing_replay_size increases replay_ratio, but replay_size is "
                    "fixed; give one of the two"
                )
        self.is_increasing = increasing_replay_size
        self._times = 1  # how many times as many samples as in the second experience
        self.start = check_start("replay_start_timestep", replay_start_timestep, source)
        self.eta = check_number("teacher_eta", teacher_eta, "in [0, 1]")
        if self.eta and teacher_sampler != "own":
            raise ValueError(
                f'teacher_eta is for teacher_sampler="own"; {teacher_sampler!r} does not '
                "have it"
            )
        if not isinstance(generator, torch.Generator | None):
            raise TypeError(f"generator must be a torch.Generator, got {generator!r}")
        self.generator = generator
        self.without = unconditional_weight
        if unconditional_weight is not None:
            check_number("unconditional_weight", unconditional_weight, "0 or more")
        if not isinstance(guidance, ClassifierGuidance | None):
            raise TypeError(f"guidance must be a ClassifierGuidance, got {guidance!r}")
        self.guidance = guidance
        how: dict[str, Any] = dict(
            steps=teacher_steps, sampler=teacher_sampler, eta=teacher_eta, guidance=guidance
        )
        self.taught = Ahead(look_ahead)
        self.samples: LookAhead | ReplayPool = LookAhead(look_ahead, **how)
        self.pairs: PairPool | None = None
        check_choice("pool of", pool_of, POOLS)
        if pool_per_class is not None:
            if pool_size is not None or pool_of == "pairs":
                other = "pool_of=pairs" if pool_size is None else "pool_size"
                raise ValueError(f"give {other} or pool_per_class, not both")
            self.samples = ReplayPool(pool_per_class, pool_refresh, per_class=True, **how)
        elif pool_size is None:
            if pool_refresh is not None or pool_of != "samples":
                option = "pool_of" if pool_refresh is None else "pool_refresh"
                raise ValueError(f"{option} needs a pool; give pool_size")
        elif pool_of == "samples":
            self.samples = ReplayPool(pool_size, pool_refresh, **how)
        elif self.is_independent:
            self.pairs = PairPool(pool_size, pool_refresh, with_none=bool(self.without))
        else:
            raise ValueError(
                f"{type(source).__name__} depends on the current batch and cannot fill a "
                "pool of pairs; choose another source, or pool_of=samples"
            )
        self._asked: tuple[Taught, Question] | None = None
        self._noisy: str | None = None  # the model's scheduler, if its steps draw noise

    @property
    def is_fresh(self) -> bool:
        """True if steps use new samples instead of a pool's."""
        return isinstance(self.samples, LookAhead) and self.pairs is None

    def begin_experience(self, strategy: Any) -> None:
        """Set how many samples a step of this experience takes."""
        if self.is_increasing:
            self._times = max(1, experience_number(strategy) - 1)

    def count(self, batch_size: int) -> int:
        """How many samples go with a batch of ``batch_size`` images, at least one."""
        return self.size or self._times * max(1, round(self.ratio * batch_size))

    def share(self, share: int) -> int:
        """How many of them are this process's, for its share of a batch."""
        processes = sharing_processes()
        return self.count(share * processes) // processes

    def begin(self, strategy: Any, teacher: Any) -> None:
        """Before the forward pass of a step: draw, and queue the student's question."""
        self.end(strategy)
        taught = self._draw(strategy, teacher).apart()
        question = Question(taught.x_t, taught.timesteps, taught.condition)
        if strategy.model.one_pass:
            strategy.model.questions.append(question)
        self._asked = taught, question

    def loss(self, strategy: Any, teacher: Any) -> Tensor:
        """Before the backward pass: the criterion of the student's answer.

        The criterion is called with a :class:`~avalanche_gd.Denoising` and the classes that
        are taught, ``(N,)``, where ``num_classes`` stands for no class; None in their place
        for a model that is not conditioned.
        """
        if self._asked is None:
            self.begin(strategy, teacher)
        assert self._asked is not None
        classes = self._asked[0].condition
        answer = self.answer(strategy, teacher)
        if not self.without or classes is None:
            return strategy._criterion(answer, classes)
        halves = zip(*(part.chunk(2) for part in (*answer, classes)), strict=True)
        of_class, of_none = (
            strategy._criterion(Denoising(*half), given) for *half, given in halves
        )
        return (of_class + self.without * of_none) / (1 + self.without)

    @property
    def classes(self) -> Tensor | None:
        """The classes that this step teaches, ``(N,)``; None without a condition."""
        return None if self._asked is None else self._asked[0].condition

    def answer(self, strategy: Any, teacher: Any) -> Denoising:
        """After the forward pass: the student's prediction and its target."""
        if self._asked is None:
            self.begin(strategy, teacher)
        assert self._asked is not None
        taught, question = self._asked
        prediction = question.answer(strategy.model, strategy.mb_output)
        self.end(strategy)
        return Denoising(prediction, taught.target, taught.timesteps)

    def end(self, strategy: Any) -> None:
        """Remove the question of a step, also if the step was interrupted."""
        if self._asked is not None and self._asked[1] in strategy.model.questions:
            strategy.model.questions.remove(self._asked[1])
        self._asked = None

    def check_shares(self, batch_size: int, processes: int) -> None:
        """Raise ValueError unless processes can share the samples of a step.

        After :meth:`check_model`, the noise that the model's sampling draws is known, too.

        :param batch_size: the size of the current batch over all processes.
        """
        name = f"replay_ratio {self.ratio:g} times the batch size {batch_size}"
        if self.size is not None:
            name = "replay_size"
        if self.is_fresh and processes > 1:
            self._check_noise()
        each = self.steps if isinstance(self.source, Trajectory) else 1
        check_shares(name, self.count(batch_size), processes, each=each)

    def _check_noise(self) -> None:
        """Raise ValueError if the steps of the teacher's sampling draw noise."""
        if self.eta:
            raise ValueError(
                "several processes cannot share the noise that teacher_eta adds; leave it "
                "at 0, or draw from a pool"
            )
        if self._noisy is not None and not isinstance(self.source, WITHOUT_SAMPLES):
            raise ValueError(
                f"several processes cannot share the noise that {self._noisy} adds; make "
                "the model with a scheduler that adds none, such as DDIMScheduler, or draw "
                "from a pool"
            )

    def check_model(self, model: Any) -> None:
        """Raise ValueError for timesteps above the model's, or an option that does not fit.

        That is a pool, an eta that its scheduler does not have, or an unconditional weight
        of a model that cannot predict both with and without a class.
        """
        if self.without is not None:
            check_both_predictions("unconditional_weight", model)
        if self.without and model.condition_dropout == 0:
            raise ValueError(
                "unconditional_weight needs a model that is also trained without the "
                "class; give condition_dropout, for example 0.1"
            )
        sampler = self.samples.options["sampler"]
        model.check_steps(self.steps, sampler)
        check_integer("replay_start_timestep", self.start, 0, model.num_timesteps - 1)
        scheduler = model.noise_scheduler
        self._noisy = type(scheduler).__name__ if model.draws_noise(sampler) else None
        if self.eta and "eta" not in inspect.signature(scheduler.step).parameters:
            raise ValueError(
                f"{type(scheduler).__name__} does not have eta; leave teacher_eta at 0"
            )
        parts: list[Any] = [self.samples, self.pairs, self.source]
        for part in parts:
            if hasattr(part, "check_model"):
                part.check_model(model)

    def draw(self, strategy: Any, teacher: Any, count: int) -> Drawn:
        """The teacher's samples for a step of a strategy."""
        generator = self.generator or default_generator(teacher.device)
        left = _steps_left(strategy)
        return self.samples.draw(teacher, count, generator, steps_left=left)

    def forget(self) -> None:
        """Release all that a teacher has made."""
        for part in (self.taught, self.samples, self.pairs):
            if part is not None:
                part.forget()

    def _draw(self, strategy: Any, teacher: Any) -> Taught:
        """What this step teaches."""
        current = None if self.is_independent else self._resized(strategy.mb_x)
        return draw(
            self.source,
            teacher,
            self.share(len(strategy.mb_x)),
            steps=self.steps,
            generator=self.generator,
            current=current,
            student=strategy.model if current is strategy.mb_x else None,
            start=self.start,
            samples=self.samples,
            pairs=self.pairs,
            ahead=self.taught,
            steps_left=_steps_left(strategy),
            with_none=None if self.without is None else self.without > 0,
        )

    def _resized(self, batch: Tensor) -> Tensor:
        """The batch, cut or repeated to as many images as are taught together with it."""
        if self.share(len(batch)) == len(batch):
            return batch
        whole = gathered(batch)
        index = torch.arange(self.count(len(whole)), device=whole.device) % len(whole)
        return own_share(whole[index])


def _steps_left(strategy: Any) -> int | None:
    """Steps left in the experience, this one included; None if epochs are counted."""
    budget = getattr(strategy, "train_steps", None)
    return None if budget is None else budget - strategy.clock.train_exp_iterations


class LessonPlugin:
    """What plugins that have a lesson share."""

    lesson: Lesson

    @property
    def guidance(self) -> ClassifierGuidance | None:
        """The guidance of the teacher's sampling by a classifier."""
        return self.lesson.guidance

    @property
    def look_ahead(self) -> int:
        """For how many steps at once the teacher is asked."""
        return self.lesson.taught.ahead

    @look_ahead.setter
    def look_ahead(self, ahead: int) -> None:
        self.lesson.taught.ahead = check_integer("look_ahead", ahead)
        if isinstance(self.lesson.samples, LookAhead):
            self.lesson.samples.ahead = ahead

    def check_shares(self, batch_size: int, processes: int) -> None:
        """See :meth:`Lesson.check_shares`."""
        self.lesson.check_shares(batch_size, processes)
