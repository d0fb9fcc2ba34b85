"""How the losses on current and on replayed data are weighted."""

from typing import Any

from torch import Tensor

from avalanche_gd.plugins.teacher import Teacher


def check_lambda(lambd: float) -> float:
    """:raises ValueError: if lambda is negative."""
    if lambd < 0:
        raise ValueError(f"lambd must be 0 or more, got {lambd!r}")
    return float(lambd)


def experience_number(strategy: Any) -> int:
    """n = 1, 2, ...: the number of the experience in training."""
    return strategy.clock.train_exp_counter + 1


def add_replay_loss(strategy: Any, replay_loss: Tensor, lambd: float, user: Any) -> None:
    """Turn ``L_cur`` into ``(1/n) L_cur + (1 - 1/n) lambda L_rep``.

    The mean losses are weighted, not their samples: a single mean over both batches
    would weight by batch size (arXiv 2311.14028, equation 4). Only the criterion's own
    loss is scaled, so that a penalty another plugin has added stays as it was; of
    several plugins that replay, the first scales it.

    :param strategy: in ``before_backward``, with the criterion's loss in
        ``strategy.loss``.
    :param replay_loss: L_rep, a scalar.
    :param lambd: lambda.
    :param user: the plugin that replays.
    """
    n = experience_number(strategy)
    if Teacher.of(strategy).is_led_by(user):
        strategy.loss = strategy.loss + (1 / n - 1) * strategy.criterion()
    strategy.loss = strategy.loss + (1 - 1 / n) * lambd * replay_loss
