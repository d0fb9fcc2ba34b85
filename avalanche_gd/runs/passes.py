"""What a run costs in passes of the denoiser."""

from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin

from avalanche_gd.distributed.shares import sharing_processes
from avalanche_gd.models import DiffusionModel

BACKWARD = 2
"""What a backward pass costs, in forward passes over as many images."""


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

        def count(images: int) -> Callable[[], None]:
            cost = images * sharing_processes() / batch_size
            self._add(cost)
            return lambda: self._add(BACKWARD * cost)

        model.pass_hooks.append(count)

    def _add(self, cost: float) -> None:
        if self.training is not None:
            self.passes[self.training][-1] += cost

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
