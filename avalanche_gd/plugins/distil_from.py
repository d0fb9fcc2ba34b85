"""Distillation of a saved model into a new one, without its data."""

from pathlib import Path
from typing import Any

import torch

from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.plugins.distillation import GenerativeDistillationPlugin
from avalanche_gd.plugins.pool import LOOK_AHEAD
from avalanche_gd.plugins.sources import SOURCES, Retraining, Source, source_by_name
from avalanche_gd.plugins.teacher import frozen_copy

_SOURCES = SOURCES | {"retraining": Retraining}


class DistillFromPlugin(GenerativeDistillationPlugin, supports_distributed=True):
    """Teach a new diffusion model what a given one predicts, and nothing else.

    With ``theta'`` the given model and ``x_t`` from a source, the loss of a step is ::

        L = E || eps_theta'(x_t, t) - eps_theta(x_t, t) ||^2

    In Avalanche, the experiences only say how long to train, and how large a batch is: the
    student does not see their images (but with the sources ``"current"`` and
    ``"snr_split"``)::

        student = DiffusionModel.from_preset("digits")
        strategy = DiffusionTraining(
            model=student,
            optimizer=torch.optim.Adam(student.parameters(), 2e-3),
            plugins=[DistillFromPlugin("runs/.../model", source="gaussian")],
            train_steps=1000,
        )
        strategy.train(SplitDigits(1).train_stream)

    A step passes the student over what is taught alone: with ``"generation"`` it costs 6F
    at k = 2. A conditioned student is taught the classes that the teacher was trained on,
    and then samples them.

    :param teacher: the given model, as it is now, or the folder that
        :meth:`~avalanche_gd.DiffusionModel.save_pretrained` wrote it to; nothing there is
        unpickled.
    :param teacher_steps: k, the teacher's sampling steps.
    :param source: as of :class:`~avalanche_gd.GenerativeDistillationPlugin`. ``"current"``
        takes the images of the experience, without their noise, ``"snr_split"`` some.
        ``"retraining"`` is no distillation but the control: the teacher's samples with the
        noise added to them as the target.
    :param look_ahead: as there.
    :param pool_size: as there, for ``"generation"`` and ``"retraining"``.
    :param generator: the source of what the plugin draws; None for torch's own random
        state.
    :raises ValueError: if the folder does not hold a whole model, and for numbers and
        sources as there; when training starts, if the student has images of another shape,
        other classes or another noise process than the teacher, and as there.
    :raises TypeError: as there, and for a teacher that is no
        :class:`~avalanche_gd.DiffusionModel` and no folder.
    """

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
            teacher = DiffusionModel.from_pretrained(teacher)
        if not isinstance(teacher, DiffusionModel):
            raise TypeError(
                f"teacher must be a DiffusionModel or a folder, got {teacher!r}"
            )
        self.teacher: DiffusionModel = frozen_copy(teacher)

    def check_model(self, model: Any) -> None:
        """Raise unless the model can be taught by the teacher.

        :raises TypeError: if it is not a :class:`~avalanche_gd.DiffusionModel`.
        :raises ValueError: for one of another kind than the teacher, or as of
            :class:`~avalanche_gd.GenerativeDistillationPlugin`.
        """
        super().check_model(model)
        for name in ("sample_shape", "num_classes", "num_conditions"):
            own, taught = getattr(self.teacher, name), getattr(model, name)
            if own != taught:
                raise ValueError(
                    f"the teacher has {name} {own}, and its student {taught}; make the "
                    "student like the teacher"
                )
        if not _are_alike(self.teacher.process, model.process):
            raise ValueError(
                "the teacher's scheduler adds other noise, or predicts something else, "
                "than its student's; make the student with the scheduler of the teacher"
            )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Have the student know the teacher's classes."""
        student = strategy.model
        self.teacher.to(strategy.device)
        self.teacher.pass_hooks = student.pass_hooks  # its passes are costs too
        student.see_classes(self.teacher.classes_seen.nonzero().flatten())

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Ask the student about what the source draws, in the place of the batch."""
        self.lesson.begin(strategy, self.teacher)
        self._batch = strategy.mbatch
        strategy.mbatch = [part[:0] for part in self._batch]

    def after_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Hand the answers to the criterion."""
        strategy.mbatch = self._batch
        strategy.mb_output = self.lesson.answer(strategy, self.teacher)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add nothing to the criterion's loss."""

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let go of the samples."""
        self.lesson.forget()


def _are_alike(one: NoiseProcess, other: NoiseProcess) -> bool:
    """True if two noise processes add the same noise and predict the same of it."""
    if one.num_timesteps != other.num_timesteps:
        return False
    timesteps = torch.arange(one.num_timesteps)
    image = torch.ones(len(timesteps), 1, 1, 1)
    probe = image, torch.zeros_like(image), timesteps
    return torch.allclose(one.add_noise(*probe), other.add_noise(*probe)) and (
        torch.allclose(one.target(*probe), other.target(*probe))
    )
