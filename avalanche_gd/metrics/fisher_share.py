"""The share of a rank-1 penalty in the Fisher matrix, as an Avalanche metric."""

from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue
from avalanche.evaluation.metric_utils import get_metric_name

from avalanche_gd.plugins.rank1_ewc import RankOneEWCPlugin


class FisherShare(PluginMetric[float | None]):
    """See :func:`fisher_share_metrics`."""

    def __init__(self) -> None:
        super().__init__()
        self._share: float | None = None

    def reset(self) -> None:
        """Forget the share."""
        self._share = None

    def result(self) -> float | None:
        """The share at the last evaluation; None without the plugin."""
        return self._share

    def after_eval(self, strategy: Any) -> list[MetricValue]:
        """Emit the share of the last experience."""
        self.reset()
        for plugin in strategy.plugins:
            if isinstance(plugin, RankOneEWCPlugin) and plugin.share:
                self._share = plugin.share[max(plugin.share)]
        if self._share is None:
            return []
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        return [MetricValue(self, name, self._share, strategy.clock.train_iterations)]

    def __str__(self) -> str:
        return "FisherShare_Stream"


def fisher_share_metrics() -> list[PluginMetric]:
    """The share of :class:`~avalanche_gd.RankOneEWCPlugin` in the Fisher matrix's trace.

    It is ``c ||mu||^2 / E||g||^2`` of the last experience, logged as
    ``FisherShare_Stream/eval_phase/test_stream``. A strategy without the plugin logs
    nothing.

    :return: the metric, for the ``EvaluationPlugin`` of a diffusion model's strategy.
    """
    return [FisherShare()]
