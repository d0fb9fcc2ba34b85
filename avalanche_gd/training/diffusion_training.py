"""The template of a diffusion model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from avalanche.core import BasePlugin
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins.evaluation import default_loggers
from torch import Tensor
from torch.optim import Optimizer

from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.training.losses import DenoisingLoss
from avalanche_gd.training.template import BudgetedTemplate


def default_diffusion_evaluator() -> EvaluationPlugin:
    """The denoising loss, printed: a diffusion model has no accuracy."""
    return EvaluationPlugin(
        loss_metrics(epoch=True, experience=True, stream=True),
        loggers=default_loggers,
    )


class DiffusionTraining(BudgetedTemplate):
    """Train a diffusion model, as Avalanche's ``VAETraining`` does a VAE.

    A ``SupervisedTemplate`` with the defaults of diffusion: the denoising loss and
    gradients clipped to norm 1. Add :class:`~avalanche_gd.GenerativeDistillationPlugin`
    or :class:`~avalanche_gd.GenerativeReplayPlugin` to learn continually.

    :param model: a :class:`~avalanche_gd.DiffusionModel`.
    :param optimizer: over the model's parameters. The paper: Adam, 2e-4.
    :param criterion: called with a :class:`~avalanche_gd.Denoising` and labels.
    :param train_mb_size: batch size in training.
    :param train_epochs: passes over an experience, where ``train_steps`` is None.
    :param train_steps: optimizer steps an experience, on full batches.
    :param eval_mb_size: batch size in evaluation.
    :param device: where to train.
    :param plugins: Avalanche plugins.
    :param evaluator: an ``EvaluationPlugin``, or a function that makes one.
    :param eval_every: as in Avalanche's templates.
    :param ema_decay: ends each experience with the moving average of its weights
        (:class:`~avalanche_gd.plugins.EMAPlugin`); None for the last weights.
    :param max_grad_norm: gradients are clipped to this norm; None not to clip.
    :param kwargs: further arguments of ``SupervisedTemplate``.
    :raises ValueError: if ``train_steps`` is below 1, ``max_grad_norm`` is not above 0,
        or ``ema_decay`` is not in ``[0, 1)``.
    :raises TypeError: if the model is not a diffusion model.
    """

    def __init__(
        self,
        *,
        model: DiffusionModel,
        optimizer: Optimizer,
        criterion: Any = None,
        train_mb_size: int = 64,
        train_epochs: int = 1,
        train_steps: int | None = None,
        eval_mb_size: int = 256,
        device: str | torch.device = "cpu",
        plugins: Sequence[BasePlugin] | None = None,
        evaluator: (
            EvaluationPlugin | Callable[[], EvaluationPlugin] | None
        ) = default_diffusion_evaluator,
        eval_every: int = -1,
        ema_decay: float | None = None,
        max_grad_norm: float | None = 1.0,
        **kwargs: Any,
    ):
        if not isinstance(model, DiffusionModel):
            raise TypeError(
                "DiffusionTraining trains a DiffusionModel, "
                f"not a {type(model).__name__}; wrap the denoiser in one"
            )
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be above 0, got {max_grad_norm!r}")
        average = [] if ema_decay is None else [EMAPlugin(ema_decay)]
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=DenoisingLoss() if criterion is None else criterion,
            train_mb_size=train_mb_size,
            train_epochs=train_epochs,
            train_steps=train_steps,
            eval_mb_size=eval_mb_size,
            device=device,
            plugins=[*average, *(plugins or [])],
            evaluator=evaluator,
            eval_every=eval_every,
            **kwargs,
        )
        self.max_grad_norm = max_grad_norm

    def check_experience(self, experience: Any) -> None:
        """:raises ValueError: if it is empty, or has a class that the model has not."""
        super().check_experience(experience)
        number = self.model.num_classes
        classes = getattr(experience, "classes_in_this_experience", None)
        if number is not None and classes and max(classes) >= number:
            raise ValueError(
                f"experience {experience.current_experience} has class {max(classes)}, "
                f"but labels must be from 0 to num_classes - 1 = {number - 1}"
            )

    def _before_update(self, **kwargs: Any) -> None:
        super()._before_update(**kwargs)
        if self.max_grad_norm is not None:
            groups = self.optimizer.param_groups
            parameters = [p for group in groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            if not self._is_shorter(gradients, self.max_grad_norm):
                torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)

    def _is_shorter(self, gradients: list[Tensor], norm: float) -> bool:
        """Whether clipping to the norm would multiply all gradients by 1, as in most steps.

        The answer takes half the time of doing so, but an accelerator would wait for it.
        """
        if self.device.type != "cpu" or not gradients:
            return False
        norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
        return bool(torch.stack(norms).norm() < 0.99 * norm)
