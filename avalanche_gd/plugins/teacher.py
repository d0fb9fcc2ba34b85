"""The frozen model of the experience before, and the weights of what it teaches."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Teacher:
    """One frozen copy of a strategy's model, for as long as a plugin needs it.

    Every plugin that teaches asks for it with :meth:`of`, so that two plugins in one
    strategy share the same weights. A solver needs no copy at all: it replays from its
    generator before that is trained on the experience, and so from the same weights.
    """

    def __init__(self) -> None:
        self.model: Any = None
        """The frozen model; None in the first experience and between experiences."""
        self._users: list[object] = []

    @classmethod
    def of(cls, strategy: Any) -> "Teacher":
        """The teacher of a strategy, which lives as long as the strategy does."""
        if not hasattr(strategy, "_generative_teacher"):
            strategy._generative_teacher = cls()
        return strategy._generative_teacher

    def freeze(self, model: nn.Module, user: object) -> None:
        """Keep ``model`` as it is now; later users of the same experience share it."""
        if user in self._users:  # an experience was interrupted, and never released it
            self._users.clear()
        if not self._users:
            self.model = copy.deepcopy(model).eval().requires_grad_(False)
            self.model.zero_grad(set_to_none=True)  # copied along, and never used
        self._users.append(user)

    def is_led_by(self, user: object) -> bool:
        """Whether ``user`` is the one that weights the loss on the current data."""
        return bool(self._users) and self._users[0] is user

    def release(self, user: object) -> None:
        """Let go of the copy once its last user has."""
        if user in self._users:
            self._users.remove(user)
        if not self._users:
            self.model = None


def default_generator(device: torch.device) -> torch.Generator:
    """torch's own random state on a device: what training draws from."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


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
