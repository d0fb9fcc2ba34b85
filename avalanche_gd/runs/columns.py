"""What tables and figures show of a run: a line for each metric and each cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from avalanche_gd.metrics import Sampling, class_balance_metrics, fid_metrics

DASH = "\N{EN DASH}"
"""What stands for a value that was not recorded."""

_STREAM = "eval_phase/test_stream"
_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


@dataclass(frozen=True)
class Column:
    """A metric or a cost: where it is found, and how it is shown."""

    name: str
    """In the CSVs."""
    word: str
    """In tables."""
    digits: int
    """Behind the point."""
    better: str
    """Which values are: the ``lower``, the ``higher``, or neither, which is empty."""
    key: str
    """Of a metric, in ``metrics.csv``; of a cost, in ``run.json``, with dots."""
    title: str = ""
    """In figures, over experiences or as a cost; without one, it is in none."""
    scale: str = "linear"
    """``linear``; ``log``, where values are far apart; or ``share``, from 0 to 1."""
    is_quality: bool = False
    """True if figures show the metric against costs."""
    unit: str = ""
    """Of a cost that figures show metrics against."""
    left_out_of: tuple[str, ...] = ()
    """Narrow tables without it: of a ``paper`` (and the README), of a ``terminal``."""
    measure: Callable[..., Any] | None = None
    """Makes the generator's plugin metric from its ``sampling``; once if it gives two."""

    @property
    def heading(self) -> str:
        """Of a table, with an arrow towards the better values."""
        return self.word + _ARROWS[self.better]

    @property
    def label(self) -> str:
        """Of a figure: the title, and which values are better."""
        return f"{self.title} ({self.better} is better)" if self.better else self.title

    def text(self, value: float | None) -> str:
        """A value as it is shown.

        >>> METRICS[0].text(1234.56), METRICS[0].text(-0.01)
        ('1234.6', '0.0')
        """
        if value is None:
            return DASH
        if not math.isfinite(value):
            return "not finite"
        text = f"{value:.{self.digits}f}"
        is_zero = not text.strip("-0.")
        return text.lstrip("-") if is_zero else text


METRICS = [
    Column(
        "FID",
        "FID",
        1,
        "lower",
        f"generator/FID_Stream/{_STREAM}",
        title="FID",
        scale="log",
        is_quality=True,
        measure=partial(fid_metrics, experience=True, summary=True),
    ),
    Column(
        "KLD",
        "KLD",
        3,
        "lower",
        f"generator/KLD_Stream/{_STREAM}",
        title="KLD of classes",
        measure=partial(class_balance_metrics, histogram=True),
    ),
    Column("ARD", "ARD", 3, "lower", f"generator/ARD_Stream/{_STREAM}"),
    Column(
        "accuracy",
        "Accuracy",
        3,
        "higher",
        f"solver/Top1_Acc_Stream/{_STREAM}/Task000",
        title="Solver accuracy",
        scale="share",
        is_quality=True,
    ),
    Column("forgetting", "Forgetting", 3, "lower", f"solver/StreamForgetting/{_STREAM}"),
]
"""The metrics, in the order of tables; one of your own may be appended."""

COSTS = [
    Column(
        "seconds",
        "Seconds",
        0,
        "lower",
        "seconds",
        title="seconds, evaluation included",
        unit="seconds",
        left_out_of=("paper",),
    ),
    Column("F_per_step", "F a step", 1, "", "cost.F_per_step", left_out_of=("terminal",)),
    Column(
        "F_total",
        "F in all",
        0,
        "",
        "cost.F_total",
        title="F, forward passes of the denoiser",
        unit="F",
        left_out_of=("paper", "terminal"),
    ),
]
"""What a run spent, after the metrics in tables."""


def generation_metrics(sampling: Sampling) -> list[Any]:
    """The plugin metrics of a generator that tables show.

    :param sampling: how its images are drawn.
    """
    return [metric.measure(sampling=sampling) for metric in METRICS if metric.measure]
