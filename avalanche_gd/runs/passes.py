"""The cost of a run in passes of the denoiser."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_gd.distributed.shares import sharing_processes
from avalanche_gd.models import DiffusionModel

Passes = Counter[tuple[int, int]]
"""How many passes there were, by the number of images and of backward passes after it."""

_BACKWARD = 2  # the cost of a backward pass, in forward passes over as many images


def images_passed(passes: Passes) -> int:
    """The cost of passes, in forward passes of one image."""
    return sum(
        count * images * (1 + _BACKWARD * backward)
        for (images, backward), count in passes.items()
    )


class PassCounter:
    """Counts the passes of a denoiser and its copies in the training of each model.

    With several processes that share a batch, it counts those of all. A backward pass
    counts for the training in which its forward pass was made.

    :param model: the model whose passes are counted; only a diffusion model has any.
    :param batch_size: the size of the batch in F, one forward pass over a batch.
    """

    def __init__(self, model: nn.Module | None, batch_size: int):
        self.passes: dict[str, list[Passes]] = {"generator": [], "solver": []}
        """By the model in training when they were made, and by experience."""
        self.training: str | None = None
        """The model in training; None outside, as in an evaluation."""
        self._batch_size = batch_size

        def note(images: int) -> Callable[[], None]:
            if self.training is None:
                return lambda: None
            passes = self.passes[self.training][-1]
            kind = images * sharing_processes(), 0
            passes[kind] += 1

            def note_backward() -> None:
                nonlocal kind
                passes[kind] -= 1
                kind = kind[0], kind[1] + 1
                passes[kind] += 1

            return note_backward

        if isinstance(model, DiffusionModel):
            model.pass_hooks.append(note)

    def plugin(self, model_name: str) -> "_CountedPlugin":
        """A plugin that counts a strategy's training as that of a model."""
        return _CountedPlugin(self, model_name)

    def summary(self, steps: int) -> dict[str, float]:
        """F in total, and F per step in the last experience, for ``run.json``.

        :param steps: the steps of the generator in the last experience.
        """
        generator, solver = (
            [images_passed(passes) / self._batch_size for passes in self.passes[name]]
            for name in ("generator", "solver")
        )
        last = generator[-1] if generator else 0.0
        totals = {"F_total": sum(generator), "F_total_solver": sum(solver)}
        return {"F_per_step": last / steps, **totals}


class _CountedPlugin(SupervisedPlugin, supports_distributed=True):
    def __init__(self, counter: PassCounter, model_name: str):
        super().__init__()
        self._counter, self._name = counter, model_name

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        self._outside = self._counter.training  # one training can run inside another

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self._counter.training = self._name
        self._counter.passes[self._name].append(Counter())

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        self._counter.training = self._outside
