"""Distil a saved model into a new one, without the data of the saved one."""

from pathlib import Path
from typing import Any

import torch

from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.plugins.distillation import GenerativeDistillationPlugin
from avalanche_gd.plugins.lesson import LessonPlugin
from avalanche_gd.plugins.look_ahead import LOOK_AHEAD
from avalanche_gd.plugins.sources import SOURCES, Retraining, Source, source_by_name
from avalanche_gd.plugins.teacher import frozen_copy
from avalanche_gd.storage import expanded

_SOURCES = SOURCES | {"retraining": Retraining}


class DistillFromPlugin(GenerativeDistillationPlugin, supports_distributed=True):
    """Teach a new diffusion model what a given model predicts, and nothing else.

    With ``theta'`` the given model and ``x_t`` from a source, the loss of a step is::

        L = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2

    Avalanche's experiences only decide how long the training is and how large a batch is.
    The student does not see their images, except with the sources ``"current"`` and
    ``"snr_split"``::

        student = DiffusionModel.from_preset("digits")
        strategy = DiffusionTraining(
            model=student,
            optimizer=torch.optim.Adam(student.parameters(), 2e-3),
            plugins=[DistillFromPlugin("runs/.../model", source="gaussian")],
            train_steps=1000,
        )
        strategy.train(SplitDigits(1).train_stream)

    A step passes only the teacher's batch through the student: with ``"generation"`` it
    costs 6F at k = 2. A conditioned student learns the classes that the teacher was trained
    on, and samples them afterwards.

    :param teacher: the given model, as it is now, or the folder that
        :meth:`~avalanche_gd.DiffusionModel.save_pretrained` wrote it to. Nothing in the
        folder is unpickled.
    :param teacher_steps: k, the teacher's sampling steps.
    :param source: as in :class:`~avalanche_gd.GenerativeDistillationPlugin`. ``"current"``
        takes the images of the experience, with new noise; ``"snr_split"`` takes some of
        them. ``"retraining"`` is not distillation but a control: its target is the noise
        that was added to the teacher's samples.
    :param look_ahead: as in that plugin.
    :param pool_size: as in that plugin, for ``"generation"`` and ``"retraining"``.
    :param generator: the source of what the plugin draws; None for torch's own random
        state.
    :raises ValueError: if the folder does not hold a complete model, or for arguments that
        :class:`~avalanche_gd.GenerativeDistillationPlugin` refuses; when training starts,
        also if the student has images of another shape, other classes or another noise
        process than the teacher, or if another plugin behind this one replays or distils:
        this one takes the place of the batch.
    :raises TypeError: if the teacher is neither a :class:`~avalanche_gd.DiffusionModel` nor
        a folder, or as in that plugin.
    """

    shares_teacher = False

    def __init__(
        self,
        teacher: DiffusionModel | str | Path,
        teacher_steps: int = 2,
        *,
        source: str | Source = "generation",
        look_ahead: int = LOOK_AHEAD,
        pool_size: int | None = None,
        generator: torch.Generator | None = None,
    ):
        source_by_name(source, _SOURCES)
        super().__init__(
            teacher_steps,
            source=Retraining() if source == "retraining" else source,
            look_ahead=look_ahead,
            pool_size=pool_size,
            generator=generator,
        )
        if isinstance(teacher, str | Path):
            teacher = DiffusionModel.from_pretrained(expanded(teacher))
        if not isinstance(teacher, DiffusionModel):
            raise TypeError(
                f"teacher must be a DiffusionModel or a folder, got {teacher!r}"
            )
        self.teacher: DiffusionModel = frozen_copy(teacher)

    def check_model(self, model: Any) -> None:
        """Raise an error unless the teacher can teach the model.

        :raises TypeError: if it is not a :class:`~avalanche_gd.DiffusionModel`.
        :raises ValueError: if it differs from the teacher in its images, classes or noise,
            or as in :class:`~avalanche_gd.GenerativeDistillationPlugin`.
        """
        super().check_model(model)
        for name in ("sample_shape", "num_classes", "num_conditions"):
            own, taught = getattr(self.teacher, name), getattr(model, name)
            if own != taught:
                raise ValueError(
                    f"the teacher has {name} {own}, but its student has {taught}; make the "
                    "student like the teacher"
                )
        if not self.teacher.process.is_like(model.process):
            raise ValueError(
                "the teacher's scheduler adds other noise, or predicts something else, "
                "than its student's; make the student with the scheduler of the teacher"
            )

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError if it cannot teach in the strategy."""
        super().before_training(strategy, **kwargs)
        for plugin in strategy.plugins[strategy.plugins.index(self) + 1 :]:
            if isinstance(plugin, LessonPlugin):
                is_alike = isinstance(plugin, DistillFromPlugin)
                hint = "give one of the two" if is_alike else "put that before it"
                raise ValueError(
                    "DistillFromPlugin takes the place of the batch, of which a "
                    f"{type(plugin).__name__} behind it would see nothing; {hint}"
                )

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Do nothing: the teacher is the given model."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Give the student the teacher's classes."""
        student = strategy.model
        self.teacher.to(strategy.device)
        self.teacher.pass_hooks = student.pass_hooks  # its passes are counted too
        student.see_classes(self.teacher.classes_seen.nonzero().flatten())

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Give the student the source's noisy images in place of the batch."""
        self.lesson.begin(strategy, self.teacher)
        self._batch = strategy.mbatch
        strategy.mbatch = [part[:0] for part in self._batch]

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Give the student's predictions to the criterion, and the classes taught."""
        classes = self.lesson.classes
        strategy.mb_output = self.lesson.answer(strategy, self.teacher)
        images, *others = self._batch
        strategy.mbatch = [images, classes, *others[1:]]

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Put the labels of the batch back: there is no loss to add to the criterion's."""
        strategy.mbatch = self._batch

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Release the samples."""
        self.lesson.forget()
