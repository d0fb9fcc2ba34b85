"""The input and the output of one pass of a diffusion model in training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avalanche_gd.distributed.shares import draw_share
from avalanche_gd.models.execution import Execution


class Denoising(NamedTuple):
    """What one pass of a diffusion model predicts, and what it should predict.

    Avalanche gives it to the criterion as the model's output. A conditioned model outputs
    :class:`NoisyImages` instead, and :meth:`NoisyImages.given` returns this.
    """

    prediction: Tensor
    """The denoiser's output, ``(N, C, H, W)``."""
    target: Tensor
    """What it should be: the noise, unless the scheduler predicts something else."""
    timesteps: Tensor
    """The timestep of each sample, ``(N,)``, integers in ``[0, T)``."""

    def given(self, labels: Tensor | None = None) -> "Denoising":
        """It itself, as it needs no labels, unlike :class:`NoisyImages`."""
        return self


class Noised(NamedTuple):
    """A batch of images, noised."""

    x_t: Tensor
    """Noisy images, ``(N, C, H, W)``."""
    target: Tensor
    """What a denoiser should predict there, of the same shape."""
    timesteps: Tensor
    """The timestep of each image, ``(N,)``."""


def noise_images(
    process: Any, x0: Tensor, generator: torch.Generator | None = None
) -> Noised:
    """Noise each image to a timestep of its own.

    :param process: a :class:`~avalanche_gd.models.prediction.NoiseProcess`.
    :param x0: clean images, ``(N, C, H, W)``.
    :param generator: the source of randomness; None for torch's own random state.
    """
    device = x0.device if generator is None else generator.device
    how: dict[str, Any] = dict(generator=generator, device=device)
    timesteps = draw_share(
        len(x0), lambda n: torch.randint(process.num_timesteps, (n,), **how)
    ).to(x0.device)
    noise = draw_share(
        len(x0), lambda n: torch.randn(n, *x0.shape[1:], dtype=x0.dtype, **how)
    ).to(x0.device)
    x_t = process.add_noise(x0, noise, timesteps)
    return Noised(x_t, process.target(x0, noise, timesteps), timesteps)


def check_timesteps(
    name: str,
    timesteps: Tensor,
    count: int,
    num_timesteps: int,
    *,
    integers: bool = True,
) -> None:
    """Raise ValueError unless there are so many integers in ``[0, T)``.

    Their range is checked where it can be read: on the CPU, as an accelerator would have to
    wait, and not by torch.compile and ``torch.func.vmap``.

    :param name: what they are, in the message.
    :param count: N.
    :param num_timesteps: T.
    :param integers: False for numbers that are no integers too.
    """
    is_float = timesteps.is_floating_point()
    is_other = timesteps.dtype == torch.bool or timesteps.is_complex()
    if timesteps.shape != (count,) or is_other or (is_float and integers):
        raise ValueError(
            f"{name} must be {count} {'integers' if integers else 'numbers'}, got "
            f"{timesteps.dtype} of shape {tuple(timesteps.shape)}"
        )
    if timesteps.device.type == "cpu" and count and not torch.compiler.is_compiling():
        bounds = torch.aminmax(timesteps if is_float else timesteps.long())
        try:
            low, high = (float(bound) for bound in bounds)
        except RuntimeError:  # of vmap
            return
        if low < 0 or high >= num_timesteps:
            raise ValueError(
                f"{name} must be from 0 to T - 1 = {num_timesteps - 1}, got "
                f"{low if low < 0 else high:g}"
            )


def squared_errors(denoising: Denoising, weights: Tensor | None = None) -> Tensor:
    """The mean squared error of each sample over its pixels, ``(N,)``.

    :param weights: the weight of a sample by its timestep, ``(T,)``; None for 1.
    :raises ValueError: if prediction and target differ in shape, weights are not one for
        each timestep, or timesteps with weights are no integers.
    """
    prediction, target, timesteps = denoising
    if prediction.shape != target.shape:  # they would be broadcast
        raise ValueError(
            f"a prediction of shape {tuple(prediction.shape)} has a target of shape "
            f"{tuple(target.shape)}; give both the same shape"
        )
    if weights is not None and weights.ndim != 1:  # so would these
        raise ValueError(
            "weights must be one for each timestep, of shape (T,), not "
            f"{tuple(weights.shape)}; flatten them"
        )
    errors = (prediction - target).square().flatten(1).mean(1)
    if weights is None:
        return errors
    if timesteps.is_floating_point():
        raise ValueError("weights are those of timesteps that are integers, not float")
    return errors * weights.to(errors.device)[timesteps.long()]


def predict(
    model: Any, x_t: Tensor, timesteps: Tensor, condition: Tensor | None = None
) -> Tensor:
    """The prediction of a model or denoiser: one forward pass, ``(N, C, H, W)``.

    :param model: a :class:`~avalanche_gd.DiffusionModel`, a denoiser for one, or a function
        that is called in the same way.
    :param x_t: noisy images, ``(N, C, H, W)``.
    :param timesteps: ``(N,)``.
    :param condition: ``(N,)``, the ``class_labels`` of a denoiser; None for none.
    :raises ValueError: for another number of timesteps or of classes than of images.
    """
    _check_one_each(x_t, timesteps, condition)
    if hasattr(model, "denoise"):
        return model.denoise(x_t, timesteps, condition)
    labels = {} if condition is None else {"class_labels": condition}
    return Execution()(model, x_t, timesteps, **labels)


def _check_one_each(x_t: Tensor, timesteps: Tensor, condition: Tensor | None) -> None:
    """Raise ValueError unless each image has a timestep, and a class where any has one.

    A function of the user's may take more as a condition than the number of a class.
    """
    count = len(x_t)
    if timesteps.shape[:1] != (count,):
        raise ValueError(
            f"timesteps of {count} images must be of shape ({count},), not "
            f"{tuple(timesteps.shape)}"
        )
    if condition is not None and condition.ndim < 2 and condition.shape != (count,):
        raise ValueError(
            f"a condition must be one class for each of {count} images, not of shape "
            f"{tuple(condition.shape)}"
        )


def predict_together(model: Any, batches: Sequence[Any]) -> list[Tensor]:
    """The predictions for several batches, by one forward pass over all of them.

    :param model: as in :func:`predict`.
    :param batches: with ``x_t``, ``timesteps`` and ``condition``, as in :func:`predict`.
    :raises ValueError: if some have a condition and others have none, or if one has
        another number of timesteps or of classes than of images.
    """
    conditions = [batch.condition for batch in batches if batch.condition is not None]
    if len(conditions) not in (0, len(batches)):
        raise ValueError("some batches have a condition and others none; give it to all")
    for batch in batches:
        _check_one_each(batch.x_t, batch.timesteps, batch.condition)
    prediction = predict(
        model,
        torch.cat([batch.x_t for batch in batches]),
        torch.cat([batch.timesteps for batch in batches]),
        torch.cat(conditions) if conditions else None,
    )
    return list(prediction.split([len(batch.x_t) for batch in batches]))


@dataclass(eq=False)
class Question:
    """Noisy images that a model denoises together with a batch, in the same pass.

    Add it to :attr:`DiffusionModel.questions <avalanche_gd.DiffusionModel>` before the
    forward pass of a training step: one pass over two batches takes less time than two.
    """

    x_t: Tensor
    """``(N, C, H, W)``."""
    timesteps: Tensor
    """``(N,)``."""
    condition: Tensor | None = None
    """For a conditioned model: the classes, ``(N,)``; ``num_classes`` is no class."""
    output: Any = None
    """The model's output of the pass in which the question is answered."""
    prediction: Tensor | None = None
    """The answer, after that pass."""

    def answer(self, model: Any, output: Any) -> Tensor:
        """The denoiser's prediction there, ``(N, C, H, W)``.

        :param model: the :class:`~avalanche_gd.DiffusionModel` that was asked.
        :param output: its output in the training step. If the question was not answered in
            that pass, for example because another plugin called the model in between, an
            extra pass is made for it.
        """
        if self.prediction is not None and self.output is output:
            return self.prediction
        return model.denoise(self.x_t, self.timesteps, self.condition)


def denoise_together(
    model: Any, noised: Noised, condition: Tensor | None, questions: Sequence[Question]
) -> Tensor:
    """The prediction for a batch, and the answers to questions, in one pass.

    A question about the batch itself, without its own condition, is not passed again: the
    prediction for the batch is its answer.

    :param noised: the batch.
    :param condition: its classes, ``(N,)``; None without conditioning.
    """
    beside = [
        question
        for question in questions
        if question.x_t is not noised.x_t or question.condition is not None
    ]
    parts = [Question(noised.x_t, noised.timesteps, condition), *beside]
    predictions = predict_together(model, parts)
    for question in questions:
        question.prediction = predictions[0]
    for question, prediction in zip(beside, predictions[1:], strict=True):
        question.prediction = prediction
    return predictions[0]


class NoisyImages:
    """The output of a conditioned model, which waits for the classes.

    Avalanche's strategies and plugins give the images to a model, but the labels only to
    the criterion. So the denoiser runs there: ``criterion(model(x), y)`` is conditioned
    in all of them.

    :param model: the conditioned :class:`~avalanche_gd.DiffusionModel`.
    :param noised: the batch.
    :param questions: what to denoise in the same pass.
    """

    def __init__(self, model: Any, noised: Noised, questions: Sequence[Question] = ()):
        self.model = model
        self.noised = noised
        self.questions = questions
        self._given: tuple[Tensor, Denoising] | None = None

    def given(self, labels: Tensor | None) -> Denoising:
        """The denoising for these classes: one forward pass; none if it is called again.

        :param labels: integers in ``[0, num_classes)``, ``(N,)``. In training mode, each
            is dropped with the probability of the model's ``condition_dropout``.
        :raises ValueError: if there are no labels, or they do not fit.
        """
        if labels is None:
            raise ValueError("a conditioned model is trained with labels; got none")
        if self._given is None or self._given[0] is not labels:
            condition = self.model.check_condition(labels, len(self.noised.x_t))
            if self.model.training:
                self.model.see_classes(condition)
                condition = self.model.drop_condition(condition)
            prediction = denoise_together(
                self.model, self.noised, condition, self.questions
            )
            self.questions = ()  # answered
            denoising = Denoising(prediction, self.noised.target, self.noised.timesteps)
            self._given = labels, denoising
        return self._given[1]
