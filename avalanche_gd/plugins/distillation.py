"""Generative distillation."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.distributed import DistributedHelper
from torch import Tensor

from avalanche_gd.checks import check_full_precision, check_number
from avalanche_gd.plugins.compatibility import check_compatible
from avalanche_gd.plugins.drawing import WITHOUT_SAMPLES
from avalanche_gd.plugins.experiences import ExperienceCount
from avalanche_gd.plugins.guidance import ClassifierGuidance
from avalanche_gd.plugins.lesson import Lesson, LessonPlugin
from avalanche_gd.plugins.look_ahead import LOOK_AHEAD
from avalanche_gd.plugins.sources import Source, source_by_name
from avalanche_gd.plugins.teacher import (
    Teacher,
    add_replay_loss,
    check_weighting,
)


class GenerativeDistillationPlugin(
    LessonPlugin, SupervisedPlugin, supports_distributed=True
):
    """Teach a diffusion model what it predicted itself one experience ago.

    From the second experience on, with ``theta'`` the frozen model from the end of the
    previous experience (the teacher) and ``x_t`` noisy images from a source, the loss
    becomes (arXiv 2311.14028, equations 3 and 4)::

        L     = (1/n) L_cur + (1 - 1/n) lambda L_rep
        L_rep = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2

    where n counts experiences, or the origin experiences of an online stream
    (:class:`~avalanche_gd.plugins.experiences.ExperienceCount`). With
    ``weighting="constant"`` it is ``L_cur + lambda L_rep``.

    Add the plugin to a :class:`~avalanche_gd.DiffusionTraining`, or to another Avalanche
    ``SupervisedTemplate`` that trains a :class:`~avalanche_gd.DiffusionModel` with
    :class:`~avalanche_gd.DenoisingLoss`; other plugins may be there too. The student sees
    ``x_t`` and the current images in one pass. The unit of cost is F, one forward pass of
    the denoiser over one batch. With the source ``"generation"`` a step costs 9F at k = 2:
    k F for sampling, 1F for the teacher's target, 6F for the student's pass over both
    batches. A conditioned model is taught the classes that the teacher was trained on, each
    equally often, and also without a class, as often as its ``condition_dropout`` says.
    L_rep is the strategy's criterion, called with the classes that are taught, ``(N,)``,
    where ``num_classes`` stands for no class, and None for a model without classes.

    :param teacher_steps: k, the teacher's sampling steps.
    :param lambd: lambda, the weight of distillation. The paper tried 0.1 to 3.
    :param source: a name in :data:`~avalanche_gd.plugins.sources.SOURCES`, or an
        object with the method ``draw`` of :class:`~avalanche_gd.plugins.sources.Source`.
    :param replay_ratio: samples of the source for each current one, above 0; their loss
        stays a mean. With ratio r, a step costs 3F and r times the rest.
    :param look_ahead: for how many steps at once a source that is ``independent`` of the
        current batch draws; for other sources, for how many steps at once the teacher makes
        its samples (:class:`~avalanche_gd.plugins.LookAhead`).
    :param pool_size: for sources that take the teacher's samples: how many of them the
        teacher makes at the start of an experience; steps then draw from this pool
        (:class:`~avalanche_gd.plugins.ReplayPool`).
    :param pool_per_class: instead of ``pool_size``, for a conditioned model: how many
        samples of each class that the teacher knows.
    :param pool_refresh: after how many steps the pool is filled again; None to keep it.
    :param pool_of: ``"samples"``; or, for sources that are ``independent``, ``"pairs"`` of
        ``x_t`` and the teacher's prediction there, so that a step has no pass of the
        teacher (:class:`~avalanche_gd.plugins.PairPool`).
    :param teacher_sampler: for sources that take the teacher's samples: a name in
        :data:`~avalanche_gd.models.sampler.SAMPLERS`.
    :param teacher_eta: for the same sources: from 0 for DDIM to 1 for ancestral sampling.
    :param teacher_ema_decay: d, in ``[0, 1]``: the teacher is not frozen but follows the
        student, ``theta' <- d theta' + (1 - d) theta`` after each step from the second
        experience on. It keeps the classes that it had at the start of the experience, and
        what it made ahead or for a pool stays as it was made. With
        ``weighting="constant"``, and without ``increasing_replay_size`` and guidance, it
        also works in an online stream whose pieces have no ``origin_experience``, such as
        ``split_continuous_linear_decay_stream`` makes: it then begins with the second piece
        and goes on to the end, and at the start of a piece it gets to know the classes of
        those before. None for a frozen teacher.
    :param replay_start_timestep: the lowest t that is taught, for sources that draw t
        uniformly: all but ``"current"`` and ``"trajectory"``.
    :param increasing_replay_size: True for n - 1 times as many samples in the n-th
        experience, like Avalanche's option of that name; a step then costs 3F and n - 1
        times the rest.
    :param unconditional_weight: w, 0 or more, for a conditioned model that can also predict
        without a class: at the same ``x_t`` the teacher predicts both with and without the
        class, and the student learns both, as classifier-free guidance uses both:
        ``L_rep = (L_class + w L_none) / (1 + w)``, a mean, so that lambda keeps its
        meaning. A step costs 4F more, 13F at k = 2; with w = 0 nothing more. (On current
        images, classes are dropped as ``condition_dropout`` says.) None, the default: a
        sample is taught with or without its class, as that dropout says, at no extra cost.
    :param guidance: guides the teacher's sampling by a classifier, for sources that take
        the teacher's samples (:class:`~avalanche_gd.ClassifierGuidance`); costs k backward
        passes more. None for no guidance.
    :param weighting: of the two losses, a name in
        :data:`~avalanche_gd.plugins.teacher.WEIGHTINGS`: ``"experiences"`` or
        ``"constant"``.
    :param generator: the source of all that the plugin draws; None for torch's own random
        state.
    :raises ValueError: for an argument outside of its range above, an unknown source,
        sampler or weighting, both kinds of a pool, a refresh without a pool, or a pool, a
        sampler, an eta, guidance or a start that the source does not use. When training
        starts: for teacher steps above T, a start that is not below T, an eta that the
        model's scheduler does not have, noise of its steps that several processes would
        share, an unconditional weight above 0 unless the model is trained both with and
        without a class, a pool that has fewer samples than the model has classes, that does
        not fit into memory, or that is of each class where the model is not conditioned, a
        teacher that moves beside generative replay or has weights of 16 bits, a model whose
        copy would not be frozen (:func:`~avalanche_gd.plugins.teacher.check_copy`), or for
        a metric or plugin of Avalanche that cannot work with a diffusion model
        (:func:`~avalanche_gd.plugins.compatibility.check_compatible`).
    :raises TypeError: if the source has no method ``draw``, the generator is not a
        :class:`torch.Generator` or the guidance not a
        :class:`~avalanche_gd.ClassifierGuidance`; when training starts, if the strategy's
        model is not a diffusion model.
    """

    shares_teacher = True
    """True if the teacher is the strategy's, which its plugins share."""

    def __init__(
        self,
        teacher_steps: int = 2,
        lambd: float = 1.0,
        *,
        source: str | Source = "generation",
        replay_ratio: float = 1.0,
        look_ahead: int = LOOK_AHEAD,
        pool_size: int | None = None,
        pool_per_class: int | None = None,
        pool_refresh: int | None = None,
        pool_of: str = "samples",
        teacher_sampler: str = "own",
        teacher_eta: float = 0.0,
        teacher_ema_decay: float | None = None,
        replay_start_timestep: int = 0,
        increasing_replay_size: bool = False,
        unconditional_weight: float | None = None,
        guidance: ClassifierGuidance | None = None,
        weighting: str = "experiences",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.lambd = check_number("lambd", lambd, "0 or more")
        self.weighting = check_weighting(weighting)
        self.teacher_ema_decay = teacher_ema_decay
        if teacher_ema_decay is not None:
            check_number("teacher_ema_decay", teacher_ema_decay, "in [0, 1]")
        self.source = source_by_name(source)
        has_pool = pool_size is not None or pool_per_class is not None
        if isinstance(self.source, WITHOUT_SAMPLES) and (
            (has_pool and pool_of == "samples")
            or (teacher_sampler != "own" or teacher_eta)
            or guidance is not None
        ):
            raise ValueError(
                "guidance, a pool of samples, teacher_sampler and teacher_eta are for "
                f"sources that take the teacher's samples, not {source!r}"
            )
        self.lesson = Lesson(
            self.source,
            teacher_steps=teacher_steps,
            replay_ratio=replay_ratio,
            look_ahead=look_ahead,
            pool_size=pool_size,
            pool_per_class=pool_per_class,
            pool_refresh=pool_refresh,
            pool_of=pool_of,
            teacher_sampler=teacher_sampler,
            teacher_eta=teacher_eta,
            replay_start_timestep=replay_start_timestep,
            increasing_replay_size=increasing_replay_size,
            generator=generator,
            unconditional_weight=unconditional_weight,
            guidance=guidance,
        )

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError if the model cannot be distilled."""
        self.check_model(strategy.model)
        check_compatible(strategy)
        decays = {
            plugin.teacher_ema_decay
            for plugin in strategy.plugins
            if isinstance(plugin, GenerativeDistillationPlugin) and plugin.shares_teacher
        }
        if len(decays) > 1:
            raise ValueError(
                "the plugins of a strategy share one teacher; give them the same "
                "teacher_ema_decay"
            )
        if self.teacher_ema_decay is not None:
            check_full_precision("teacher_ema_decay", strategy.model.parameters())
        if self.teacher_ema_decay is not None and any(
            isinstance(plugin, LessonPlugin)
            and not isinstance(plugin, GenerativeDistillationPlugin)
            for plugin in strategy.plugins
        ):
            raise ValueError(
                "with teacher_ema_decay the teacher, which a strategy's plugins share, "
                "moves, but replay is of a frozen model; leave one of the two out"
            )
        if DistributedHelper.is_distributed:
            self.check_shares(strategy.train_mb_size, DistributedHelper.world_size)

    def check_model(self, model: Any) -> None:
        """Raise an error unless the model can be distilled.

        :raises TypeError: if it is not a :class:`~avalanche_gd.DiffusionModel`.
        :raises ValueError: for teacher steps above T, or a pool that does not fit it.
        """
        for method in ("generate", "denoise", "add_noise"):
            if not callable(getattr(model, method, None)):
                raise TypeError(
                    "GenerativeDistillationPlugin needs a DiffusionModel; "
                    f"{type(model).__name__} has no method {method}"
                )
        self.lesson.check_model(model)

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Freeze the teacher before Avalanche adapts the model."""
        Teacher.of(strategy).begin(strategy, endless=self._needs_no_ends)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Prepare what the teacher draws."""
        Teacher.of(strategy).begin(strategy, endless=self._needs_no_ends)
        self.lesson.begin_experience(strategy)
        if self.lesson.guidance is not None:
            teacher = Teacher.of(strategy).model
            count = ExperienceCount.of(strategy)
            self.lesson.guidance.begin_experience(strategy.experience, teacher, count)

    @property
    def _needs_no_ends(self) -> bool:
        """True if it needs neither n nor the ends of experiences."""
        needs = self.lesson.is_increasing or self.lesson.guidance is not None
        follows = self.teacher_ema_decay is not None
        return follows and self.weighting == "constant" and not needs

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the source's noisy images to the student's pass over the current batch."""
        teacher = Teacher.of(strategy).model
        if teacher is not None:
            self.lesson.begin(strategy, teacher)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the distillation loss."""
        if Teacher.of(strategy).model is not None:
            loss = self.distillation_loss(strategy)
            add_replay_loss(strategy, loss, self.lambd, self.weighting)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Move the teacher towards the student, with ``teacher_ema_decay``."""
        if self.teacher_ema_decay is not None:
            Teacher.of(strategy).follow(strategy, self.teacher_ema_decay)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Release the teacher."""
        if Teacher.of(strategy).end(strategy):
            self.lesson.forget()

    def distillation_loss(self, strategy: Any) -> Tensor:
        """L_rep on the source's noisy images of this step."""
        return self.lesson.loss(strategy, Teacher.of(strategy).model)
