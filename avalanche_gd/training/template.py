"""What the templates of generators and solvers have in common."""

import math
import sys
from collections.abc import Iterable
from typing import Any

import torch
from avalanche.training.templates import SupervisedTemplate

_CHECK_EVERY = 50  # steps between looks at the loss on an accelerator, which must wait
_EVALUATION_SEED = 0


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number."""


class BudgetedTemplate(SupervisedTemplate):
    """Avalanche's ``SupervisedTemplate`` with a budget in steps.

    - With ``train_steps``, an experience is trained for that many optimizer steps on
      full batches, however much data it has, so that methods can be compared.
    - Evaluation draws from a random state of its own, the same each time: it leaves
      the training's alone, and its losses can be compared.
    - A loss that is not finite stops the training and says at which step.
    - An empty experience is refused before any is trained.

    :param train_steps: optimizer steps an experience; None to train ``train_epochs``.
    :param kwargs: the arguments of Avalanche's ``SupervisedTemplate``.
    :raises ValueError: if ``train_steps`` is below 1.
    """

    def __init__(self, *, train_steps: int | None = None, **kwargs: Any):
        if train_steps is not None and train_steps < 1:
            raise ValueError(f"train_steps must be 1 or more, got {train_steps!r}")
        if train_steps is not None:
            kwargs["train_epochs"] = sys.maxsize
        super().__init__(**kwargs)
        self.train_steps = train_steps

    def train(self, experiences: Any, eval_streams: Any = None, **kwargs: Any) -> Any:
        """Train on experiences, as Avalanche does.

        :raises ValueError: for an experience that cannot be trained on, before any is.
        :raises NonFiniteLossError: if the loss becomes infinite or not a number.
        """
        if not isinstance(experiences, Iterable):
            experiences = [experiences]
        experiences = list(experiences)
        for experience in experiences:
            self.check_experience(experience)
        return super().train(experiences, eval_streams, **kwargs)

    def check_experience(self, experience: Any) -> None:
        """:raises ValueError: if it is empty."""
        if len(experience.dataset) == 0:
            raise ValueError(
                f"experience {experience.current_experience} is empty; "
                "leave it out of the stream"
            )

    @torch.no_grad()
    def eval(self, exp_list: Any, **kwargs: Any) -> Any:
        """Evaluate, as Avalanche does, without touching the random state."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(_EVALUATION_SEED)
            return super().eval(exp_list, **kwargs)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Avalanche's data loader; with ``train_steps``, without a last small batch."""
        if self.train_steps is not None:
            has_a_batch = len(self.adapted_dataset) >= self.train_mb_size
            kwargs.setdefault("drop_last", has_a_batch)
        super().make_train_dataloader(**kwargs)

    def _obtain_common_dataloader_parameters(self, **kwargs: Any) -> dict[str, Any]:
        """Avalanche's, but that only what is in the CPU's memory can be pinned."""
        first = self.adapted_dataset[0][0]
        if isinstance(first, torch.Tensor) and first.device.type != "cpu":
            kwargs["pin_memory"] = False
        parameters: dict[str, Any] = super()._obtain_common_dataloader_parameters(**kwargs)
        return parameters

    def backward(self) -> None:
        """Stop on a loss that is not finite, else run the backward pass."""
        step = self.clock.train_exp_iterations
        if self.device.type == "cpu" or step % _CHECK_EVERY == 0:
            loss = self.loss.item()
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss is {loss} at step {step + 1} of experience "
                    f"{self.experience.current_experience}; "
                    "lower the learning rate or lambda"
                )
        super().backward()

    def _after_training_iteration(self, **kwargs: Any) -> None:
        super()._after_training_iteration(**kwargs)
        if self.clock.train_exp_iterations == self.train_steps:
            self.stop_training()
