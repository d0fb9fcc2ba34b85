"""A generator's training in a few steps, and what a hook needs of a strategy."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from avalanche_gd import DiffusionModel, DiffusionTraining, SmallCNN
from tests.helpers.small_models import SHAPE


def train_generator(
    model: DiffusionModel, stream: Sequence[Any], *plugins: Any, **options: Any
) -> DiffusionTraining:
    """A strategy of plugins that has trained a model on a stream.

    :param options: of the strategy, in the place of 3 steps of 16 images.
    """
    options = dict(train_steps=3, train_mb_size=16, evaluator=None) | options
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        plugins=list(plugins),
        **options,
    )
    strategy.train(stream, eval_streams=[])
    return strategy


def solver_in(
    template: Any, *plugins: Any, solver: nn.Module | None = None, **options: Any
) -> Any:
    """A solver's strategy, of Avalanche's template."""
    solver = SmallCNN(SHAPE, 4) if solver is None else solver
    return template(
        model=solver,
        optimizer=torch.optim.SGD(solver.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=16,
        plugins=list(plugins),
        evaluator=None,
        **options,
    )


def fake_strategy(model: nn.Module, n: int = 1, **attributes: object) -> SimpleNamespace:
    """Just enough of a strategy for one hook, in experience n."""
    clock = SimpleNamespace(train_exp_counter=n - 1)
    defaults = dict(
        device=torch.device("cpu"),
        plugins=[],
        evaluator=SimpleNamespace(metrics=[]),
        experience=None,
        _criterion=None,
    )
    return SimpleNamespace(model=model, clock=clock, **defaults | attributes)
