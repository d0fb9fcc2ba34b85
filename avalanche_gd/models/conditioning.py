"""A denoiser under a condition, the class of the images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd.distributed.gradients import averaging_passes
from avalanche_gd.distributed.shares import draw_share, gathered
from avalanche_gd.models.execution import Execution
from avalanche_gd.models.sampler import Denoise

_NOT_CONDITIONED = (
    "a condition was given, but this model is not conditioned; make it with num_classes="
)


class ConditionedDenoiser(nn.Module):
    """Passes of a denoiser, conditioned on the class or not.

    The arguments are those of :class:`~avalanche_gd.DiffusionModel`.

    :raises ValueError: if there is no class, if the dropout is not in ``[0, 1)``, if the
        guidance is negative, or with guidance but no dropout or no classes.
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
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes must be 1 or more, got {num_classes}")
        if not 0 <= condition_dropout < 1:
            raise ValueError(
                f"condition_dropout must be in [0, 1), got {condition_dropout}"
            )
        if guidance < 0:
            raise ValueError(f"guidance must be 0 or more, got {guidance}")
        if num_classes is None and (condition_dropout or guidance != 1):
            raise ValueError("condition_dropout and guidance need num_classes=")
        if guidance != 1 and condition_dropout == 0:
            raise ValueError(
                "guidance needs a model that was also trained without the class; "
                "give condition_dropout, for example 0.1"
            )
        self.denoiser: Any = denoiser
        self.num_classes = num_classes
        self.condition_dropout = condition_dropout
        self.guidance = guidance
        self.execution = execution or Execution()
        self.execution.prepare(denoiser)
        self.pass_hooks: list[Callable[[int], Callable[[], None]]] = []
        """Called with the number of images of each forward pass, also of copies of this
        model; what they return is called at each backward pass that follows it."""
        # A buffer, so that a teacher and a checkpoint know it too.
        seen = torch.zeros(num_classes or 0, dtype=torch.bool)
        self.register_buffer("classes_seen", seen)

    def denoise(
        self, x_t: Tensor, timesteps: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """The denoiser's prediction for noisy images: one forward pass, 1F.

        :param x_t: noisy images, ``(N, C, H, W)``.
        :param timesteps: their timesteps, ``(N,)``.
        :param condition: of a conditioned model, and only of one: the classes, ``(N,)``,
            where ``num_classes`` stands for none.
        :return: the predicted noise (or v, or image: as the scheduler's
            ``prediction_type`` says), ``(N, C, H, W)``.
        :raises ValueError: for a condition too many or too few.
        """
        run = averaging_passes(self.denoiser) or partial(self.execution, self.denoiser)
        prediction = run(x_t, timesteps, **self.class_labels(condition))
        for hook in self.pass_hooks:
            note_backward = hook(len(x_t))
            if prediction.requires_grad:
                prediction.register_hook(lambda _, note=note_backward: note())
        return prediction

    def guided(self, condition: Tensor | None) -> Denoise:
        """The denoiser under a condition as sampling calls it, with the model's guidance.

        :param condition: of a conditioned model: the classes, ``(N,)``.
        :return: a function of ``x_t`` and timesteps; 1F, with guidance 2F.
        """
        given_and_guided = self.given_and_guided(condition)
        return lambda x_t, timesteps: given_and_guided(x_t, timesteps)[1]

    def given_and_guided(
        self, condition: Tensor | None
    ) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The denoiser under a condition, as it is and with the model's guidance.

        :param condition: as in :meth:`guided`.
        :return: a function of ``x_t`` and timesteps that gives both predictions; 1F, with
            guidance 2F.
        """

        def denoise(x_t: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
            if self.guidance == 1 or condition is None:
                prediction = self.denoise(x_t, timesteps, condition)
                return prediction, prediction
            none = torch.full_like(condition, self.num_classes or 0)
            twice = torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps])
            given, without = self.denoise(*twice, torch.cat([condition, none])).chunk(2)
            return given, without + self.guidance * (given - without)

        return denoise

    def class_labels(self, condition: Tensor | None) -> dict[str, Tensor]:
        """A condition as the denoiser takes it.

        :raises ValueError: for a condition too many or too few.
        """
        if self.num_classes is None:
            if condition is not None:
                raise ValueError(_NOT_CONDITIONED)
            return {}
        if condition is None:
            raise ValueError("this model is conditioned on the class; give condition=")
        return {"class_labels": condition}

    def see_classes(self, labels: Tensor) -> None:
        """Note that these classes are trained on."""
        self.classes_seen[gathered(labels)] = True  # in every process

    def check_condition(self, labels: Tensor, count: int) -> Tensor:
        """The labels as the condition of ``count`` images.

        :raises ValueError: unless they are ``count`` integers in ``[0, num_classes)``,
            and the model is conditioned. (The range only on the CPU: an accelerator would
            have to wait.)
        """
        if self.num_classes is None:
            raise ValueError(_NOT_CONDITIONED)
        labels = torch.as_tensor(labels)
        if labels.shape != (count,) or labels.is_floating_point():
            raise ValueError(
                f"a condition for {count} images must be {count} integers, "
                f"got {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if labels.device.type == "cpu" and count:
            low, high = (int(bound) for bound in torch.aminmax(labels))
            if low < 0 or high >= self.num_classes:
                raise ValueError(
                    f"labels must be from 0 to num_classes - 1 = {self.num_classes - 1}, "
                    f"got {low if low < 0 else high}"
                )
        return labels.to(self.classes_seen.device)

    def draw_condition(self, batch_size: int, generator: torch.Generator) -> Tensor | None:
        """The classes of a batch of samples: those trained on so far, as many of each.

        Where their number does not divide the batch, which come once more is drawn.

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
        device = generator.device
        first = torch.randint(len(seen), (1,), generator=generator, device=device).to(seen)
        return draw_share(
            batch_size,
            lambda n: seen[(torch.arange(n, device=seen.device) + first) % len(seen)],
        )

    def drop_condition(
        self, condition: Tensor | None, generator: torch.Generator | None = None
    ) -> Tensor | None:
        """Leave each class out with the probability ``condition_dropout``.

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
        return condition.masked_fill(dropped, self.num_classes or 0)
