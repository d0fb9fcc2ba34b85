"""The exponential moving average of the weights."""

from typing import Any

from avalanche.core import SupervisedPlugin
from diffusers.training_utils import EMAModel

from avalanche_gd.checks import check_number


class EMAPlugin(SupervisedPlugin, supports_distributed=True):
    """Ends each experience with the moving average of its weights (diffusers' EMAModel).

    After step i of an experience, ``average = d average + (1 - d) weights`` with
    ``d = min(decay, (1 + i) / (10 + i))``. The average takes the place of the weights when
    the experience ends, before any plugin behind this one in the strategy sees them: so
    it is the teacher of the next one, what samples and is saved, and where the next one
    begins. An evaluation in the midst of an experience is of the average too.

    :param decay: the highest share that the average keeps in a step, in ``[0, 1)``.
    :raises ValueError: for a decay that is not a number in ``[0, 1)``.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.decay = check_number("the decay of an EMA", decay, "in [0, 1)")
        self._average: Any = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin with the weights as they are."""
        self._average = EMAModel(strategy.model.parameters(), decay=self.decay)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Take the step's weights into the average."""
        self._average.step(strategy.model.parameters())

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Have the average evaluated."""
        if self._average is not None:
            self._average.store(strategy.model.parameters())
            self._average.copy_to(strategy.model.parameters())

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Train on with the weights."""
        if self._average is not None:
            self._average.restore(strategy.model.parameters())

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Put the average in the place of the weights."""
        self._average.copy_to(strategy.model.parameters())
        self._average = None
