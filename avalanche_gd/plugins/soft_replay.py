"""Generative replay for a solver, with the old solver's soft labels."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.random_state import default_generator
from avalanche_gd.plugins.experiences import experience_number
from avalanche_gd.plugins.regeneration import regenerate
from avalanche_gd.plugins.replay import GenerativeReplayPlugin
from avalanche_gd.plugins.teacher import frozen_copy


class SoftGenerativeReplayPlugin(  # type: ignore[call-arg]
    GenerativeReplayPlugin, supports_distributed=True
):
    """Generative replay for a solver, with the old solver's soft labels.

    The samples' loss is distillation at temperature T (arXiv 1503.02531, section 2)::

        L_rep = -T^2 sum_c softmax(z_old / T)_c log_softmax(z_new / T)_c

    averaged over the samples: the old solver is the target, the new one learns. Classes
    for which the old solver has no logit yet, because the head has grown since, have the
    probability 0 in the target. (With ``labels="condition"``: cross-entropy with the class
    on which the sample was conditioned.)

    A solver sees real images of the current classes and generated images of the old ones.
    It may learn to tell new from old by whether an image is generated. With
    ``samples_only_from`` it is also taught the current classes through the generator, which
    is trained first (:func:`~avalanche_gd.plugins.regeneration.regenerate`).

    :param generator_strategy: as in :class:`GenerativeReplayPlugin`, and required here.
    :param temperature: T, above 0.
    :param samples_only_from: the step of an experience from which on current images are
        also replaced by what the generator makes of them, in ``teacher_steps`` steps of
        DDIM, whatever the sampler and eta of the replay are. Right before that step the
        generator is trained on the experience. With 0 the generator is
        trained first, and the solver sees no real image. None for real images to the end. A
        step then costs k F more.
    :param regenerate_from: the timestep t to which current images are noised for that, from
        0 to T - 1. None for T - 1 if the generator is conditioned on the class, so that it
        makes new samples of the current labels, and for T // 4 if it is not, as the images
        must still show the class of their labels.
    :param options: the other arguments of :class:`GenerativeReplayPlugin`.
    :raises ValueError: for a temperature that is not a finite number above 0, a step or a
        timestep that is not an integer of 0 or more, a timestep that is above T - 1 or
        without ``samples_only_from``, and as in :class:`GenerativeReplayPlugin`.
    :raises TypeError: as there, without ``generator_strategy``, or for
        ``samples_only_from`` with a generator that is not a
        :class:`~avalanche_gd.DiffusionModel`.
    """

    def __init__(
        self,
        generator_strategy: Any,
        *,
        temperature: float = 2.0,
        samples_only_from: int | None = None,
        regenerate_from: int | None = None,
        **options: Any,
    ):
        if generator_strategy is None:
            raise TypeError(
                "a solver replays samples of a generator; give generator_strategy, the "
                "strategy that trains it"
            )
        self.samples_only_from = samples_only_from
        if samples_only_from is not None:
            check_integer("samples_only_from", samples_only_from, 0)
        self.regenerate_from = regenerate_from
        if regenerate_from is not None:
            check_integer("regenerate_from", regenerate_from, 0)
            if samples_only_from is None:
                raise ValueError("regenerate_from needs samples_only_from; give both")
        self.new_generator: Any = None
        self._trained_for: Any = None  # the experience that was begun last
        super().__init__(generator_strategy, **options)
        self.temperature = check_number("temperature", temperature, "above 0")
        if self.labels == "condition" and temperature != 2:
            raise ValueError(
                "temperature is for the old solver's labels; leave it out with "
                'labels="condition"'
            )

    def check_model(self, model: Any) -> None:
        """Check as the parent does, and that the generator can make images again."""
        super().check_model(model)
        if self.samples_only_from is None:
            return
        if not isinstance(model, DiffusionModel):
            raise TypeError(
                "samples_only_from needs a DiffusionModel, as it makes images again, not a "
                f"{type(model).__name__}"
            )
        last = model.num_timesteps - 1
        check_integer("regenerate_from", self.regenerate_from or 0, 0, last)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze the present generator and solver.

        A generator that learned this experience before an interruption learned it.
        """
        super().before_training_exp(strategy, *args, **kwargs)
        known = strategy.experience.logging()
        begun = experience_number(strategy), known._current_experience, len(known.dataset)
        if begun != self._trained_for:
            self.new_generator = None
        self._trained_for = begun

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """From step ``samples_only_from`` on, replace current images by the generator's."""
        step, first = strategy.clock.train_exp_iterations, self.samples_only_from
        if first is None or step < first:
            return
        if self.new_generator is None:
            self.train_generator(strategy, **kwargs)
            self.new_generator = frozen_copy(self.generator)
        strategy.mbatch[0] = self.regenerate(strategy.mb_x, strategy.mb_y)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Train the generator if that is not done yet, and release the copies."""
        first, steps = self.samples_only_from, strategy.clock.train_exp_iterations
        if first is not None and self.new_generator is None:
            warnings.warn(
                f"an experience, or a piece of one, ended after {steps} steps, before "
                f"samples_only_from={first}: the solver saw real images to the end",
                stacklevel=2,
            )
        super().after_training_exp(strategy, *args, **kwargs)
        self.new_generator = self._trained_for = None

    def train_generator(self, strategy: Any, **kwargs: Any) -> None:
        """Train the generator on the solver's experience, once."""
        if self.new_generator is None:
            super().train_generator(strategy, **kwargs)

    def regenerate(self, images: Tensor, labels: Tensor) -> Tensor:
        """What the new generator makes of current images.

        :param images: ``(N, C, H, W)``.
        :param labels: their classes, ``(N,)``, on which the generator is conditioned.
        """
        model, timestep = self.new_generator, self.regenerate_from
        is_conditioned = model.num_classes is not None
        if timestep is None:
            last = model.num_timesteps - 1
            timestep = last if is_conditioned else model.num_timesteps // 4
        generator = self.lesson.generator or default_generator(model.device)
        return regenerate(
            model,
            images.to(model.device),
            labels.to(model.device) if is_conditioned else None,
            timestep=timestep,
            steps=self.lesson.steps,
            generator=generator,
        ).to(images.device)

    def replay_loss(
        self, strategy: Any, samples: Tensor, condition: Tensor | None
    ) -> Tensor:
        """The distillation loss from the old solver on the samples."""
        if self.labels == "condition":
            return super().replay_loss(strategy, samples, condition)
        with torch.no_grad():
            old_logits = self.old_model(samples)
        new_logits = strategy.model(samples)
        return soft_label_loss(new_logits, old_logits, self.temperature)


def soft_label_loss(new_logits: Tensor, old_logits: Tensor, temperature: float) -> Tensor:
    """``-T^2 sum softmax(z_old / T) log_softmax(z_new / T)``, averaged over samples.

    :param new_logits: z_new, of the solver that learns, ``(N, num_classes)``.
    :param old_logits: z_old, of the solver that it learns from, ``(N, num_classes)`` or
        fewer columns: the target of the last classes is then 0.
    :param temperature: T, above 0.
    :raises ValueError: if the old solver has more logits than the new one, or the
        temperature is not a finite number above 0.
    """
    temperature = check_number("temperature", temperature, "above 0")
    more = new_logits.shape[1] - old_logits.shape[1]
    if more < 0:
        raise ValueError(
            f"the old solver has {old_logits.shape[1]} logits, but the new one "
            f"{new_logits.shape[1]}; give a new solver that knows the old classes"
        )
    target = F.softmax(old_logits / temperature, dim=1)
    if more:
        target = F.pad(target, (0, more))
    return temperature**2 * F.cross_entropy(new_logits / temperature, target)
