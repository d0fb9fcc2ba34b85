"""The template of a diffusion model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.distributed import DistributedHelper
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_loggers
from torch.optim import Optimizer

from avalanche_gd.checks import check_number
from avalanche_gd.distributed.gradients import averaging_gradients
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.plugins.compatibility import check_compatible
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.training.losses import DenoisingLoss, check_classes
from avalanche_gd.training.template import BudgetedTemplate


def default_diffusion_evaluator() -> EvaluationPlugin:
    """Print the denoising loss, as a diffusion model has no accuracy."""
    return EvaluationPlugin(
        loss_metrics(epoch=True, experience=True, stream=True),
        loggers=default_loggers,
    )


class DiffusionTraining(BudgetedTemplate):
    """Train a diffusion model, as Avalanche's ``VAETraining`` trains a VAE.

    It is a ``SupervisedTemplate`` with defaults for diffusion: the denoising loss, and
    gradients clipped to norm 1. Add :class:`~avalanche_gd.GenerativeDistillationPlugin`
    or :class:`~avalanche_gd.GenerativeReplayPlugin` for continual learning.

    :param model: a :class:`~avalanche_gd.DiffusionModel`.
    :param optimizer: of the model's parameters. The paper's is Adam, 2e-4.
    :param criterion: called with the model's output and labels. ``output.given(labels)`` is
        a :class:`~avalanche_gd.Denoising`, also of a conditioned model. None for
        :class:`~avalanche_gd.DenoisingLoss`.
    :param plugins: Avalanche plugins.
    :param evaluator: an ``EvaluationPlugin``, or a function that makes one.
    :param ema_decay: ends each experience with the moving average of its weights, with this
        decay (:class:`~avalanche_gd.plugins.EMAPlugin`); None for the last weights.
    :param max_grad_norm: gradients are clipped to this norm; None for no clipping.
    :param kwargs: further arguments of :class:`~avalanche_gd.training.BudgetedTemplate`:
        the budget in steps or epochs, batch sizes, the device, ...
    :raises ValueError: if ``max_grad_norm`` is not a finite number above 0, ``ema_decay``
        is not in ``[0, 1)``, the optimizer has none of the model's parameters, the
        criterion's weights are for another noise scheduler than the model's, the budget is
        not valid, or a metric or plugin of Avalanche cannot work with a diffusion model
        (:func:`~avalanche_gd.plugins.compatibility.check_compatible`).
    :raises TypeError: if the model is not a diffusion model.
    """

    def __init__(
        self,
        *,
        model: DiffusionModel,
        optimizer: Optimizer,
        criterion: Any = None,
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: (
            EvaluationPlugin | Callable[[], EvaluationPlugin] | None
        ) = default_diffusion_evaluator,
        ema_decay: float | None = None,
        max_grad_norm: float | None = 1.0,
        **kwargs: Any,
    ):
        if not isinstance(model, DiffusionModel):
            raise TypeError(
                "DiffusionTraining trains a DiffusionModel, "
                f"not a {type(model).__name__}; wrap the denoiser in one"
            )
        if max_grad_norm is not None:
            max_grad_norm = check_number("max_grad_norm", max_grad_norm, "above 0")
        criterion = DenoisingLoss() if criterion is None else criterion
        if isinstance(criterion, DenoisingLoss):
            criterion.check_process(model.process)
        average = [] if ema_decay is None else [EMAPlugin(ema_decay)]
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion,
            plugins=[*average, *(plugins or [])],
            evaluator=evaluator,
            **kwargs,
        )
        check_compatible(self)
        self.max_grad_norm = max_grad_norm

    def check_experience(self, experience: Any) -> None:
        """Raise ValueError if it is empty, or has a class that the model does not know.

        Also for a conditioned model if the benchmark gives several classes one number.
        """
        super().check_experience(experience)
        check_classes(self.model, experience)

    def _train_exp(self, *arguments: Any, **kwargs: Any) -> None:
        """Train; with several processes, average gradients during the backward pass."""
        if not DistributedHelper.is_distributed:
            super()._train_exp(*arguments, **kwargs)
            return
        with averaging_gradients(self.model.denoiser, self.model.execution):
            super()._train_exp(*arguments, **kwargs)

    def average_gradients(self) -> None:
        """Do nothing: the gradients were averaged before."""

    def _before_update(self, **kwargs: Any) -> None:
        super()._before_update(**kwargs)
        if self.max_grad_norm is None:
            return
        groups = self.optimizer.param_groups
        moved = [p for group in groups for p in group["params"] if p.grad is not None]
        # In most steps, clipping multiplies all gradients by 1. A check for that takes half
        # the time of the multiplication, but an accelerator would have to wait for it.
        if self.device.type == "cpu" and moved:
            norms = torch.stack([torch.linalg.vector_norm(p.grad) for p in moved])
            if norms.norm() < 0.99 * self.max_grad_norm:
                return
        torch.nn.utils.clip_grad_norm_(moved, self.max_grad_norm)
