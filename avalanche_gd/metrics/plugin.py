"""The base of Avalanche plugin metrics of generated images."""

import warnings
from abc import abstractmethod
from numbers import Real
from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name
from avalanche.training.supervised import JointTraining
from torch import Tensor

from avalanche_gd.data.model_space import dataset_classes
from avalanche_gd.metrics.shared_images import (
    Sampling,
    SharedImages,
    check_sampling,
    has_classes,
    is_conditioned,
)
from avalanche_gd.metrics.trained import (
    Counted,
    ExperienceKey,
    TrainedExperiences,
    experience_key,
    known_tests_of,
    origin,
    whole_stream,
)
from avalanche_gd.models.diffusion import DiffusionModel

EVALUATE_ALL = (
    "evaluate all experiences trained on, for example eval_streams=[benchmark.test_stream]"
)
_FROM_THE_FIRST = (
    "have these metrics in the evaluator from the first experience on, and go on with the "
    "same strategy, which can be pickled"
)


class GenerationMetric(PluginMetric[dict[str, float]]):
    """Measures the images that a strategy's model generates at the end of an evaluation.

    Only the experiences trained on so far count, whatever stream is evaluated
    (:class:`~avalanche_gd.metrics.trained.TrainedExperiences`). Before any training there
    is nothing to measure, and a warning says so. Where a part of a stream is evaluated that
    lacks a class or an experience which was trained on, there is a warning in the place of
    a value, as the generated images are also like those. It is the same where the model was
    trained before in another strategy, or without these metrics, as far as that is known.

    :param sampling: how the images are generated. All metrics with the same sampling
        use the same images.
    :raises TypeError: unless the sampling is a :class:`~avalanche_gd.Sampling`; when
        training starts, for a model that does not generate.
    :raises ValueError: when training starts, if another metric of generated images in the
        evaluator has a value of the same name, or if the model cannot be sampled so.
    """

    needs_all_classes = True
    """False if a part of the classes that were trained on is enough for :meth:`compute`."""
    value_names: frozenset[str] = frozenset()
    """Names of its values; a second metric with one of them is refused."""
    without_labels = "leave this metric out"
    """What to do where :meth:`is_labelled` is False."""

    def __init__(self, sampling: Sampling):
        super().__init__()
        self.sampling = check_sampling(sampling)
        self._counted: dict[ExperienceKey, Counted] = {}  # in this evaluation
        self._evaluated: frozenset[int] = frozenset()  # the classes of those
        self._whole: Any = None  # of which experiences are evaluated
        self._origins: set[ExperienceKey] = set()  # these, or those they were cut from
        self._results: dict[str, float] = {}

    @abstractmethod
    def compute(self, strategy: Any, experiences: list[ExperienceKey]) -> dict[str, float]:
        """Compute the values by name.

        Numbers of other types, such as tensors without a dimension, become floats.

        :param strategy: a strategy at the end of an evaluation.
        :param experiences: the evaluated experiences that were trained on.
        """

    def check(self, strategy: Any) -> None:
        """Raise ValueError if a strategy's experience cannot be measured later.

        Called before it is trained on.
        """

    def is_labelled(self, dataset: Any) -> bool:
        """Whether a dataset has the labels that the metric needs; some need none."""
        return True

    def _check_labels(self, experience: Any) -> None:
        """Raise ValueError if this experience or a known test lacks labels."""
        tests = known_tests_of(experience)
        others = () if tests is None else whole_stream(tests) or ()
        for one in (experience, *others):
            self._check_labelled(one)

    def _check_labelled(self, experience: Any) -> None:
        """Raise ValueError if an experience lacks labels that the metric needs."""
        dataset = experience.dataset
        if len(dataset) > 0 and not self.is_labelled(dataset):
            raise ValueError(
                f"{self}: images of the stream {experience_key(experience).stream.name} "
                f"have no labels; {self.without_labels}"
            )

    def result(self) -> dict[str, float]:
        """The values of the last evaluation by name."""
        return self._results

    def reset(self) -> None:
        """Forget the values of the last evaluation."""
        self._results = {}

    def before_training(self, strategy: Any) -> None:
        """Raise an error if the model does not generate, or a name is another metric's.

        :raises TypeError: if the model has no method ``generate``.
        :raises ValueError: if another metric of the strategy has a value of the same name,
            or if a diffusion model cannot be sampled as asked.
        """
        if not callable(getattr(strategy.model, "generate", None)):
            raise TypeError(
                f"{self} measures generated images, but {type(strategy.model).__name__} "
                "has no generate; put it into the evaluator of the generator's strategy"
            )
        if isinstance(strategy.model, DiffusionModel):
            how = self.sampling
            strategy.model.check_steps(how.steps, how.sampler)
            strategy.model.check_eta(how.eta, how.sampler)
        for other in strategy.evaluator.metrics:
            if other is self or not isinstance(other, GenerationMetric):
                continue
            if twice := self.value_names & other.value_names:
                raise ValueError(
                    f"two metrics would be logged as {min(twice)}, and one be lost; leave "
                    "one out, and measure the saved model by it"
                )

    def before_training_exp(self, strategy: Any) -> None:
        """Note the experience that is trained on, or those of a joint training."""
        self._check_labels(strategy.experience)
        self.check(strategy)
        is_joint = isinstance(strategy, JointTraining)
        shared = SharedImages.of(strategy)
        if not shared.trained and strategy.clock.train_exp_counter > 0:
            shared.trained.begins_late = True
        for experience in strategy._experiences if is_joint else [strategy.experience]:
            shared.observe(experience.logging(), alone=not is_joint)

    def before_eval(self, strategy: Any) -> None:
        """Start without images."""
        self.reset()
        self._counted, self._evaluated, self._whole = {}, frozenset(), None
        self._origins = set()
        SharedImages.of(strategy).forget_images()

    def before_eval_exp(self, strategy: Any) -> None:
        """Note an experience in evaluation, if it was trained on.

        :raises ValueError: if it is empty, from another stream than those before, or
            without labels that the metric needs.
        """
        experience = strategy.experience
        if len(experience.dataset) == 0:
            raise ValueError(
                f"experience {experience.current_experience + 1} of the stream "
                f"{experience.origin_stream.name} is empty; leave it out"
            )
        counted = SharedImages.of(strategy).counted(experience)
        if counted is None:
            return
        self._check_labelled(experience)
        self._evaluated |= dataset_classes(experience.dataset)
        key = experience_key(experience)
        for other, first in self._counted.items():
            if (other.stream, first.training) != (key.stream, counted.training):
                raise ValueError(
                    f"{self}: the experiences of an evaluation must be of one stream, but "
                    f"are of {other.stream.name} and of {key.stream.name}, or of two "
                    "benchmarks; evaluate each stream separately"
                )
        self._counted[key] = counted
        whole = experience_key(origin(experience))
        self._whole = whole.stream
        self._origins.add(whole)
        SharedImages.of(strategy).note(key, experience)

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the values over the evaluated experiences that were trained on.

        What has no new value over the stream is not among Avalanche's last results either:
        that would be of an earlier model.
        """
        values = self._values(strategy)
        known = SharedImages.of(strategy).emitted.setdefault(self, set())
        last = getattr(strategy.evaluator, "last_metric_results", {})
        if strategy.experience is not None:  # else nothing was evaluated
            for old in known - set(self._results):
                last.pop(self.emitted(old, None, strategy).name, None)
        known |= {name for name in self._results if "/Exp" not in name}
        return values

    def _values(self, strategy: Any) -> list[MetricValue]:
        """The values of this evaluation."""
        if not self._counted or not has_classes(strategy.model):
            warnings.warn(
                f"{self}: no evaluated experience was trained on yet; there is no value",
                stacklevel=2,
            )
            return []
        if self.needs_all_classes and self.lacks_classes(strategy):
            return []
        results = self.compute(strategy, list(self._counted))
        if not isinstance(results, dict):
            raise TypeError(
                f"{type(self).__name__}.compute must return values by name, a dict, not a "
                f"{type(results).__name__}"
            )
        self._results = {name: _as_float(value) for name, value in results.items()}
        return [self.emitted(*item, strategy) for item in self._results.items()]

    def lacks_classes(self, strategy: Any) -> bool:
        """Warn and return True if a class or an experience is missing in the evaluation.

        One that was trained on, and that the whole stream has. Also if the model has
        learned what these metrics did not see.
        """
        trained = SharedImages.of(strategy).trained
        unseen = has_not_seen(trained, strategy.model)
        if unseen is not None:
            lacking, hint = unseen, _FROM_THE_FIRST
        elif not trained.learned_of(self._whole) <= self._evaluated:
            lacking = (
                "classes that were trained on are in none of the evaluated experiences"
            )
            hint = EVALUATE_ALL
        elif self._lacks_experiences(trained):
            lacking = "experiences that were trained on are not evaluated"
            hint = EVALUATE_ALL
        else:
            return False
        warnings.warn(
            "the stream metrics of generated images have no new value, as "
            f"{lacking}; {hint}",
            stacklevel=2,
        )
        return True

    def _lacks_experiences(self, trained: TrainedExperiences) -> bool:
        """True if an experience of the same classes as others counts, but is left out."""
        if not trained.shares_classes(self._whole):
            return False
        return any(
            experience_key(experience) not in self._origins and trained.counted(experience)
            for experience in whole_stream(self._whole) or ()
        )

    def emitted(self, name: str, value: Any, strategy: Any) -> MetricValue:
        """A value under Avalanche's name: metric, phase, stream and experience."""
        metric, *experience = name.split("/")
        full = get_metric_name(metric, strategy, add_experience=False, add_task=False)
        full = "/".join([full, *experience])
        return MetricValue(self, full, value, strategy.clock.train_iterations)

    def __str__(self) -> str:
        return type(self).__name__


def _as_float(value: Any) -> Any:
    """A number of whatever type as a float; something else, such as an image, as it is."""
    is_number = isinstance(value, Real) or (isinstance(value, Tensor) and value.ndim == 0)
    return float(value) if is_number else value


def has_not_seen(trained: TrainedExperiences, model: Any) -> str | None:
    """What a model has learned beyond the experiences that were noted; None if nothing.

    Of a model that is not conditioned only its strategy can tell.
    """
    if trained.begins_late:
        return "the strategy was trained before these metrics were in its evaluator"
    if not is_conditioned(model):
        return None
    strange = trained.unknown(model.classes_seen.nonzero().flatten().tolist())
    if not strange:
        return None
    return f"the model has learned the classes {strange} without these metrics"
