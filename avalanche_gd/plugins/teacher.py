"""The frozen model of the experience before, one for all plugins of a strategy."""

import copy
from typing import Any

import torch
from torch import nn


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
