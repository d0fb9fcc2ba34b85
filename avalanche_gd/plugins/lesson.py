"""A student learns what a source draws, in the pass of its current batch."""

from typing import Any

import torch
from torch import Tensor

from avalanche_gd.distributed.shares import (
    check_shares,
    gathered,
    own_share,
    sharing_processes,
)
from avalanche_gd.models.denoising import Denoising, Question
from avalanche_gd.plugins.pool import LookAhead, ReplayPool
from avalanche_gd.plugins.sources import Source, Trajectory
from avalanche_gd.plugins.teacher import default_generator
from avalanche_gd.plugins.teaching import Taught, TeachingRequest


class ReplaySize:
    """How many samples are replayed with a batch.

    :param ratio: for each image of the batch, above 0; at least one sample in all.
    :param size: a number that does not depend on the batch; None for the ratio.
    :raises ValueError: for a ratio of 0 or below, or a size below 1.
    """

    def __init__(self, ratio: float = 1.0, size: int | None = None):
        if not ratio > 0:
            raise ValueError(f"replay_ratio must be above 0, got {ratio}")
        if size is not None and size < 1:
            raise ValueError(f"replay_size must be 1 or more, got {size!r}")
        self.ratio = float(ratio)
        self.size = size

    def of(self, batch_size: int) -> int:
        """With a batch of so many images."""
        return self.size or max(1, round(self.ratio * batch_size))

    def share(self, batch_size: int) -> int:
        """This process's share of those, with its share of a batch."""
        processes = sharing_processes()
        return self.of(batch_size * processes) // processes

    def check_shares(self, batch_size: int, processes: int, *, each: int = 1) -> None:
        """Raise ValueError unless processes can share the samples of a step.

        :param batch_size: of the current data, in all of them.
        :param each: what the share of each must be a multiple of.
        """
        name = f"replay_ratio {self.ratio:g} times the batch size {batch_size}"
        if self.size is not None:
            name = "replay_size"
        check_shares(name, self.of(batch_size), processes, each=each)


class Lesson:
    """Has a student taught by a source, in the forward pass of its current batch.

    :param source: draws what is taught.
    :param samples: the teacher's, for sources that take some.
    :param size: how many are taught with a batch.
    :param steps: k, the teacher's sampling steps.
    :param generator: the source of all randomness; None for torch's own random state.
    """

    def __init__(
        self,
        source: Source,
        samples: LookAhead | ReplayPool,
        *,
        size: ReplaySize,
        steps: int,
        generator: torch.Generator | None,
    ):
        self.source = source
        self.samples = samples
        self.size = size
        self.steps = steps
        self.generator = generator
        self._asked: tuple[Taught, Question] | None = None

    def begin(self, strategy: Any, teacher: Any) -> None:
        """Draw, and ask the student: before the forward pass of a step."""
        self.end(strategy)
        with torch.no_grad():
            taught = self.source.draw(self._request(strategy, teacher))
        question = Question(taught.x_t, taught.timesteps, taught.condition)
        if strategy.model.one_pass:
            strategy.model.questions.append(question)
        self._asked = taught, question

    def loss(self, strategy: Any, teacher: Any) -> Tensor:
        """The criterion of what the student answers: before the backward pass."""
        if self._asked is None:
            self.begin(strategy, teacher)
        assert self._asked is not None
        taught, question = self._asked
        prediction = question.answer(strategy.model, strategy.mb_output)
        self.end(strategy)
        denoising = Denoising(prediction, taught.target, taught.timesteps)
        return strategy._criterion(denoising, strategy.mb_y)

    def end(self, strategy: Any) -> None:
        """Let go of a step's question, also where the step was interrupted."""
        if self._asked is not None and self._asked[1] in strategy.model.questions:
            strategy.model.questions.remove(self._asked[1])
        self._asked = None

    def check_shares(self, batch_size: int, processes: int) -> None:
        """Raise ValueError unless processes can share the samples of a step.

        :param batch_size: of the current data, in all of them.
        """
        each = self.steps if isinstance(self.source, Trajectory) else 1
        self.size.check_shares(batch_size, processes, each=each)

    def _request(self, strategy: Any, teacher: Any) -> TeachingRequest:
        generator = self.generator or default_generator(teacher.device)
        batch = strategy.mb_x
        current = self._resized(batch)
        drawn = self.samples.draw(teacher, len(current), generator)

        return TeachingRequest(
            teacher=teacher,
            current=current,
            condition=drawn.condition,
            steps=self.steps,
            generator=generator,
            samples=drawn.images,
            student=strategy.model if current is batch else None,
        )

    def _resized(self, batch: Tensor) -> Tensor:
        """The batch cut or repeated to as many images as are taught with it."""
        if self.size.share(len(batch)) == len(batch):
            return batch
        whole = gathered(batch)
        index = torch.arange(self.size.of(len(whole)), device=whole.device) % len(whole)
        return own_share(whole[index])
