"""What tables and figures show of a run: a line for each metric and each cost."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    kid_metrics,
    precision_recall_metrics,
)

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
    lowest: float = -math.inf
    """What the metric can be at least."""
    highest: float = math.inf
    """What the metric can be at most."""
    measure: Callable[..., Any] | None = None
    """Makes the generator's plugin metric from its ``sampling``; once if it gives two."""
    in_features: bool = False
    """True if it depends on ``features``, which ``measure`` then takes too."""
    is_labelled: bool = False
    """True if it depends on who labels generated images, ``measure``'s ``classifier``."""
    asked_as: str = ""
    """In ``evaluation.measures``; empty if it is measured without being asked for."""
    of_some_methods: bool = False
    """True if runs of other methods have none."""

    @property
    def heading(self) -> str:
        """Of a table, with an arrow towards the better values."""
        return self.word + _ARROWS[self.better]

    @property
    def label(self) -> str:
        """Of a figure: the title, and which values are better."""
        return f"{self.title} ({self.better} is better)" if self.better else self.title

    @property
    def possible(self) -> str:
        """The metric's range in words."""
        if math.isfinite(self.highest):
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more"

    def is_possible(self, value: float) -> bool:
        """True if the metric can have a value, or is not a number.

        As shown: a sum of single precision may be a little beyond the range.

        >>> METRICS[0].is_possible(-1e-5), METRICS[0].is_possible(-1)
        (True, False)
        """
        shown = round(value, self.digits) if math.isfinite(value) else value
        return math.isnan(value) or self.lowest <= shown <= self.highest

    def measures(self, key: str) -> bool:
        """True if a line of ``metrics.csv`` is this metric, of any experiences.

        >>> METRICS[0].measures("generator/FID_Exp/eval_phase/test_stream/Exp001")
        True
        """
        of_stream = re.sub(r"_(Exp|Final|Mean)/", "_Stream/", key, count=1)
        return f"{of_stream}/".startswith(f"{self.key}/")

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
        lowest=0,
        measure=partial(fid_metrics, experience=True, summary=True),
        in_features=True,
    ),
    Column(
        "KLD",
        "KLD",
        3,
        "lower",
        f"generator/KLD_Stream/{_STREAM}",
        title="KLD of classes",
        lowest=0,
        measure=partial(class_balance_metrics, histogram=True),
        is_labelled=True,
    ),
    Column(
        "ARD",
        "ARD",
        3,
        "lower",
        f"generator/ARD_Stream/{_STREAM}",
        lowest=0,
        highest=1,
    ),
    Column(
        "accuracy",
        "Accuracy",
        3,
        "higher",
        f"solver/Top1_Acc_Stream/{_STREAM}/Task000",
        title="Solver accuracy",
        scale="share",
        is_quality=True,
        lowest=0,
        highest=1,
    ),
    Column(
        "forgetting",
        "Forgetting",
        3,
        "lower",
        f"solver/StreamForgetting/{_STREAM}",
        lowest=-1,
        highest=1,
    ),
    Column(
        "KID",
        "KID",
        4,
        "lower",
        f"generator/KID_Stream/{_STREAM}",
        title="KID",
        measure=kid_metrics,
        in_features=True,
        asked_as="kid",
    ),
    Column(
        "precision",
        "Precision",
        3,
        "higher",
        f"generator/Precision_Stream/{_STREAM}",
        title="Precision",
        scale="share",
        lowest=0,
        highest=1,
        measure=precision_recall_metrics,
        in_features=True,
        asked_as="precision_recall",
    ),
    Column(
        "recall",
        "Recall",
        3,
        "higher",
        f"generator/Recall_Stream/{_STREAM}",
        title="Recall",
        scale="share",
        lowest=0,
        highest=1,
        in_features=True,
        asked_as="precision_recall",
    ),
    Column(
        "density",
        "Density",
        3,
        "higher",
        f"generator/Density_Stream/{_STREAM}",
        lowest=0,
        in_features=True,
        asked_as="precision_recall",
    ),
    Column(
        "coverage",
        "Coverage",
        3,
        "higher",
        f"generator/Coverage_Stream/{_STREAM}",
        lowest=0,
        highest=1,
        in_features=True,
        asked_as="precision_recall",
    ),
    Column(
        "AFID",
        "AFID",
        1,
        "lower",
        f"generator/AFID/{_STREAM}",
        title="AFID",
        scale="log",
        lowest=0,
        measure=partial(fid_metrics, stream=False, afid=True),
        in_features=True,
        asked_as="afid",
    ),
    Column(
        "F_of_FID",
        "F of FID",
        1,
        "lower",
        f"generator/F/{_STREAM}",
        in_features=True,
        asked_as="afid",
    ),
    Column(
        "backward_transfer",
        "Backward transfer",
        1,
        "higher",
        f"generator/FID_BackwardTransfer/{_STREAM}",
        measure=fid_transfer_metrics,
        in_features=True,
        asked_as="transfer",
    ),
    Column(
        "forward_transfer",
        "Forward transfer",
        1,
        "higher",
        f"generator/FID_ForwardTransfer/{_STREAM}",
        in_features=True,
        asked_as="transfer",
    ),
    Column(
        "CAS",
        "CAS",
        3,
        "higher",
        f"generator/CAS_Stream/{_STREAM}",
        title="Classification accuracy score",
        scale="share",
        lowest=0,
        highest=1,
        measure=classification_accuracy_metrics,
        is_labelled=True,
        asked_as="classification_accuracy",
    ),
    Column(
        "fisher_share",
        "Fisher share",
        3,
        "",
        f"generator/FisherShare_Stream/{_STREAM}",
        lowest=0,
        highest=1,
        of_some_methods=True,
    ),
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


def generation_metrics(
    sampling: Sampling,
    features: Any = "oracle",
    measures: Sequence[str] = (),
    labeller: Any = None,
    columns: Sequence[Column] = METRICS,
) -> list[Any]:
    """The plugin metrics of a generator that tables show.

    :param sampling: how its images are drawn.
    :param features: what :func:`~avalanche_gd.metrics.fid_metrics` takes.
    :param measures: those that are asked for, of :func:`measure_names`.
    :param labeller: a classifier that labels generated images; None for the oracle.
    :param columns: the metrics of the tables.
    :raises ValueError: for another name, or if one cannot be had with this sampling.
    """
    for name in measures:
        if name not in measure_names():
            raise ValueError(
                f"no measure {name!r}; choose from {', '.join(measure_names())}"
            )
    return [
        metric.measure(
            sampling=sampling,
            **({"features": features} if metric.in_features else {}),
            **({"classifier": labeller} if metric.is_labelled else {}),
        )
        for metric in columns
        if metric.measure and (not metric.asked_as or metric.asked_as in measures)
    ]


def measure_names() -> list[str]:
    """What can be asked for beside what is always measured."""
    return list(dict.fromkeys(m.asked_as for m in METRICS if m.asked_as))


def features_in_words(evaluation: Mapping[str, Any]) -> str:
    """What the features of an evaluation are of, as tables and figures say.

    :param evaluation: the settings of that section.

    >>> features_in_words({}), features_in_words({"features": "inception"})
    ('an oracle classifier', 'InceptionV3')
    >>> path = "/data/mobilenet_v2-b0353104.pth"
    >>> features_in_words({"features": "mobilenet_v2", "weights_path": path})
    'mobilenet_v2 (mobilenet_v2-b0353104.pth)'
    """
    name, path = evaluation.get("features", "oracle"), evaluation.get("weights_path")
    known = {"oracle": "an oracle classifier", "inception": "InceptionV3"}
    if name in known:
        return known[name]
    return f"{name} ({Path(path).name})" if path else name
