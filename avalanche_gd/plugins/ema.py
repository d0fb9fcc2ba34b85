"""The exponential moving average of the weights."""

from collections.abc import Mapping
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import plugins as avalanche_plugins
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from avalanche_gd.checks import check_full_precision, check_number
from avalanche_gd.plugins.experiences import ExperienceCount
from avalanche_gd.plugins.guidance import GuidingSolverPlugin

KEEPERS: tuple[type, ...] = (
    avalanche_plugins.BiCPlugin,
    avalanche_plugins.CWRStarPlugin,
    avalanche_plugins.EWCPlugin,
    avalanche_plugins.FeatureDistillationPlugin,
    avalanche_plugins.LFLPlugin,
    avalanche_plugins.LwFPlugin,
    avalanche_plugins.MASPlugin,
    avalanche_plugins.RWalkPlugin,
    avalanche_plugins.SynapticIntelligencePlugin,
)
"""Avalanche's plugins that keep the weights with which an experience ends."""


class EMAPlugin(SupervisedPlugin, supports_distributed=True):
    """Ends each experience with the moving average of its weights (diffusers' EMAModel).

    After step i = 1, 2, ... of an experience, ``average = d average + (1 - d) weights``
    with ``d = min(decay, i / (9 + i))``, but ``d = 0`` after the first step. So d is 0,
    2/11, 3/12, ... up to the decay. When the experience ends, the average replaces the
    weights, before any plugin behind this one in the strategy sees them. So the average is
    the next teacher, it samples and is saved, and the next experience starts from it. An
    evaluation in the middle of an experience is of the average too, in every metric.

    The pieces of an online stream with the same ``origin_experience`` are one experience:
    after each of them the strategy has the average, and the next piece continues from the
    weights. A head that grows in between, for new classes of a piece, begins its average
    with its new weights, and so does one that is replaced. What is trained again after an
    interruption, an experience or a piece of one, begins its average anew.

    :param decay: the highest share of the old average in a step, in ``[0, 1)``.
    :raises ValueError: for a decay that is not a number in ``[0, 1)``; when training
        starts, for weights of 16 bits, if the plugin stands behind a plugin that keeps the
        weights, such as Avalanche's ``EWCPlugin``, or beside a second EMAPlugin or
        Avalanche's ``EarlyStoppingPlugin``, which restore weights.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.decay = check_number("the decay of an EMA", decay, "in [0, 1)")
        self._restoring = _WeightsAfterMetrics(self)

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Put the weights back only when all metrics have seen the average.

        :raises ValueError: if the strategy's average or weights would be wrong.
        """
        self._check_others(strategy.plugins)
        check_full_precision("EMAPlugin", strategy.model.parameters())
        if self._restoring not in strategy.plugins:
            behind = strategy.plugins.index(strategy.evaluator) + 1
            strategy.plugins.insert(behind, self._restoring)

    def _check_others(self, plugins: list[Any]) -> None:
        """Raise ValueError for a plugin whose weights the average would replace."""
        for plugin in plugins[: plugins.index(self)]:
            if isinstance(plugin, KEEPERS):
                kind = type(plugin).__name__
                raise ValueError(
                    f"EMAPlugin replaces the weights by their average after {kind} has "
                    "kept them; put EMAPlugin before it in plugins"
                )
            is_guiding = isinstance(plugin, GuidingSolverPlugin)
            if is_guiding and plugin.guidance.towards == "confused":
                raise ValueError(
                    "EMAPlugin replaces the solver by its average after "
                    "GuidingSolverPlugin has kept it; put EMAPlugin before it in plugins"
                )
        for plugin in plugins:
            if isinstance(plugin, avalanche_plugins.EarlyStoppingPlugin):
                raise ValueError(
                    "EarlyStoppingPlugin restores its best weights, but EMAPlugin (or "
                    "ema_decay) replaces them by the average; remove one of the two"
                )
            if isinstance(plugin, EMAPlugin) and plugin is not self:
                raise ValueError(
                    "a strategy has one average of its weights; give one EMAPlugin, or "
                    "only ema_decay"
                )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start from the present weights, or continue."""
        count, average = ExperienceCount.of(strategy), _Average.of(strategy)
        count.begin(strategy)
        goes_on = False  # as after an interruption
        if average.number == count.number and average.model is not None:
            average.fit(strategy.model)
            self.show_weights(strategy)
            goes_on = not average.is_in_training
        if not goes_on:
            average.begin(strategy.model, self.decay)
        average.number = count.number
        average.is_in_training = True

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Add the step's weights to the average."""
        _Average.of(strategy).model.step(strategy.model.parameters())

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the weights by the average for the evaluation."""
        if _Average.of(strategy).is_in_training:
            self.show_average(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Replace the weights by the average."""
        self.show_average(strategy)
        average = _Average.of(strategy)
        average.is_in_training = False
        count = ExperienceCount.of(strategy)
        count.end()
        if not count.is_in_pieces:
            average.model, average.is_shown = None, False

    def show_average(self, strategy: Any) -> None:
        """Replace the weights by the average, for a while."""
        average = _Average.of(strategy)
        if not average.is_shown:
            average.model.store(strategy.model.parameters())
            average.model.copy_to(strategy.model.parameters())
            average.is_shown = True

    def show_weights(self, strategy: Any) -> None:
        """Put the weights back."""
        average = _Average.of(strategy)
        if average.is_shown:
            average.model.restore(strategy.model.parameters())
            average.is_shown = False

    def go_on(self, strategy: Any) -> None:
        """Put the weights back after an evaluation in the middle of an experience."""
        if _Average.of(strategy).is_in_training:
            self.show_weights(strategy)


class _Average:
    """The average of the weights of a strategy, so that a plugin may serve several."""

    def __init__(self) -> None:
        self.model: Any = None
        self.weights: dict[str, nn.Parameter] = {}  # what it is the average of
        self.is_shown = False  # in place of the weights, which are stored
        self.is_in_training = False
        self.number = 0  # n of the experience that is averaged

    def begin(self, model: nn.Module, decay: float) -> None:
        """Start from the present weights."""
        self.model = EMAModel(model.parameters(), decay=decay)
        self.weights = dict(model.named_parameters())
        self.is_shown = False

    def fit(self, model: nn.Module) -> None:
        """Let it grow as the model did, with the present weights for what is new.

        Weights that were replaced, or loaded while the average was shown, are new.
        """
        now = dict(model.named_parameters())
        average = dict(zip(self.weights, self.model.shadow_params, strict=True))
        known: Mapping[str, Tensor] = average if self.is_shown else self.weights
        for kind in ("shadow_params", "temp_stored_params"):
            if kept := getattr(self.model, kind):
                old = dict(zip(self.weights, kept, strict=True))
                grown = [_grown(old.get(n), known.get(n), w) for n, w in now.items()]
                setattr(self.model, kind, grown)
        self.weights = now

    @classmethod
    def of(cls, strategy: Any) -> "_Average":
        """The average of a strategy, which lives as long as the strategy does."""
        if not hasattr(strategy, "_average_of_weights"):
            strategy._average_of_weights = cls()
        return strategy._average_of_weights


def _grown(old: Tensor | None, known: Tensor | None, new: Tensor) -> Tensor:
    """The new weights, with the old ones in place of those that are still as known."""
    grown = new.detach().clone()
    if old is None or known is None or known.ndim != new.ndim:
        return grown
    common = tuple(slice(0, min(p)) for p in zip(known.shape, new.shape, strict=True))
    if torch.equal(known[common].to(grown), grown[common]):
        grown[common] = old[common].to(grown)
    return grown


class _WeightsAfterMetrics(SupervisedPlugin, supports_distributed=True):
    """Stands behind the evaluator, so that all metrics see the average before it ends."""

    def __init__(self, average: EMAPlugin):
        super().__init__()
        self._average = average

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Continue the training with the weights."""
        self._average.go_on(strategy)
