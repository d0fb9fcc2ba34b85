"""The method without a strategy: what a loop of one's own needs, and the plugins call."""

from typing import Any

import torch
from torch import Tensor

from avalanche_gd.models.denoising import (
    Denoising,
    noise_images,
    predict,
    predict_together,
    squared_errors,
)
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.plugins.drawing import draw
from avalanche_gd.plugins.fisher import RankOneAnchor, rank_one_anchor, rank_one_penalty
from avalanche_gd.plugins.pool import Ahead, LookAhead, PairPool, ReplayPool
from avalanche_gd.plugins.replay import soft_label_loss
from avalanche_gd.plugins.teacher import frozen_copy, replay_weights, weighted_loss
from avalanche_gd.plugins.teaching import Taught

__all__ = [
    "Ahead",
    "LookAhead",
    "NoiseProcess",
    "PairPool",
    "RankOneAnchor",
    "ReplayPool",
    "Taught",
    "denoising_loss",
    "distillation_loss",
    "draw",
    "frozen_copy",
    "noised",
    "prediction_losses",
    "rank_one_anchor",
    "rank_one_penalty",
    "replay_weights",
    "soft_label_loss",
    "weighted_loss",
]


def noised(
    process: NoiseProcess,
    x0: Tensor,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Taught:
    """Images, noised to timesteps drawn uniformly, and what to predict there.

    :param process: ``NoiseProcess(noise_scheduler)``, or a model's ``process``.
    :param x0: clean images in model space, ``(N, C, H, W)``.
    :param condition: the classes, ``(N,)``; None without conditioning.
    :param generator: the source of randomness; None for torch's own random state.
    :raises TypeError: for another process, such as a scheduler.
    """
    if not isinstance(process, NoiseProcess):
        raise TypeError(
            f"process must be a NoiseProcess, not a {type(process).__name__}; give "
            "NoiseProcess(noise_scheduler)"
        )
    x_t, target, timesteps = noise_images(process, x0, generator)
    return Taught(x_t, timesteps, target, condition)


def prediction_losses(
    student: Any, *batches: Taught, weights: Tensor | None = None
) -> list[Tensor]:
    """``E || target - eps_theta(x_t, t) ||^2`` of each batch, in one pass over all.

    One pass over two batches takes less time than two passes.

    :param student: a :class:`~avalanche_gd.DiffusionModel`, a U-Net of diffusers without
        further inputs, or a function: called with noisy images and timesteps, and with
        ``class_labels`` where there is a condition, it gives a tensor of the images' shape,
        or an object that has it as ``sample``.
    :param batches: of :func:`noised` or :func:`draw`.
    :param weights: of a sample by its timestep, ``(T,)``, such as
        ``process.min_snr_weights(5)``; None for 1.
    :return: a scalar a batch.
    :raises ValueError: if some have a condition and others have none, or for a prediction
        of another shape than its target.
    """
    predictions = predict_together(student, batches)
    return [
        squared_errors(Denoising(prediction, batch.target, batch.timesteps), weights).mean()
        for prediction, batch in zip(predictions, batches, strict=True)
    ]


def denoising_loss(
    student: Any,
    process: NoiseProcess,
    x0: Tensor,
    condition: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """``L_cur = E || eps - eps_theta(x_t, t) ||^2``, the loss of a diffusion model.

    Of v, the image or the velocity, where the process predicts that. The parameters are
    those of :func:`noised` and :func:`prediction_losses`.

    :return: a scalar.
    """
    batch = noised(process, x0, condition, generator=generator)
    return prediction_losses(student, batch, weights=weights)[0]


def distillation_loss(
    student: Any,
    teacher: Any,
    x_t: Tensor,
    timesteps: Tensor,
    condition: Tensor | None = None,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """``L_rep = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2``, by two passes.

    :param student: as of :func:`prediction_losses`.
    :param teacher: likewise; asked without gradients, in the mode that it is in.
    :param x_t: noisy images, ``(N, C, H, W)``.
    :param timesteps: ``(N,)``.
    :param condition: the classes that both are asked for, ``(N,)``; None without.
    :param weights: as of :func:`prediction_losses`.
    :return: a scalar.
    """
    with torch.no_grad():
        target = predict(teacher, x_t, timesteps, condition)
    batch = Taught(x_t, timesteps, target, condition)
    return prediction_losses(student, batch, weights=weights)[0]
