"""The template of a solver that replays from a diffusion model."""

from collections.abc import Sequence
from typing import Any

from avalanche.core import BasePlugin
from torch import nn
from torch.optim import Optimizer

from avalanche_gd.plugins.soft_replay import SoftGenerativeReplayPlugin
from avalanche_gd.training.template import BudgetedTemplate


class SoftGenerativeReplay(BudgetedTemplate):
    """Train a solver and then its generator, experience by experience.

    It is Avalanche's ``GenerativeReplay`` with soft labels, and with losses weighted by the
    number of experiences. In each experience the solver is trained first, on the data and
    on samples of the generator from the previous experience. Then the generator is trained
    on the same data::

        SoftGenerativeReplay(
            model=solver, optimizer=optimizer, replay=SoftGenerativeReplayPlugin(generator)
        )

    :param model: the solver, from images to logits.
    :param optimizer: of the solver's parameters.
    :param replay: the plugin, made with the strategy that trains the generator, for example
        a :class:`~avalanche_gd.DiffusionTraining` with its own plugins, and with the
        options of the replay.
    :param criterion: of logits and labels, on current data; cross-entropy by default.
    :param plugins: further Avalanche plugins, which come before ``replay``.
    :param kwargs: further arguments of :class:`~avalanche_gd.training.BudgetedTemplate`.
    :raises TypeError: if ``replay`` is not a
        :class:`~avalanche_gd.SoftGenerativeReplayPlugin`.
    :raises ValueError: if the optimizer has none of the solver's parameters, or the budget
        is not valid.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        replay: SoftGenerativeReplayPlugin,
        criterion: Any = None,
        plugins: Sequence[BasePlugin] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(replay, SoftGenerativeReplayPlugin):
            raise TypeError(
                "replay must be a SoftGenerativeReplayPlugin of the generator's strategy, "
                f"not a {type(replay).__name__}"
            )
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss() if criterion is None else criterion,
            plugins=[*(plugins or []), replay],
            **kwargs,
        )
        self.replay = replay
