"""Generative distillation."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.distributed import DistributedHelper
from torch import Tensor

from avalanche_gd.distributed.shares import check_shares, gathered, own_share
from avalanche_gd.models.denoising import Denoising
from avalanche_gd.plugins.pool import ReplayPool
from avalanche_gd.plugins.sources import (
    Generation,
    Source,
    Trajectory,
    source_by_name,
)
from avalanche_gd.plugins.teacher import (
    Teacher,
    add_replay_loss,
    check_lambda,
    default_generator,
    experience_number,
)


class GenerativeDistillationPlugin(SupervisedPlugin, supports_distributed=True):
    """Teach a diffusion model the predictions of what it was an experience ago.

    From the second experience on, with ``theta'`` the model as it stood after the
    experience before and ``x_t`` from a source, the loss becomes (arXiv 2311.14028,
    equations 3 and 4)::

        L     = (1/n) L_cur + (1 - 1/n) lambda L_rep
        L_rep = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2

    Add it to a :class:`~avalanche_gd.DiffusionTraining` or to any Avalanche
    ``SupervisedTemplate`` that trains a :class:`~avalanche_gd.DiffusionModel`, beside
    other plugins. With the source ``"generation"`` a step costs 9F at k = 2: the
    current data 3F, sampling k F, the teacher's target 1F, the student's pass 3F.
    A conditioned model is taught the classes that the teacher was trained on, as many of
    each, and also, with the model's ``condition_dropout``, no class.

    :param teacher_steps: k, the teacher's sampling steps.
    :param lambd: lambda, the weight of distillation. The paper swept 0.1 to 3.
    :param source: a name in :data:`~avalanche_gd.plugins.sources.SOURCES`, or an
        object with the method ``draw`` of :class:`~avalanche_gd.plugins.sources.Source`.
    :param replay_ratio: samples of the source for each current one, above 0; their loss
        stays a mean. With r, a step costs 3F and r times the rest.
    :param pool_size: with the source ``"generation"``: has the teacher generate that many
        samples once an experience, to draw from
        (:class:`~avalanche_gd.plugins.ReplayPool`).
    :param pool_refresh: steps after which the pool is filled anew; None for never.
    :param teacher_sampler: with the source ``"generation"``: a name in
        :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :param generator: the source of all randomness; None for torch's own random state.
    :raises ValueError: for a negative lambda, teacher steps below 1, an unknown source, a
        ratio of 0 or below, a pool or a sampler that the source does not use; when
        training starts, for teacher steps above T or a pool that the memory cannot hold.
    :raises TypeError: when training starts, if the strategy's model is not a
        diffusion model.
    """

    def __init__(
        self,
        teacher_steps: int = 2,
        lambd: float = 1.0,
        *,
        source: str | Source = "generation",
        replay_ratio: float = 1.0,
        pool_size: int | None = None,
        pool_refresh: int | None = None,
        teacher_sampler: str = "own",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.teacher_steps = check_teacher_steps(teacher_steps)
        self.lambd = check_lambda(lambd)
        self.replay_ratio = check_ratio(replay_ratio)
        self.pool = None if pool_size is None else ReplayPool(pool_size, pool_refresh)
        if source == "generation":
            self.source: Source = Generation(self.pool, teacher_sampler)
        else:
            if self.pool is not None or teacher_sampler != "own":
                raise ValueError(
                    'pool_size and teacher_sampler are for source="generation", '
                    f"not {source!r}"
                )
            self.source = source_by_name(source)
        self.generator = generator

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Refuse a model that cannot be distilled, before any work is done."""
        self.check_model(strategy.model)
        if DistributedHelper.is_distributed:
            self.check_shares(strategy.train_mb_size, DistributedHelper.world_size)

    def check_model(self, model: Any) -> None:
        """Raise unless the model can be distilled.

        :raises TypeError: if it is not a diffusion model.
        :raises ValueError: for teacher steps above T, or a pool that memory cannot hold.
        """
        for method in ("generate", "denoise", "add_noise"):
            if not callable(getattr(model, method, None)):
                raise TypeError(
                    "GenerativeDistillationPlugin needs a DiffusionModel; "
                    f"{type(model).__name__} has no method {method}"
                )
        model.check_steps(self.teacher_steps)
        if self.pool is not None:
            self.pool.check_memory(model)

    def check_shares(self, batch_size: int, processes: int) -> None:
        """Whether processes can share the samples of a step.

        :param batch_size: of the current data, in all of them.
        :param processes: how many there are.
        :raises ValueError: if they cannot.
        """
        each = self.teacher_steps if isinstance(self.source, Trajectory) else 1
        check_replay_shares(self.replay_ratio, batch_size, processes, each=each)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze the teacher."""
        if experience_number(strategy) > 1:
            Teacher.of(strategy).freeze(strategy.model, self)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Teach."""
        if Teacher.of(strategy).model is not None:
            loss = self.distillation_loss(strategy)
            add_replay_loss(strategy, loss, self.lambd, self)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the teacher."""
        Teacher.of(strategy).release(self)
        if self.pool is not None:
            self.pool.empty()

    def distillation_loss(self, strategy: Any) -> Tensor:
        """L_rep on a batch from the source."""
        teacher = Teacher.of(strategy).model
        generator = self.generator or default_generator(teacher.device)
        with torch.no_grad():
            current = resized(strategy.mb_x, self.replay_ratio)
            steps = self.teacher_steps
            condition = teacher.draw_condition(len(current), generator)
            if hasattr(self.source, "draw_taught"):
                condition = teacher.drop_condition(condition, generator)
                x_t, timesteps, target, condition = self.source.draw_taught(
                    teacher, current, condition, steps, generator
                )
            else:
                x_t, timesteps = self.source.draw(
                    teacher, current, condition, steps, generator
                )
                condition = teacher.drop_condition(condition, generator)
                target = teacher.denoise(x_t, timesteps, condition)
        prediction = strategy.model.denoise(x_t, timesteps, condition)
        return strategy._criterion(Denoising(prediction, target, timesteps), strategy.mb_y)


def check_teacher_steps(steps: int) -> int:
    """:raises ValueError: unless the steps are an integer of at least 1."""
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"teacher_steps must be an integer from 1 to T, got {steps!r}")
    return steps


def check_ratio(ratio: float) -> float:
    """:raises ValueError: unless the ratio is above 0."""
    if not ratio > 0:
        raise ValueError(f"replay_ratio must be above 0, got {ratio}")
    return float(ratio)


def replayed(ratio: float, batch_size: int) -> int:
    """How many samples go with a batch, at least one."""
    return max(1, round(ratio * batch_size))


def resized(batch: Tensor, ratio: float) -> Tensor:
    """A batch cut to a ratio of its size, or repeated up to it; at least one sample."""
    if ratio == 1:
        return batch
    whole = gathered(batch)
    count = replayed(ratio, len(whole))
    return own_share(whole[torch.arange(count, device=whole.device) % len(whole)])


def check_replay_shares(
    ratio: float, batch_size: int, processes: int, *, each: int = 1
) -> None:
    """:raises ValueError: unless processes can share the samples that go with a batch."""
    name = f"replay_ratio {ratio:g} times the batch size {batch_size}"
    check_shares(name, replayed(ratio, batch_size), processes, each=each)
