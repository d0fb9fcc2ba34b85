"""At which timesteps a diffusion model forgets, as an Avalanche metric."""

from typing import Any

import torch
from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.models.denoising import Denoising, NoisyImages, squared_errors

_NO_DIFFUSION = "denoising_loss_metrics needs a strategy that evaluates a DiffusionModel"


class DenoisingLossByTimestep(PluginMetric[Tensor]):
    """See :func:`denoising_loss_metrics`."""

    def __init__(self, bands: int):
        super().__init__()
        self.bands = check_integer("bands", bands)
        self.reset()

    def reset(self) -> None:
        """Forget all errors."""
        self._errors = torch.zeros(self.bands, dtype=torch.float64)
        self._counts = torch.zeros(self.bands, dtype=torch.float64)

    def result(self) -> Tensor:
        """The mean squared error in each band, ``(bands,)``; NaN for an empty band."""
        return self._errors / self._counts

    def before_training(self, strategy: Any) -> None:
        """Check the model and the bands before any work."""
        self.check_model(strategy.model)

    def before_eval(self, strategy: Any) -> None:
        """Check the model and the bands."""
        self.check_model(strategy.model)

    def check_model(self, model: Any) -> None:
        """Raise an error if a model is not measured in so many bands.

        :raises TypeError: if it has no timesteps.
        :raises ValueError: if there are more bands than timesteps.
        """
        if not hasattr(model, "num_timesteps"):
            raise TypeError(_NO_DIFFUSION)
        check_integer("bands", self.bands, 1, model.num_timesteps)

    def before_eval_exp(self, strategy: Any) -> None:
        """Forget the errors of the experience before."""
        self.reset()

    def after_eval_iteration(self, strategy: Any) -> None:
        """Add the batch's errors.

        :raises TypeError: if the model is not a diffusion model.
        """
        output = strategy.mb_output
        if isinstance(output, NoisyImages):
            output = output.given(strategy.mb_y)
        if not isinstance(output, Denoising):
            raise TypeError(_NO_DIFFUSION)
        error = squared_errors(output)
        band = output.timesteps * self.bands // strategy.model.num_timesteps
        self._errors.index_add_(0, band.cpu(), error.double().cpu())
        self._counts += torch.bincount(band.cpu(), minlength=self.bands)

    def after_eval_exp(self, strategy: Any) -> list[MetricValue]:
        """Emit one value per band."""
        name = get_metric_name(self, strategy, add_experience=True, add_task=False)
        timesteps, step = strategy.model.num_timesteps, strategy.clock.train_iterations
        edges = [-(-band * timesteps // self.bands) for band in range(self.bands + 1)]
        return [
            MetricValue(self, f"{name}/T{low:03d}-{high - 1:03d}", float(value), step)
            for low, high, value in zip(edges, edges[1:], self.result(), strict=False)
        ]

    def __str__(self) -> str:
        return "DenoisingLoss_Exp"


def denoising_loss_metrics(*, bands: int = 4) -> list[PluginMetric]:
    """The denoising loss on each evaluated experience, by band of timesteps.

    They are logged as ``DenoisingLoss_Exp/eval_phase/test_stream/Exp000/T000-249``. They
    come from the passes that an evaluation makes anyway, and show which part of the reverse
    process is forgotten: fine detail (low t) or layout (high t).

    In a :class:`~avalanche_gd.DiffusionTraining`, the timesteps and the noise
    are the same in each evaluation of the same experiences and batch size on a device. So
    differences between models tell more than the values do: with other draws, those of
    2,000 images were up to an eighth higher. In another strategy, such as Avalanche's
    ``SupervisedTemplate``, they are drawn from torch's random state.

    :param bands: into how many bands of equal width the timesteps ``[0, T)`` are split.
    :return: the metrics, for the ``EvaluationPlugin`` of a diffusion model's strategy.
    :raises ValueError: for bands that are not an integer of 1 or more; before training and
        evaluation, if they are more than the timesteps.
    :raises TypeError: before training and evaluation, if the model has no timesteps.
    """
    return [DenoisingLossByTimestep(bands)]
