"""Guide a teacher's sampling by a classifier."""

from typing import Any, NamedTuple

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_gd.checks import check_choice, check_number
from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.models.conditioning import draw_evenly
from avalanche_gd.models.sampler import Denoise, Guide
from avalanche_gd.plugins.experiences import ExperienceCount, whole_experience
from avalanche_gd.plugins.teacher import frozen_copy

TOWARDS = ("missing", "confused")
"""The groups of classes that samples can be guided towards."""

_NO_SIGNAL = 1e-6  # if a^2 is below this, x_t tells nothing about its image


class ClassifierGuidance:
    """Guides a teacher's samples towards classes, by a classifier of clean images.

    For a sample that should be of class c, with ``x_0(x_t)`` the image that the teacher
    predicts, cut to model space for the classifier, and ``x_t = a x_0 + b eps``
    (arXiv 2302.07121, equation 6 with the loss of a classifier)::

        eps'(x_t) = eps(x_t) - s b grad_{x_t} log f(c | x_0(x_t))

    The gradient goes through the classifier and the teacher. So a sampling step costs 1F,
    the classifier's pass, and a backward pass of both. The step along the gradient is
    shortened so that the image of ``eps'`` stays in model space: a sampler would clip that
    image but keep ``eps'``, and so end on the other side. At timesteps without a signal,
    ``a^2 < 1e-6``, there is no guidance.

    - ``towards="missing"``: c is drawn evenly over the classes of the experiences that were
      trained before, in whatever order, so that a teacher that is not conditioned samples
      them evenly. (If guidance was not there in the first of them, they are taken to be
      those before in the stream.) For a conditioned teacher, c is the class on which the
      sample is conditioned.
    - ``towards="confused"``: c is drawn evenly over the classes of the experience in
      training. Samples are then old ones close to the new classes (GUIDE, arXiv 2403.03938,
      in which a classifier replays them).

    :param classifier: a module in evaluation mode, from images in model space, ``(N, C, H,
        W)``, to logits, ``(N, classes)``; None if it is given later, for example by
        :class:`GuidingSolverPlugin`.
    :param scale: s, 0 or more.
    :param towards: a name in :data:`TOWARDS`.
    :raises TypeError: if the classifier is not a module.
    :raises ValueError: for a classifier in training mode, a scale that is negative or not
        finite, or an unknown name; when an experience begins, for no classifier, one in
        training mode, one with too few logits for the classes that samples are guided
        towards, or for data without labels.
    """

    def __init__(
        self,
        classifier: nn.Module | None = None,
        scale: float = 1.0,
        *,
        towards: str = "missing",
    ):
        if not isinstance(classifier, nn.Module | None):
            raise TypeError(f"the classifier must be a module, got {classifier!r}")
        self.classifier = classifier
        if classifier is not None:
            _check_mode(classifier)
        self.scale = check_number("the scale of guidance", scale, "0 or more")
        self.towards = check_choice("guidance towards", towards, TOWARDS)
        self.solver: nn.Module | None = None
        """A copy of it replaces the classifier when samples are made; None to keep that."""
        self.classes = torch.zeros(0, dtype=torch.long)
        """The classes that samples are guided towards, ``(K,)``."""

    def begin_experience(
        self, experience: Any, teacher: Any, count: ExperienceCount
    ) -> None:
        """Find the classes that samples are guided towards.

        Call it for the first experience of a strategy too, whose classes are then known to
        be learned when a new teacher comes.

        :param experience: the experience in training.
        :param teacher: the :class:`~avalanche_gd.DiffusionModel` that samples; None if
            there is none yet.
        :param count: that of the strategy, with n of the experience: another n where one
            is trained a second time.
        """
        if self.classifier is None:
            raise ValueError(
                "guidance has no classifier; give it one, or add a GuidingSolverPlugin to "
                "the strategy of the solver"
            )
        _check_mode(self.classifier)
        whole = whole_experience(experience)
        classes = own = dataset_classes(whole.dataset)
        if teacher is None:
            count.known = _Known(count.number, own, frozenset())
            return
        if self.towards == "missing" and teacher.num_classes is not None:
            classes = frozenset(teacher.classes_seen.nonzero().flatten().tolist())
        elif self.towards == "missing":
            learned = _learned_by(teacher, whole, count)
            classes = learned or own  # if it is trained again, its own
            count.known = _Known(count.number, own, learned)
        if not classes:
            raise ValueError("guidance by a classifier needs data with labels")
        self.classes = torch.tensor(sorted(classes), device=teacher.device)
        probe = torch.zeros(1, *teacher.sample_shape, device=teacher.device)
        with torch.no_grad():
            known = self.classifier(probe).shape[1]
        if known <= max(classes):
            raise ValueError(
                f"the classifier has {known} logits and does not know class "
                f"{max(classes)}; give one that knows the classes to guide towards"
            )

    def draw_classes(
        self, condition: Tensor | None, count: int, generator: torch.Generator
    ) -> Tensor:
        """The classes that samples are guided towards, ``(count,)``.

        :param condition: the classes on which the teacher is conditioned, ``(count,)``.
        """
        if self.towards == "missing" and condition is not None:
            return condition
        return draw_evenly(self.classes, count, generator)

    def guide(self, teacher: Any, classes: Tensor) -> Guide:
        """The guide that sampling takes as ``guide``.

        :param teacher: the :class:`~avalanche_gd.DiffusionModel` that samples.
        :param classes: the classes of the samples, ``(N,)``.
        """
        if self.solver is not None:
            self.classifier = frozen_copy(self.solver)
        process, classifier = teacher.process, self.classifier
        assert classifier is not None

        def predict(denoise: Denoise, x_t: Tensor, timesteps: Tensor) -> Tensor:
            with torch.enable_grad():
                x_t = x_t.detach().requires_grad_()
                prediction = denoise(x_t, timesteps)
                image, noise = process.image_and_noise(x_t, prediction, timesteps)
                logs = F.log_softmax(classifier(image.clamp(-1, 1)), dim=1)
                chosen = logs.gather(1, classes[:, None]).sum()
                (slope,) = torch.autograd.grad(chosen, x_t)
            a, b = process.coefficients(timesteps, x_t)
            # x_t does not change, so the image moves by b / a times the change of noise.
            moves = self.scale * b**2 / a * slope
            moves = moves.clamp((-1 - image).clamp(max=0), (1 - image).clamp(min=0))
            guided = process.target(image + moves, noise - a / b * moves, timesteps)
            return torch.where(a**2 < _NO_SIGNAL, prediction, guided).detach()

        return lambda denoise: lambda x_t, timesteps: predict(denoise, x_t, timesteps)


class _Known(NamedTuple):
    """Of an experience that has begun, and of those before."""

    number: int
    own: frozenset[int]
    learned: frozenset[int]


def _learned_by(teacher: Any, whole: Any, count: ExperienceCount) -> frozenset[int]:
    """The classes of the experiences that were trained before the teacher was frozen.

    A teacher keeps them: pieces of an experience, and one after an interruption, have the
    teacher of the experience that began before.
    """
    if not hasattr(teacher, "_learned_classes"):
        known = count.known
        if known is None:
            before = whole.origin_stream[: whole.current_experience]
            learned = frozenset().union(*(dataset_classes(e.dataset) for e in before))
        elif known.number != count.number:
            learned = known.learned | known.own
        else:
            learned = known.learned
        teacher._learned_classes = learned
    return teacher._learned_classes


class GuidingSolverPlugin(SupervisedPlugin, supports_distributed=True):
    """Makes the solver of a strategy guide the teacher of a generator.

    Towards ``"missing"``, the classifier is the solver from before the experience; towards
    ``"confused"``, from after it. Put this plugin before the
    :class:`~avalanche_gd.GenerativeReplayPlugin` that trains the generator.

    :param guidance: the one of the generator's plugin.
    :param solver: the strategy's model.
    :raises ValueError: when training starts, for guidance towards ``"confused"`` if the
        generator is trained before the solver (``samples_only_from``).
    """

    def __init__(self, guidance: ClassifierGuidance, solver: nn.Module):
        super().__init__()
        self.guidance = guidance
        self._number = 0  # n of the experience that it last kept the old solver of
        self._show(solver)

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise ValueError if guidance needs the solver before it is trained."""
        first = [getattr(p, "samples_only_from", None) for p in strategy.plugins]
        if self.guidance.towards == "confused" and any(step is not None for step in first):
            raise ValueError(
                'guidance towards "confused" needs the solver of this experience, but with '
                "samples_only_from it is trained last; leave that out"
            )

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the old solver, as it was before its head grows.

        Not for a further piece of an experience, or after an interruption: the solver from
        before is kept then.
        """
        count = ExperienceCount.of(strategy)
        count.begin(strategy)
        if self.guidance.towards == "missing" and count.number != self._number:
            self._show(strategy.model)
        self._number = count.number

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the new solver."""
        ExperienceCount.of(strategy).end()
        if self.guidance.towards == "confused":
            self._show(strategy.model)

    def _show(self, solver: nn.Module) -> None:
        self.guidance.classifier = frozen_copy(solver)


def _check_mode(classifier: nn.Module) -> None:
    """Raise ValueError unless the whole classifier is in evaluation mode."""
    if any(module.training for module in classifier.modules()):
        raise ValueError(
            "the classifier of the guidance is in training mode; call its eval() before"
        )
