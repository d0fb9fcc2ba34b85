"""The criterion of a diffusion model."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from avalanche_gd.checks import check_choice, check_number
from avalanche_gd.data.benchmark import check_one_numbering
from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.models.denoising import Denoising, NoisyImages, squared_errors
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.plugins.compatibility import check_compatible

_REDUCTIONS = ("mean", "none")


def check_classes(model: DiffusionModel, experience: Any) -> None:
    """Raise ValueError if a conditioned model cannot learn the classes of an experience.

    That is for a class that it does not know, or if the benchmark gives several classes one
    number.
    """
    if model.num_classes is None:
        return
    benchmark = getattr(experience.logging()._origin_stream, "benchmark", None)
    if hasattr(benchmark, "streams"):
        check_one_numbering(benchmark)
    classes = dataset_classes(experience.dataset)
    for other in sorted(classes - {*range(model.num_classes)}):
        raise ValueError(
            f"experience {experience.current_experience + 1} has class {other}, but labels "
            f"must be from 0 to num_classes - 1 = {model.num_classes - 1}"
        )


class DenoisingLoss(nn.Module, SupervisedPlugin, supports_distributed=True):
    """Mean squared error between a diffusion model's prediction and its target.

    ``L = E || eps - eps_theta(x_t, t) ||^2`` per pixel (arXiv 2006.11239, equation 14),
    as the criterion of an Avalanche strategy.

    With ``min_snr_gamma``, each sample is weighted by its timestep
    (:meth:`~avalanche_gd.models.prediction.NoiseProcess.min_snr_weights`). Distillation has
    the same weights, as plugins use the strategy's criterion.

    The criterion is also a plugin, which Avalanche adds to the strategy's plugins. So it
    can raise an error, before training or an evaluation, for what cannot work with a
    diffusion model (:func:`~avalanche_gd.plugins.compatibility.check_compatible`), for
    weights of another noise process than the model's, and for classes that a conditioned
    model cannot learn.

    :param reduction: ``"mean"`` over the batch, or ``"none"`` for one loss per sample. It
        is an attribute, as some of Avalanche's plugins change it for a while.
    :param min_snr_gamma: gamma, above 0; its authors use 5. None for no weights.
    :param noise_scheduler: the model's, needed with ``min_snr_gamma``.
    :raises ValueError: for another reduction, a gamma that is not a finite number above 0,
        or for only one of gamma and scheduler.
    """

    def __init__(
        self,
        reduction: str = "mean",
        *,
        min_snr_gamma: float | None = None,
        noise_scheduler: Any = None,
    ):
        super().__init__()
        if (min_snr_gamma is None) != (noise_scheduler is None):
            raise ValueError("min_snr_gamma and noise_scheduler go together; give both")
        self.reduction = check_choice("reduction", reduction, _REDUCTIONS)
        self._weights: Tensor | None = None
        if min_snr_gamma is not None:
            self._gamma = check_number("min_snr_gamma", min_snr_gamma, "above 0")
            self._weights = NoiseProcess(noise_scheduler).min_snr_weights(self._gamma)

    def check_process(self, process: NoiseProcess) -> None:
        """Raise ValueError if the weights are for another noise process.

        :param process: the process of the model in training.
        """
        if self._weights is None:
            return
        weights = process.min_snr_weights(self._gamma).to(self._weights)
        if not torch.equal(self._weights.nan_to_num(), weights.nan_to_num()):
            raise ValueError(
                "the criterion's noise_scheduler adds other noise, or predicts something "
                "else, than the model's; give it model.noise_scheduler"
            )

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Raise ValueError if a part of the strategy cannot work with a diffusion model.

        Also if the loss is not reduced to one number, which a step needs.
        """
        self._check(strategy)
        if self.reduction != "mean":
            raise ValueError(
                f"the criterion has the reduction {self.reduction!r}, but a training step "
                "needs one number; give DenoisingLoss() to the strategy"
            )

    def before_train_dataset_adaptation(
        self, strategy: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Raise ValueError if a conditioned model cannot learn the experience's classes."""
        if isinstance(strategy.model, DiffusionModel):
            check_classes(strategy.model, strategy.experience)

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Raise ValueError if a part of the strategy cannot work with a diffusion model."""
        self._check(strategy)

    def _check(self, strategy: Any) -> None:
        """Raise ValueError as above, or if the weights are for another noise process."""
        check_compatible(strategy)
        if isinstance(strategy.model, DiffusionModel):
            self.check_process(strategy.model.process)

    def forward(
        self, denoising: Denoising | NoisyImages, y: Tensor | None = None
    ) -> Tensor:
        """Compute the loss.

        :param denoising: the output of a :class:`~avalanche_gd.DiffusionModel`.
        :param y: the classes, ``(N,)``, for a conditioned model; else not used.
        :return: a scalar, or ``(N,)`` with the reduction ``"none"``.
        :raises ValueError: if a conditioned model gets no labels, or wrong ones.
        """
        denoising = denoising.given(y)
        if self._weights is not None:
            self._weights = self._weights.to(denoising.prediction.device)
        errors = squared_errors(denoising, self._weights)
        return errors if self.reduction == "none" else errors.mean()
