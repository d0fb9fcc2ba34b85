"""The method as plain functions, for a training loop without Avalanche.

The plugins call the same functions.
"""

from typing import Any

import torch
from torch import Tensor

from avalanche_gd.models.denoising import (
    Denoising,
    check_timesteps,
    noise_images,
    predict,
    predict_together,
    squared_errors,
)
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.evaluation_mode import in_evaluation_mode
from avalanche_gd.models.image_check import check_images
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.plugins.drawing import draw
from avalanche_gd.plugins.look_ahead import Ahead, LookAhead
from avalanche_gd.plugins.pool import PairPool, ReplayPool
from avalanche_gd.plugins.rank1_ewc import RankOneAnchor, rank_one_anchor, rank_one_penalty
from avalanche_gd.plugins.soft_replay import soft_label_loss
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
    """Noise images to random timesteps; return the noisy images and their targets.

    Timesteps are uniform over ``[0, T)``. A target is what the model should predict at the
    noisy image.

    :param process: ``NoiseProcess(noise_scheduler)``, or the ``process`` of a model.
    :param x0: clean images in model space, ``(N, C, H, W)``.
    :param condition: the classes of the images, ``(N,)``; None for a model without classes.
        They are taken as they are: for a student with ``condition_dropout``, give
        ``student.drop_condition(labels)``.
    :param generator: the source of randomness; None for torch's own random state.
    :raises TypeError: if ``process`` is not a NoiseProcess, for example a scheduler.
    :raises ValueError: if the images are not float, or not in model space (their values are
        read on the CPU only, as an accelerator would have to wait).
    """
    if not isinstance(process, NoiseProcess):
        raise TypeError(
            f"process must be a NoiseProcess, not a {type(process).__name__}; give "
            "NoiseProcess(noise_scheduler)"
        )
    check_images(x0)
    x_t, target, timesteps = noise_images(process, x0, generator)
    return Taught(x_t, timesteps, target, condition)


def prediction_losses(
    student: Any, *batches: Taught, weights: Tensor | None = None
) -> list[Tensor]:
    """``E || target - eps_theta(x_t, t) ||^2`` of each batch, in one pass over all of them.

    One pass over two batches takes less time than two passes.

    :param student: a :class:`~avalanche_gd.DiffusionModel`; or a U-Net of diffusers that
        needs no other inputs; or a function of noisy images, timesteps and, where there is
        a condition, ``class_labels``. The function returns a tensor of the images' shape,
        or an object that has this tensor as ``sample``.
    :param batches: the results of :func:`noised` or :func:`draw`.
    :param weights: the weight of a sample by its timestep, ``(T,)``, such as
        ``process.min_snr_weights(5)``; None for 1.
    :return: one scalar per batch.
    :raises ValueError: for no batch; for one that has two targets at a noisy image, if some
        batches have a condition and others have none, if the prediction and the target
        differ in shape, or if the weights or timesteps are not those of the student's
        process, where it has one.
    """
    if not batches:
        raise ValueError("there is no batch; give what noised or draw returns")
    if any(batch.target.ndim == batch.x_t.ndim + 1 for batch in batches):
        raise ValueError(
            "a batch teaches both with and without the class; give its apart(), and take "
            "the mean over each half"
        )
    if isinstance(process := getattr(student, "process", None), NoiseProcess):
        _check_weights(weights, process)
        for batch in batches:
            _check_timesteps(batch.x_t, batch.timesteps, process)
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

    If the process predicts v, the image or the velocity, this takes the place of eps. For
    the parameters see :func:`noised` and :func:`prediction_losses`.

    :return: a scalar.
    :raises TypeError: as in :func:`noised`.
    :raises ValueError: as in both, if the student has another process or another shape of
        images, or if the weights are not those of the process.
    """
    batch = noised(process, x0, condition, generator=generator)
    if not _are_alike(student, process):
        raise ValueError(
            "the process adds other noise, or has something else predicted, than its "
            "student's; give student.process"
        )
    if isinstance(student, DiffusionModel):
        student.check_images(x0)
    _check_weights(weights, process)
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
    """``L_rep = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2``: teacher and student.

    Costs a forward pass of the student and one of the teacher.

    :param student: see :func:`prediction_losses`.
    :param teacher: the same kinds as the student. It is called without gradients and in
        evaluation mode, if it is a module, which then has the mode again that it had.
    :param x_t: noisy images, ``(N, C, H, W)``.
    :param timesteps: ``(N,)``, from 0 to T - 1; integers, unless the models take others.
    :param condition: the classes that both get, ``(N,)``; None for models without classes.
    :param weights: see :func:`prediction_losses`.
    :return: a scalar.
    :raises ValueError: as in :func:`prediction_losses`; if both have a process, and these
        differ, or if the timesteps are not of that of one.
    """
    if not _are_alike(student, getattr(teacher, "process", None)):
        raise ValueError(
            "the teacher's scheduler adds other noise, or predicts something else, than "
            "its student's; make the student with the scheduler of the teacher"
        )
    for process in (getattr(model, "process", None) for model in (student, teacher)):
        if isinstance(process, NoiseProcess):
            _check_timesteps(x_t, timesteps, process)
    with torch.no_grad(), in_evaluation_mode(teacher):
        target = predict(teacher, x_t, timesteps, condition)
    batch = Taught(x_t, timesteps, target, condition)
    return prediction_losses(student, batch, weights=weights)[0]


def _are_alike(student: Any, process: Any) -> bool:
    """False if a student has another noise process."""
    own = getattr(student, "process", None)
    if isinstance(own, NoiseProcess) and isinstance(process, NoiseProcess):
        return own.is_like(process)
    return True


def _check_timesteps(x_t: Tensor, timesteps: Tensor, process: NoiseProcess) -> None:
    last = process.num_timesteps
    check_timesteps("timesteps", timesteps, len(x_t), last, integers=False)


def _check_weights(weights: Tensor | None, process: NoiseProcess) -> None:
    """Raise ValueError for weights of another process."""
    count = process.num_timesteps
    if weights is not None and weights.shape != (count,):
        raise ValueError(
            f"weights must be one for each of the {count} timesteps, of shape ({count},), "
            f"not {tuple(weights.shape)}"
        )
    if weights is None or weights.device.type != "cpu" or torch.compiler.is_compiling():
        return
    try:
        are_right = bool((weights.isfinite() & (weights >= 0)).all())
    except RuntimeError:  # of vmap
        return
    if not are_right:
        raise ValueError("weights must be finite numbers of 0 or more")
