"""Generative replay, weighted by the number of experiences."""

import inspect
import warnings
import weakref
from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from avalanche.training.plugins import GenerativeReplayPlugin as AvalancheReplayPlugin
from torch import Tensor

from avalanche_gd.checks import check_choice, check_number
from avalanche_gd.data.images import image_of
from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.distributed.shares import draw_share
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.random_state import same_draws
from avalanche_gd.plugins.compatibility import check_compatible, check_solver
from avalanche_gd.plugins.experiences import ExperienceCount
from avalanche_gd.plugins.guidance import ClassifierGuidance
from avalanche_gd.plugins.lesson import Lesson, LessonPlugin
from avalanche_gd.plugins.look_ahead import LOOK_AHEAD
from avalanche_gd.plugins.sources import Retraining
from avalanche_gd.plugins.teacher import (
    Teacher,
    add_replay_loss,
    check_copy,
    check_weighting,
    frozen_copy,
)

LABELS = ("solver", "condition")
"""Which label a solver gives to the samples that it replays."""

_TRAINED_FOR: "weakref.WeakKeyDictionary[Any, weakref.ref[Any]]"
_TRAINED_FOR = weakref.WeakKeyDictionary()
"""By generator: the strategy of the solver that trained it last."""


class GenerativeReplayPlugin(  # type: ignore[call-arg]
    LessonPlugin, AvalancheReplayPlugin, supports_distributed=True
):
    """Generative replay that weights the losses by n, and trains the generator too.

    It extends Avalanche's plugin of the same name. From the second experience on, a step
    also trains on samples of the generator from the end of the previous experience::

        L = (1/n) L_cur + (1 - 1/n) lambda L_rep

    where L_rep is the strategy's own criterion on the samples, and n counts experiences, or
    the origin experiences of an online stream
    (:class:`~avalanche_gd.plugins.experiences.ExperienceCount`). With
    ``weighting="constant"`` it is ``L_cur + lambda L_rep``. It has two uses, as in
    Avalanche:

    - In the strategy of a generator, without arguments: the generator replays its own
      samples. With a diffusion model, that is standard generative replay, and the model
      sees samples and current images in one pass. A step costs 8F at k = 2 (F is one
      forward pass of the denoiser over one batch).
    - In the strategy of a solver, with ``generator_strategy``: the old solver labels the
      samples with its most likely class, and the generator is trained on each experience
      right after the solver. (In Avalanche that takes a second plugin.) The head of a
      solver may grow, as Avalanche's ``IncrementalClassifier`` does: the old solver is from
      before it grew.

    A conditioned diffusion model replays the classes it was trained on, as many of each.
    A plugin that scales the strategy's loss has to come behind this one.

    :param generator_strategy: the strategy that trains the generator, a model with
        Avalanche's method ``generate(batch_size)``; None if the strategy's own model is the
        generator. Its own ``eval_every`` evaluates it on the ``eval_streams`` of the
        solver's training.
    :param teacher_steps: k, the sampling steps, if the generator is a
        :class:`~avalanche_gd.DiffusionModel`.
    :param lambd: lambda, the weight of replay.
    :param replay_size: samples a step; None for as many as the current batch has.
    :param replay_ratio: samples for each of the current batch, above 0, if ``replay_size``
        is None.
    :param look_ahead: for how many steps at once a diffusion model makes samples
        (:class:`~avalanche_gd.plugins.LookAhead`).
    :param pool_size: how many samples a diffusion model makes at the start of an
        experience; steps then draw from this pool
        (:class:`~avalanche_gd.plugins.ReplayPool`).
    :param pool_per_class: instead of ``pool_size``, for a conditioned diffusion model: how
        many samples of each class that it knows.
    :param pool_refresh: after how many steps the pool is filled again; None to keep it.
    :param teacher_sampler: for a diffusion model, a name in
        :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :param teacher_eta: for a diffusion model, from 0 for DDIM to 1 for ancestral sampling.
    :param replay_start_timestep: the lowest t to which samples are noised, if a diffusion
        model replays its own samples.
    :param increasing_replay_size: True for n - 1 times as many samples in the n-th
        experience, as in Avalanche, if ``replay_size`` is None.
    :param weighting: of the two losses, a name in
        :data:`~avalanche_gd.plugins.teacher.WEIGHTINGS`: ``"experiences"`` or
        ``"constant"``.
    :param guidance: guides a diffusion model's sampling by a classifier
        (:class:`~avalanche_gd.ClassifierGuidance`). In the strategy of a solver, this
        classifier is the solver: for ``"missing"`` from before the experience, for
        ``"confused"`` as it is when samples are made. None for no guidance.
    :param labels: the class of a sample for a solver: ``"solver"``, what the old solver
        predicts, or ``"condition"``, the class on which the diffusion model was
        conditioned.
    :param generator: the source of all that the plugin draws for a diffusion model's
        samples; None for torch's own random state.
    :raises ValueError: for an argument outside of its range above, an unknown sampler or
        weighting, a refresh without a pool, both kinds of a pool, an eta that the sampler
        does not have, a start for a solver, a size that is both fixed and increasing, a
        ratio beside a size, or labels from a condition without a solver, or that the
        generator does not have. With ``generator_strategy`` also, and without it when
        training starts: for teacher steps above T, a start that is not below T, an eta that
        the model's scheduler does not have, a pool that has fewer samples than the
        generator has classes, that does not fit into memory, or that is of each class where
        the generator is not conditioned, or an argument for a diffusion model if the
        generator is another one. When training starts: for an eta that several processes
        would share, for a metric or plugin of Avalanche that cannot work with a diffusion
        model, and for a solver or its strategy that cannot replay samples
        (:func:`~avalanche_gd.plugins.compatibility.check_solver`). Before an experience is
        trained: if a solver's generator cannot be trained on it, or if a copy of the solver
        or generator would not be frozen (:func:`~avalanche_gd.plugins.teacher.check_copy`).
    :raises TypeError: if ``generator_strategy`` is not a strategy, ``generator`` not a
        :class:`torch.Generator` or ``guidance`` not a
        :class:`~avalanche_gd.ClassifierGuidance`; if the generator has no ``generate``
        (without ``generator_strategy``, when training starts).
    """

    def __init__(
        self,
        generator_strategy: Any = None,
        *,
        teacher_steps: int = 2,
        lambd: float = 1.0,
        replay_size: int | None = None,
        replay_ratio: float = 1.0,
        look_ahead: int = LOOK_AHEAD,
        pool_size: int | None = None,
        pool_per_class: int | None = None,
        pool_refresh: int | None = None,
        teacher_sampler: str = "own",
        teacher_eta: float = 0.0,
        replay_start_timestep: int = 0,
        increasing_replay_size: bool = False,
        weighting: str = "experiences",
        guidance: ClassifierGuidance | None = None,
        labels: str = "solver",
        generator: torch.Generator | None = None,
    ):
        if generator_strategy is not None and not hasattr(generator_strategy, "model"):
            raise TypeError(
                "generator_strategy must be the strategy that trains the generator, "
                f"not a {type(generator_strategy).__name__}"
            )
        super().__init__(
            generator_strategy,
            replay_size=replay_size,
            increasing_replay_size=increasing_replay_size,
            is_weighted_replay=True,
        )
        if generator_strategy is not None and replay_start_timestep:
            raise ValueError(
                "replay_start_timestep is for a diffusion model that replays its own "
                "samples, which are noised; a solver's are not"
            )
        check_choice("labels", labels, LABELS)
        if labels == "condition" and generator_strategy is None:
            raise ValueError('labels="condition" is for a solver; give generator_strategy')
        self.labels = labels
        self.lambd = check_number("lambd", lambd, "0 or more")
        self.weighting = check_weighting(weighting)
        of_diffusion: dict[str, Any] = dict(
            teacher_steps=teacher_steps,
            look_ahead=look_ahead,
            pool_size=pool_size,
            pool_per_class=pool_per_class,
            pool_refresh=pool_refresh,
            teacher_sampler=teacher_sampler,
            teacher_eta=teacher_eta,
            replay_start_timestep=replay_start_timestep,
            generator=generator,
            guidance=guidance,
        )
        self.lesson = Lesson(
            Retraining(),
            replay_ratio=replay_ratio,
            replay_size=replay_size,
            increasing_replay_size=increasing_replay_size,
            **of_diffusion,
        )
        known = inspect.signature(GenerativeReplayPlugin.__init__).parameters
        self._given_for_diffusion = [
            name for name, value in of_diffusion.items() if value != known[name].default
        ]
        self.old_generator: Any = None
        self.old_model: Any = None
        self._tried: Any = None  # the generator whose copy was tried
        self.model_is_generator = generator_strategy is None
        if generator_strategy is not None:
            self.check_model(self.generator)

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Find the generator, and raise an error if it cannot generate."""
        if self.model_is_generator:  # and not that of an earlier strategy
            self.generator_strategy = strategy
        self.generator = self.generator_strategy.model
        self.check_model(self.generator)
        check_compatible(strategy)
        if not self.model_is_generator:
            check_solver(strategy, self)
            self._note_solver(strategy)
        if DistributedHelper.is_distributed:
            self.check_shares(strategy.train_mb_size, DistributedHelper.world_size)

    def _note_solver(self, strategy: Any) -> None:
        """Warn if the solver of another strategy trains the same generator, too."""
        known = _TRAINED_FOR.get(self.generator)
        other = None if known is None else known()
        if other is not None and other is not strategy:
            warnings.warn(
                "two strategies of solvers train the same generator, which counts each of "
                "their experiences; give each a generator_strategy of its own",
                stacklevel=2,
            )
        _TRAINED_FOR[self.generator] = weakref.ref(strategy)

    def check_model(self, model: Any) -> None:
        """Raise an error unless samples of the generator can be replayed.

        :raises TypeError: if it has no method ``generate``.
        :raises ValueError: for teacher steps above T, a pool that does not fit it, labels
            from a condition that it does not have, or an argument for a diffusion model if
            it is another one.
        """
        if not callable(getattr(model, "generate", None)):
            raise TypeError(
                f"the generator {type(model).__name__} has no method generate; "
                "give a DiffusionModel or another avalanche.models.generator.Generator"
            )
        if isinstance(getattr(model, "_orig_mod", None), DiffusionModel):
            raise ValueError(
                "a compiled DiffusionModel cannot sample in teacher_steps; give the model "
                "itself, made with execution=Execution(compile=True)"
            )
        is_diffusion = isinstance(model, DiffusionModel)
        if is_diffusion:
            self.lesson.check_model(model)
        elif self._given_for_diffusion:
            raise ValueError(
                f"{', '.join(self._given_for_diffusion)} cannot be used with a "
                f"{type(model).__name__}, only with a DiffusionModel; leave it out"
            )
        if self.labels == "condition" and not (is_diffusion and model.num_classes):
            raise ValueError(
                'labels="condition" needs a generator that is conditioned on the class; '
                "make it with num_classes="
            )

    def check_experience(self, experience: Any) -> None:
        """Raise ValueError if a solver's generator cannot be trained on an experience.

        :class:`~avalanche_gd.training.BudgetedTemplate` asks before it trains; in another
        template it is asked when the experience begins.
        """
        if self.model_is_generator:
            return
        model = self.generator_strategy.model
        with same_draws():  # transforms may draw
            check = getattr(self.generator_strategy, "check_experience", None)
            if check is not None:
                check(experience)
            image = image_of(experience.dataset[0])
        if not isinstance(model, DiffusionModel):
            return
        number = experience.current_experience + 1
        if tuple(image.shape) != model.sample_shape:
            raise ValueError(
                f"experience {number} has images of shape {tuple(image.shape)}, but the "
                f"generator's samples have {model.sample_shape}; give a generator of the "
                "data's shape"
            )
        model.check_images(image[None])
        others = dataset_classes(experience.dataset) - {*range(model.num_classes or 0)}
        if model.num_classes is not None and others:
            raise ValueError(
                f"experience {number} has class {min(others)}, but the generator has "
                f"num_classes={model.num_classes}; give it more"
            )

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze the strategy's model before Avalanche adapts it to the new classes."""
        self.check_experience(strategy.experience)
        Teacher.of(strategy).begin(strategy)
        if not self.model_is_generator and self._tried is not self.generator:
            check_copy(self.generator, strategy.experience)
            self._tried = self.generator

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Freeze the generator; a solver labels its samples as it was before."""
        teacher = Teacher.of(strategy)
        teacher.begin(strategy)
        self.lesson.begin_experience(strategy)
        self.old_generator = self.old_model = None  # of an interrupted experience
        if teacher.model is not None and self.model_is_generator:
            self.old_generator = teacher.model
        elif teacher.model is not None:
            self.old_generator = teacher.generator(self.generator)
            self.old_model = teacher.model
        if self.guidance is not None:
            if not self.model_is_generator:
                is_live = self.guidance.towards == "confused"
                old = None if is_live else self.old_model
                self.guidance.classifier = (
                    frozen_copy(strategy.model) if old is None else old
                )
                self.guidance.solver = strategy.model if is_live else None
            count = ExperienceCount.of(strategy)
            self.guidance.begin_experience(strategy.experience, self.old_generator, count)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the samples, noised, to a diffusion model's pass over the current batch."""
        if self._retrains(strategy):
            self.lesson.begin(strategy, self.old_generator)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Add the loss of the replayed samples."""
        if Teacher.of(strategy).model is None:
            return
        if self._retrains(strategy):
            loss = self.lesson.loss(strategy, self.old_generator)
        else:
            count = self.lesson.share(len(strategy.mb_x))
            samples, condition = self.generate(strategy, count)
            loss = self.replay_loss(strategy, samples.to(strategy.device), condition)
        add_replay_loss(strategy, loss, self.lambd, self.weighting)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Train the generator on the same experience, and release the copies."""
        super().after_training_exp(strategy, *args, **kwargs)
        self.train_generator(strategy, **kwargs)
        self.old_generator = self.old_model = None
        if Teacher.of(strategy).end(strategy):
            self.lesson.forget()

    def train_generator(self, strategy: Any, **kwargs: Any) -> None:
        """Train a solver's generator on the solver's experience."""
        if not self.model_is_generator:
            self.generator_strategy.train(
                strategy.experience, eval_streams=strategy._eval_streams, **kwargs
            )

    @torch.no_grad()
    def generate(self, strategy: Any, count: int) -> tuple[Tensor, Tensor | None]:
        """Samples of the generator of the experience before, for a step of a strategy.

        :return: ``(count, C, H, W)``, and the class on which each was conditioned,
            ``(count,)``; None if the generator is not conditioned.
        """
        model = self.old_generator
        if not isinstance(model, DiffusionModel):
            return draw_share(count, model.generate), None
        drawn = self.lesson.draw(strategy, model, count)
        return drawn.images(), drawn.condition

    def replay_loss(
        self, strategy: Any, samples: Tensor, condition: Tensor | None
    ) -> Tensor:
        """The strategy's criterion on the samples and their labels."""
        if self.old_model is not None and self.labels == "solver":
            with torch.no_grad():
                labels = self.old_model(samples).argmax(dim=1)
        elif condition is not None:
            labels = condition.to(samples.device)
        else:
            labels = torch.zeros(len(samples), dtype=torch.long, device=samples.device)
        tasks = torch.zeros_like(labels)
        current = strategy.mbatch, strategy.mb_output
        strategy.mbatch = [samples, labels, tasks]
        strategy.mb_output = strategy.forward()
        loss = strategy.criterion()
        strategy.mbatch, strategy.mb_output = current
        return loss

    def _retrains(self, strategy: Any) -> bool:
        """Whether a diffusion model replays its own samples in this step."""
        return (
            self.model_is_generator
            and isinstance(strategy.model, DiffusionModel)
            and Teacher.of(strategy).model is not None
        )
