"""A denoiser with or without a condition, the class of the images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.distributed.gradients import averaging_passes
from avalanche_gd.distributed.shares import draw_share, gathered
from avalanche_gd.models.denoiser_check import check_denoiser, class_embeddings
from avalanche_gd.models.execution import Execution
from avalanche_gd.models.sampler import Denoise

_NOT_CONDITIONED = (
    "a condition was given, but this model is not conditioned; make it with num_classes="
)


class PassHooks(list[Callable[[int], Callable[[], None]]]):
    """Functions that are shared by the copies of a model: they are not copied with it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "PassHooks":
        return PassHooks(self)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Call none of them, as for the passes of a metric in the midst of training."""
        hooks = self[:]
        self.clear()
        try:
            yield
        finally:
            self[:] = hooks


class ConditionedDenoiser(nn.Module):
    """The forward passes of a denoiser, conditioned on the class or not.

    For the arguments see :class:`~avalanche_gd.DiffusionModel`.

    :raises TypeError: if the denoiser is not a module or takes other arguments, or if
        ``execution`` is not an :class:`~avalanche_gd.Execution`.
    :raises ValueError: if ``num_classes`` is below 1 or does not fit the denoiser, if the
        dropout is not in ``[0, 1)``, if the guidance is negative, for dropout or guidance
        without classes or without an embedding for no class, or for guidance without
        dropout.
    """

    classes_seen: Tensor

    def __init__(
        self,
        denoiser: nn.Module,
        *,
        num_classes: int | None,
        condition_dropout: float,
        guidance: float,
        execution: Execution | None,
    ):
        super().__init__()
        if num_classes is not None:
            num_classes = check_integer("num_classes", num_classes)
        check_denoiser(denoiser, num_classes=num_classes)
        self.denoiser: Any = denoiser
        self.num_classes = num_classes
        self.none = num_classes
        """The condition that stands for no class; None if the denoiser has none."""
        if num_classes is not None and class_embeddings(denoiser) == num_classes:
            self.none = None
        self.condition_dropout = check_number(
            "condition_dropout", condition_dropout, "in [0, 1)"
        )
        self.guidance = check_number("guidance", guidance, "0 or more")
        self._check_guidance()
        if not isinstance(execution, Execution | None):
            raise TypeError(
                f"execution must be an avalanche_gd.Execution, not {execution!r}"
            )
        self.execution = execution or Execution()
        self.execution.prepare(denoiser)
        self.pass_hooks = PassHooks()
        """Called with the number of images of each forward pass, also of copies of this
        model; what they return is called at each backward pass that follows it."""
        # A buffer, so that a teacher and a checkpoint have it too.
        seen = torch.zeros(num_classes or 0, dtype=torch.bool)
        self.register_buffer("classes_seen", seen)

    @property
    def num_conditions(self) -> int:
        """How many conditions there are: the classes, and one for no class if it exists."""
        return (self.num_classes or 0) + (self.none is not None)

    def denoise(
        self, x_t: Tensor, timesteps: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The denoiser's prediction for noisy images: one forward pass, 1F.

        :param x_t: noisy images, ``(N, C, H, W)``.
        :param timesteps: their timesteps, ``(N,)``.
        :param condition: for a conditioned model only: the classes, ``(N,)``, where
            ``num_classes`` stands for no class.
        :return: the predicted noise (or v, image or velocity, by the scheduler's
            ``prediction_type``), ``(N, C, H, W)``.
        :raises ValueError: for a missing, unexpected or unknown condition or another number
            of them, or if the prediction does not have the shape of the images.
        """
        labels = self.class_labels(condition, len(x_t))
        run = averaging_passes(self.denoiser) or partial(self.execution, self.denoiser)
        prediction = run(x_t, timesteps, **labels)
        if prediction.shape != x_t.shape:  # a loss might broadcast them
            kind = type(self.denoiser)
            raise ValueError(
                f"a denoiser must return {tuple(x_t.shape)}, the shape of its images, "
                f"but {kind.__module__}.{kind.__qualname__} returns "
                f"{tuple(prediction.shape)}"
            )
        for hook in self.pass_hooks:
            note_backward = hook(len(x_t))
            if prediction.requires_grad:
                prediction.register_hook(lambda _, note=note_backward: note())
        return prediction

    def guided(self, condition: Tensor | None) -> Denoise:
        """The denoiser under a condition, with the model's guidance, for sampling.

        :param condition: for a conditioned model: the classes, ``(N,)``.
        :return: a function of ``x_t`` and timesteps; it costs 1F, with guidance 2F.
        """
        given_and_guided = self.given_and_guided(condition)
        return lambda x_t, timesteps: given_and_guided(x_t, timesteps)[1]

    def given_and_guided(
        self, condition: Tensor | None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The denoiser under a condition, both without and with the model's guidance.

        :param condition: as in :meth:`guided`.
        :return: a function of ``x_t`` and timesteps that returns both predictions; it costs
            1F, with guidance 2F.
        """

        def denoise(x_t: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            if self.guidance == 1 or condition is None:
                prediction = self.denoise(x_t, timesteps, condition)
                return prediction, prediction
            none = self.no_class(condition)
            twice = torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps])
            given, without = self.denoise(*twice, torch.cat([condition, none])).chunk(2)
            return given, without + self.guidance * (given - without)

        return denoise

    def class_labels(self, condition: Tensor | None, count: int) -> dict[str, Tensor]:
        """Convert a condition to the denoiser's keyword arguments.

        :param count: N, of the images.
        :raises ValueError: for a missing or unexpected condition, for another number of
            them, or, on the CPU, for an unknown one.
        """
        if self.num_classes is None:
            if condition is not None:
                raise ValueError(_NOT_CONDITIONED)
            return {}
        if condition is None:
            raise ValueError("this model is conditioned on the class; give condition=")
        condition = _integers(condition, count)
        wrong = _outside(condition, self.num_conditions)
        if wrong is not None:
            none = "no value means" if self.none is None else f"{self.none} means"
            raise ValueError(
                f"a condition must be from 0 to {self.num_conditions - 1}, where {none} no "
                f"class, got {wrong}"
            )
        return {"class_labels": condition}

    def no_class(self, like: Tensor) -> Tensor:
        """The condition that stands for no class, for as many images as ``like`` has.

        :param like: the classes of the images, ``(N,)``.
        :raises ValueError: if the denoiser has no such condition.
        """
        if self.none is None:
            raise ValueError(
                "this model has no embedding for no class, so it always needs one; give "
                "its denoiser num_classes + 1 embeddings, and train it with "
                "condition_dropout="
            )
        return torch.full_like(like, self.none)

    def see_classes(self, labels: Tensor) -> None:
        """Note that these classes are trained on."""
        self.classes_seen[gathered(labels)] = True  # in every process

    def check_condition(self, labels: Tensor, count: int) -> Tensor:
        """Check labels, and return them as the condition of ``count`` images.

        :raises ValueError: unless they are ``count`` integers in ``[0, num_classes)``,
            and the model is conditioned. (The range is checked on the CPU only, as an
            accelerator would have to wait.)
        """
        if self.num_classes is None:
            raise ValueError(_NOT_CONDITIONED)
        labels = _integers(labels, count)
        wrong = _outside(labels, self.num_classes)
        if wrong is not None:
            raise ValueError(
                f"labels must be from 0 to num_classes - 1 = {self.num_classes - 1}, "
                f"got {wrong}"
            )
        return labels.to(self.classes_seen.device)

    def draw_condition(self, batch_size: int, generator: torch.Generator) -> Tensor | None:
        """The classes of a batch of samples: those trained on so far, as many of each.

        If their number does not divide the batch size, the extra ones are drawn at random.

        :return: ``(batch_size,)``; None if the model is not conditioned.
        :raises ValueError: if a conditioned model has not been trained yet.
        """
        if self.num_classes is None:
            return None
        seen = self.classes_seen.nonzero().flatten()
        if len(seen) == 0:
            raise ValueError(
                "the model has seen no class yet; train it, or give condition="
            )
        return draw_evenly(seen, batch_size, generator)

    def drop_condition(
        self, condition: Tensor | None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Drop each class with the probability ``condition_dropout``.

        :param condition: ``(N,)``; None stays None.
        :param generator: the source of randomness; None for torch's own random state.
        """
        if condition is None or self.condition_dropout == 0:
            return condition
        device = condition.device if generator is None else generator.device
        draw = draw_share(
            len(condition), lambda n: torch.rand(n, generator=generator, device=device)
        )
        dropped = draw.to(condition.device) < self.condition_dropout
        return torch.where(dropped, self.no_class(condition), condition)

    def _check_guidance(self) -> None:
        """Raise ValueError unless the model has what dropout and guidance need."""
        if self.condition_dropout == 0 and self.guidance == 1:
            return
        if self.num_classes is None:
            raise ValueError("condition_dropout and guidance need num_classes=")
        if self.none is None:
            raise ValueError(
                "condition_dropout and guidance need an embedding for no class; the "
                f"denoiser has {self.num_classes} for as many classes; give it one more"
            )
        if self.condition_dropout == 0:
            raise ValueError(
                "guidance needs a model that was also trained without the class; "
                "give condition_dropout, for example 0.1"
            )


def draw_evenly(classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """As many of each class, ``(count,)``; the extra ones are drawn at random.

    :param classes: the different classes, ``(K,)``.
    """
    device = generator.device
    first = torch.randint(len(classes), (1,), generator=generator, device=device)
    first = first.to(classes)
    return draw_share(
        count,
        lambda n: classes[(torch.arange(n, device=classes.device) + first) % len(classes)],
    )


def _integers(labels: Any, count: int) -> Tensor:
    """Labels as 64-bit integers; raise ValueError unless there are ``count`` integers."""
    try:
        labels = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"a condition for {count} images must be {count} integers, got {labels!r:.60}"
        ) from error
    is_integer = not (labels.dtype == torch.bool or labels.is_floating_point())
    if labels.shape != (count,) or not is_integer or labels.is_complex():
        raise ValueError(
            f"a condition for {count} images must be {count} integers, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.long()


def _outside(labels: Tensor, end: int) -> int | None:
    """A label outside of ``[0, end)``; None if there is none, or on an accelerator."""
    if labels.device.type != "cpu" or not labels.numel():
        return None
    low, high = (int(bound) for bound in torch.aminmax(labels))
    if low < 0 or high >= end:
        return low if low < 0 else high
    return None
