"""The template of a solver that replays from a diffusion model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_evaluator
from torch import nn
from torch.optim import Optimizer

from avalanche_gd.plugins.replay import SoftGenerativeReplayPlugin
from avalanche_gd.training.template import BudgetedTemplate


class SoftGenerativeReplay(BudgetedTemplate):
    """Train a solver and then its generator, experience by experience.

    Avalanche's ``GenerativeReplay`` with soft labels and the weights of the experiences,
    by :class:`~avalanche_gd.plugins.SoftGenerativeReplayPlugin`. In each experience the
    solver is trained first, on the data and on samples of the generator of the
    experience before; then ``generator_strategy`` is trained on the same data.

    :param model: the solver, from images to logits.
    :param optimizer: over the solver's parameters.
    :param generator_strategy: trains the generator, for example a
        :class:`~avalanche_gd.DiffusionTraining` with its own plugins.
    :param criterion: of logits and labels, on current data.
    :param temperature: T of the soft labels.
    :param teacher_steps: k, the generator's sampling steps.
    :param lambd: lambda, the weight of replay.
    :param replay_size: samples a step; None for as many as the batch has.
    :param pool_size: samples that a diffusion model generates once an experience, to draw
        those of a step from; None for new ones in each step.
    :param pool_refresh: steps after which the pool is filled anew; None for never.
    :param labels: of the samples: ``"solver"``, the old solver's soft labels, or
        ``"condition"``, the class that a conditioned generator was asked for.
    :param train_mb_size: batch size in training.
    :param train_epochs: passes over an experience, where ``train_steps`` is None.
    :param train_steps: optimizer steps an experience, on full batches.
    :param eval_mb_size: batch size in evaluation.
    :param device: where to train.
    :param plugins: further Avalanche plugins.
    :param evaluator: an ``EvaluationPlugin``, or a function that makes one.
    :param eval_every: as in Avalanche's templates.
    :param kwargs: further arguments of ``SupervisedTemplate``.
    :raises ValueError: as the plugin does, and if ``train_steps`` is below 1.
    :raises TypeError: if the generator has no method ``generate``.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        generator_strategy: Any,
        criterion: Any = None,
        temperature: float = 2.0,
        teacher_steps: int = 2,
        lambd: float = 1.0,
        replay_size: int | None = None,
        pool_size: int | None = None,
        pool_refresh: int | None = None,
        labels: str = "solver",
        train_mb_size: int = 64,
        train_epochs: int = 1,
        train_steps: int | None = None,
        eval_mb_size: int = 256,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: (
            EvaluationPlugin | Callable[[], EvaluationPlugin] | None
        ) = default_evaluator,
        eval_every: int = -1,
        **kwargs: Any,
    ):
        replay = SoftGenerativeReplayPlugin(
            generator_strategy,
            temperature=temperature,
            teacher_steps=teacher_steps,
            lambd=lambd,
            replay_size=replay_size,
            pool_size=pool_size,
            pool_refresh=pool_refresh,
            labels=labels,
        )
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            train_steps=train_steps,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[*(plugins or []), replay],
            evaluator=evaluator,
            eval_every=eval_every,
            **kwargs,
        )
        self.generator_strategy = generator_strategy
