"""The teacher, the frozen model of the previous experience, and the weights of its loss."""

import copy
import warnings
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from avalanche_gd.checks import check_choice, check_integer, check_number
from avalanche_gd.data.images import image_of
from avalanche_gd.models.denoising import NoisyImages
from avalanche_gd.models.random_state import same_draws
from avalanche_gd.plugins.experiences import (
    ExperienceCount,
    experience_number,
    is_endless,
)

WEIGHTINGS: dict[str, Callable[[int], tuple[float, float]]] = {
    "experiences": lambda n: (1 / n, 1 - 1 / n),
    "constant": lambda n: (1.0, 1.0),
}
"""The weights of L_cur and of lambda L_rep in the n-th experience, by name."""

_TRAINED_BY: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[Teacher]]"
_TRAINED_BY = weakref.WeakKeyDictionary()
"""The :class:`Teacher` of the last strategy that trained a model and had one."""


class Teacher:
    """Frozen copies of the models of a strategy, kept for one experience.

    Every plugin that teaches asks for it with :meth:`of`, so that two plugins in one
    strategy share the same weights. The copy is made when an experience begins, as
    :class:`~avalanche_gd.plugins.experiences.ExperienceCount` counts them, before Avalanche
    adapts the model to it (a head that grows has new units without training), and kept to
    its end: during the pieces of an online stream's experience, and after an interruption
    until an experience is trained to its end.
    """

    def __init__(self) -> None:
        self.model: Any = None
        """The frozen model; None in the first experience and between experiences."""
        self._generators: list[tuple[nn.Module, nn.Module]] = []  # and their copies
        self._number = 0  # n of the experience that it teaches in
        self._start: Any = None  # the frozen model before it followed the student
        self._weighted: Any = None  # the model's output whose loss was weighted last
        self._followed: Any = None  # the output after which weights were averaged last

    def __getstate__(self) -> dict[str, Any]:
        """Leave out outputs of a step that was interrupted: graphs cannot be copied."""
        return {**self.__dict__, "_weighted": None, "_followed": None}

    @classmethod
    def of(cls, strategy: Any) -> "Teacher":
        """The teacher of a strategy, which lives as long as the strategy does."""
        if not hasattr(strategy, "_generative_teacher"):
            strategy._generative_teacher = cls()
        return strategy._generative_teacher

    def begin(self, strategy: Any, *, endless: bool = False) -> None:
        """Freeze the model when an experience after the first begins.

        :param endless: True if a piece of an online stream without an origin experience is
            allowed. The teacher is then kept from the second piece on, and gets to know the
            classes of the pieces before.
        :raises ValueError: for such a piece, unless it is allowed; in the first experience,
            for a model whose copy would not be frozen (:func:`check_copy`).
        """
        count = ExperienceCount.of(strategy)
        count.begin(strategy, endless=endless)
        if count.number == self._number:
            if self._start is not None and not count.is_in_pieces:  # it was interrupted
                self.model, self._start = self._start, None
            if self.model is not None and is_endless(strategy.experience):
                self.model.see_classes(strategy.model.classes_seen.nonzero().flatten())
            return
        self.release()
        if count.number > 1:
            self._number = count.number
            self.freeze(strategy.model)
            return
        check_copy(strategy.model, strategy.experience)
        self._number = count.number
        if (other := _TRAINED_BY.get(strategy.model)) and other() is not self:
            warnings.warn(
                "the model was trained in another strategy before; this one counts from "
                "n = 1, and has no teacher in its first experience. Go on with the same "
                "strategy to keep what the model learned there, unless it was reset",
                stacklevel=2,
            )

    def freeze(self, model: nn.Module) -> None:
        """Keep ``model`` as it is now."""
        self.model = frozen_copy(model)

    @torch.no_grad()
    def follow(self, strategy: Any, decay: float) -> None:
        """Average the weights after a step: ``theta' <- d theta' + (1 - d) theta``.

        If several plugins call this in a step, only the first call has an effect.

        :param decay: d.
        """
        if self.model is None or self._followed is strategy.mb_output:
            return
        self._followed = strategy.mb_output
        if self._start is None:  # an experience that is repeated begins from it
            self._start = copy.deepcopy(self.model)
        for name in ("parameters", "buffers"):
            ours, theirs = (
                [part for part in getattr(model, name)() if part.is_floating_point()]
                for model in (self.model, strategy.model)
            )
            for kept, now in zip(ours, theirs, strict=True):
                kept.lerp_(now, 1 - decay)

    def generator(self, model: nn.Module) -> nn.Module:
        """A copy of a solver's generator, made at the first call in the experience."""
        for generator, copied in self._generators:
            if generator is model:
                return copied
        self._generators.append((model, frozen_copy(model)))
        return self._generators[-1][1]

    def end(self, strategy: Any) -> bool:
        """Release the copies, unless more pieces of the experience may come.

        :return: True if they were released.
        """
        self._weighted = self._followed = None  # their graphs cannot be copied
        count = ExperienceCount.of(strategy)
        count.end()
        _TRAINED_BY[strategy.model] = weakref.ref(self)
        if not count.is_in_pieces:
            self.release()
        return self.model is None

    def release(self) -> None:
        """Release the copies."""
        self.model, self._start, self._generators = None, None, []
        self._weighted = self._followed = None

    def is_first_to_weight(self, output: Any) -> bool:
        """Whether the loss of this output of the model has not been weighted yet."""
        is_first, self._weighted = self._weighted is not output, output
        return is_first


def frozen_copy(model: nn.Module) -> Any:
    """Return a copy of a model as it is now, in evaluation mode and without gradients.

    :raises ValueError: if it cannot be copied.
    """
    try:
        copied = copy.deepcopy(model).eval().requires_grad_(False)
    except (RuntimeError, TypeError) as error:
        name = type(getattr(model, "denoiser", model)).__name__
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name} cannot be copied, as a teacher is: {reason}") from error
    copied.zero_grad(set_to_none=True)  # gradients were copied too, but are not used
    return copied


def check_copy(model: nn.Module, experience: Any) -> None:
    """Raise ValueError if a copy of a model would be trained with it.

    A function that is an attribute of a module, such as a compiled ``forward``, is not
    copied: in a copy it computes with the weights of the original.

    :param experience: it has an image to try the copy on.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(map(is_lazy, tensors)):
        return
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    try:
        copied = frozen_copy(model)
    except ValueError:  # after an evaluation it may be possible
        return
    with same_draws(*{tensor.device for tensor in tensors}), torch.enable_grad():
        output = _output(getattr(copied, "_orig_mod", copied), experience)
        if not (isinstance(output, Tensor) and output.requires_grad and trained):
            return
        used = torch.autograd.grad(output.sum(), trained, allow_unused=True)
    if any(gradient is not None for gradient in used):
        raise ValueError(
            f"a copy of {type(getattr(model, 'denoiser', model)).__name__} computes with "
            "weights of the original, so that a teacher would be trained with its student; "
            "a module must not have functions as attributes that use its weights, such as "
            "a compiled forward: compile the module itself, or give Execution(compile=True)"
        )


def _output(model: Any, experience: Any) -> Any:
    """What a copy of a model makes of an image; None where it fails, as training says."""
    try:
        device = next(model.parameters()).device
        if not hasattr(model, "denoise"):
            return model(image_of(experience.dataset[0])[None].to(device))
        zeros = torch.zeros(1, dtype=torch.long, device=device)
        x_t = torch.zeros(1, *model.sample_shape, device=device)
        labels = model.class_labels(None if model.num_classes is None else zeros, 1)
        execution = replace(model.execution, compile=False)  # and no pass is counted
        return execution(model.denoiser, x_t, zeros, **labels)
    except Exception:
        return None


def check_weighting(weighting: str) -> str:
    """Return the name of a weighting, or raise an error.

    :raises ValueError: if there is none of that name.
    """
    return check_choice("weighting", weighting, WEIGHTINGS)


def replay_weights(
    n: int, lambd: float = 1.0, weighting: str = "experiences"
) -> tuple[float, float]:
    """The weights of L_cur and L_rep in the n-th experience: ``1/n``, ``(1 - 1/n) lambda``.

    With the weighting ``"constant"`` they are 1 and lambda. (arXiv 2311.14028, eq. 4.)

    :param n: 1, 2, ...
    :param lambd: lambda, 0 or more.
    :param weighting: a name in :data:`~avalanche_gd.plugins.teacher.WEIGHTINGS`.
    :raises ValueError: if n, lambda or the weighting is not one of these.
    """
    of_current, of_replay = WEIGHTINGS[check_weighting(weighting)](check_integer("n", n))
    return of_current, of_replay * check_number("lambd", lambd, "0 or more")


def weighted_loss(
    current_loss: Tensor,
    replay_loss: Tensor,
    n: int,
    lambd: float = 1.0,
    weighting: str = "experiences",
) -> Tensor:
    """``(1/n) L_cur + (1 - 1/n) lambda L_rep``, by :func:`replay_weights`.

    :param current_loss: L_cur, a mean over the current batch.
    :param replay_loss: L_rep, a mean over what is replayed.
    """
    of_current, of_replay = replay_weights(n, lambd, weighting)
    return of_current * current_loss + of_replay * replay_loss


def add_replay_loss(
    strategy: Any, replay_loss: Tensor, lambd: float, weighting: str = "experiences"
) -> None:
    """Turn ``L_cur`` into ``(1/n) L_cur + (1 - 1/n) lambda L_rep``.

    With the weighting ``"constant"``, into ``L_cur + lambda L_rep``. The mean losses are
    weighted, not their samples: a single mean over both batches would weight them by batch
    size (arXiv 2311.14028, equation 4). Only the criterion's own loss is scaled, so that a
    penalty of another plugin does not change; a plugin that scales the loss has to come
    later. For that the criterion is called again with the same output, and must give the
    same value. If several plugins replay, the first one scales it, by its own weighting.

    :param strategy: in ``before_backward``, with the criterion's loss in
        ``strategy.loss``.
    :param replay_loss: L_rep, a scalar.
    :param lambd: lambda.
    :param weighting: a name in :data:`WEIGHTINGS`.
    """
    of_current, of_replay = replay_weights(experience_number(strategy), lambd, weighting)
    if Teacher.of(strategy).is_first_to_weight(strategy.mb_output):
        strategy.loss = strategy.loss + (of_current - 1) * _current_loss(strategy)
    strategy.loss = strategy.loss + of_replay * replay_loss


def _current_loss(strategy: Any) -> Tensor:
    """The criterion's loss of this step again, without another pass of the model.

    A conditioned model's output asks the model once more for other labels, and takes the
    copy of a batch for such; then dropout would drop other classes.
    """
    output = strategy.mb_output
    if isinstance(output, NoisyImages) and output._given is not None:
        strategy.mb_output = output._given[1]
    try:
        return strategy.criterion()
    finally:
        strategy.mb_output = output
