"""The exponential moving average of the weights."""

from typing import Any

from avalanche.core import SupervisedPlugin
from diffusers.training_utils import EMAModel

from avalanche_gd.checks import check_number
from avalanche_gd.plugins.experiences import ExperienceCount


class EMAPlugin(SupervisedPlugin, supports_distributed=True):
    """Ends each experience with the moving average of its weights (diffusers' EMAModel).

    After step i of an experience, ``average = d average + (1 - d) weights`` with
    ``d = min(decay, (1 + i) / (10 + i))``. When the experience ends, the average replaces
    the weights, before any plugin behind this one in the strategy sees them. So the average
    is the next teacher, it samples and is saved, and the next experience starts from it. An
    evaluation in the middle of an experience is of the average too, in every metric.

    The pieces of an online stream with the same ``origin_experience`` are one experience:
    after each of them the strategy has the average, and the next piece continues from the
    weights. So does an experience that is trained again after an interruption.

    :param decay: the highest share of the old average in a step, in ``[0, 1)``.
    :raises ValueError: for a decay that is not a number in ``[0, 1)``.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.decay = check_number("the decay of an EMA", decay, "in [0, 1)")
        self._average: Any = None
        self._is_shown = False  # in place of the weights, which are stored
        self._in_training = False
        self._experience: tuple[Any, int] | None = None  # the strategy's count, and n
        self._restoring = _WeightsAfterMetrics(self)

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Put the weights back only when all metrics have seen the average."""
        if self._restoring not in strategy.plugins:
            behind = strategy.plugins.index(strategy.evaluator) + 1
            strategy.plugins.insert(behind, self._restoring)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start from the present weights, or continue."""
        count = ExperienceCount.of(strategy)
        count.begin(strategy)
        if self._experience == (count, count.number) and self._average is not None:
            self.show_weights(strategy)
        else:
            self._average = EMAModel(strategy.model.parameters(), decay=self.decay)
            self._is_shown = False
        self._experience = count, count.number
        self._in_training = True

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Add the step's weights to the average."""
        self._average.step(strategy.model.parameters())

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the weights by the average for the evaluation."""
        if self._trains(strategy):
            self.show_average(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the weights by the average."""
        self.show_average(strategy)
        self._in_training = False
        count = ExperienceCount.of(strategy)
        count.end()
        if not count.is_in_pieces:
            self._average, self._is_shown = None, False

    def show_average(self, strategy: Any) -> None:
        """Replace the weights by the average, for a while."""
        if not self._is_shown:
            self._average.store(strategy.model.parameters())
            self._average.copy_to(strategy.model.parameters())
            self._is_shown = True

    def show_weights(self, strategy: Any) -> None:
        """Put the weights back."""
        if self._is_shown:
            self._average.restore(strategy.model.parameters())
            self._is_shown = False

    def go_on(self, strategy: Any) -> None:
        """Put the weights back after an evaluation in the middle of an experience."""
        if self._trains(strategy):
            self.show_weights(strategy)

    def _trains(self, strategy: Any) -> bool:
        """Whether the strategy is in the middle of an experience that is averaged."""
        count, _ = self._experience or (None, 0)
        return self._in_training and ExperienceCount.of(strategy) is count


class _WeightsAfterMetrics(SupervisedPlugin, supports_distributed=True):
    """Stands behind the evaluator, so that all metrics see the average before it ends."""

    def __init__(self, average: EMAPlugin):
        super().__init__()
        self._average = average

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Continue the training with the weights."""
        self._average.go_on(strategy)
