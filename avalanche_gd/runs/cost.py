"""What a run costs in passes of the denoiser."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.share import sharing_processes


def pass_cost(images: int, *, trained: bool) -> int:
    """Of a pass over images, in forward passes of one: a backward pass is as two."""
    return images * (3 if trained else 1)


class PassCounter:
    """Counts passes of a denoiser and its copies in F, one forward pass over a batch.

    Of several processes that share a batch, those of all.

    :param model: whose passes are counted from now on.
    :param batch_size: of the batch that F stands for.
    """

    def __init__(self, model: DiffusionModel, batch_size: int):
        self.passes: dict[str, list[float]] = {"generator": [], "solver": []}
        """In F, by the model in whose training they were made and by experience."""
        self.training: str | None = None
        """The model in training; None outside, as in an evaluation."""

        def count(images: int) -> None:
            if self.training is not None:
                cost = pass_cost(images, trained=torch.is_grad_enabled())
                self.passes[self.training][-1] += cost * sharing_processes() / batch_size

        model.pass_hooks.append(count)

    def plugin(self, model_name: str) -> "_CountedPlugin":
        """Counts what a strategy's training takes, as that of this model."""
        return _CountedPlugin(self, model_name)

    def summary(self, steps: int) -> dict[str, float]:
        """F in all, and F a step in the last experience, for ``run.json``.

        :param steps: of the generator in an experience.
        """
        generator = self.passes["generator"]
        return {
            "F_per_step": generator[-1] / steps if generator else 0.0,
            "F_total": sum(generator),
            "F_total_solver": sum(self.passes["solver"]),
        }


class _CountedPlugin(SupervisedPlugin, supports_distributed=True):
    def __init__(self, counter: PassCounter, model_name: str):
        super().__init__()
        self._counter, self._name = counter, model_name

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._counter.training = self._name
        self._counter.passes[self._name].append(0.0)
