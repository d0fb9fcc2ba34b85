"""What tables and figures show of a run: one entry for each metric and each cost."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avalanche_gd.checks import check_choice
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
"""Shown instead of a value that was not measured."""

_STREAM = "eval_phase/test_stream"
_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


@dataclass(frozen=True)
class Column:
    """A metric or a cost: where it is read, and how it is shown."""

    name: str
    """Its name in the CSV files."""
    word: str
    """Its name in tables."""
    digits: int
    """Digits after the point."""
    better: str
    """Which values are better: ``lower``, ``higher``, or neither, which is empty."""
    key: str
    """A metric's name in ``metrics.csv``; a cost's name in ``run.json``, with dots."""
    title: str = ""
    """Its title in figures; without one, it is in no figure."""
    scale: str = "linear"
    """``linear``; ``log``, if values are far apart; or ``share``, from 0 to 1."""
    is_quality: bool = False
    """True if figures show the metric against costs."""
    unit: str = ""
    """The unit of a cost that figures show metrics against."""
    left_out_of: tuple[str, ...] = ()
    """Narrow tables without it: ``paper`` (and the README), ``terminal``."""
    lowest: float = -math.inf
    """The lowest possible value of the metric."""
    highest: float = math.inf
    """The highest possible value of the metric."""
    measure: Callable[..., Any] | None = None
    """Makes the generator's plugin metric from ``sampling``; once if it gives two."""
    in_features: bool = False
    """True if it depends on ``features``, which ``measure`` then takes too."""
    is_labelled: bool = False
    """True if it depends on what labels generated images, ``measure``'s ``classifier``."""
    asked_as: str = ""
    """Its name in ``evaluation.measures``; empty if it is always measured."""
    of_some_methods: bool = False
    """True if runs of some methods do not have it."""
    of_training: bool = False
    """True if it compares a model with what it was earlier, which a saved one forgot."""
    of_several: bool = False
    """True if it compares experiences: a run that trained on one has nothing to compare."""
    of_generator: bool = False
    """True for a cost without the solver's, which figures show no solver against."""

    @property
    def heading(self) -> str:
        """Its name at the top of a table, with an arrow towards the better values."""
        return self.word + _ARROWS[self.better]

    @property
    def label(self) -> str:
        """Its name in a figure: the title, and which values are better."""
        return f"{self.title} ({self.better} is better)" if self.better else self.title

    @property
    def possible(self) -> str:
        """The metric's range in words."""
        if math.isfinite(self.highest):
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more"

    def is_possible(self, value: float) -> bool:
        """True if the metric can have this value, or if the value is NaN.

        The value is rounded as it is shown, as single precision has rounding errors.

        >>> METRICS[0].is_possible(-1e-5), METRICS[0].is_possible(-1)
        (True, False)
        """
        shown = round(value, self.digits) if math.isfinite(value) else value
        return math.isnan(value) or self.lowest <= shown <= self.highest

    def measures(self, key: str) -> bool:
        """True if a line of ``metrics.csv`` is this metric, for any experiences.

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
        of_several=True,
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
        of_training=True,
        of_several=True,
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
        of_training=True,
        of_several=True,
    ),
    Column(
        "forward_transfer",
        "Forward transfer",
        1,
        "higher",
        f"generator/FID_ForwardTransfer/{_STREAM}",
        in_features=True,
        asked_as="transfer",
        of_training=True,
        of_several=True,
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
"""The metrics, in the order of tables; you can append your own."""

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
    Column(
        "F_per_step",
        "F a step",
        1,
        "",
        "cost.F_per_step",
        of_generator=True,
        left_out_of=("terminal",),
    ),
    Column(
        "F_total",
        "F of the generator",
        0,
        "",
        "cost.F_total",
        title="F of the generator, forward passes of the denoiser",
        unit="F",
        of_generator=True,
        left_out_of=("paper", "terminal"),
    ),
]
"""What a run spent, which tables show after the metrics."""


def generation_metrics(
    sampling: Sampling,
    features: Any = "oracle",
    measures: Sequence[str] = (),
    labeller: Any = None,
    columns: Sequence[Column] = METRICS,
) -> list[Any]:
    """Make the plugin metrics of a generator that tables show.

    :param sampling: how images are generated.
    :param features: as in :func:`~avalanche_gd.metrics.fid_metrics`.
    :param measures: additional metrics, from :func:`measure_names`.
    :param labeller: a classifier that labels generated images; None for the oracle.
    :param columns: the metrics of the tables.
    :raises ValueError: for another name or one that is named twice, or if one is not
        possible with this sampling.
    """
    for name in measures:
        check_choice("measure", name, measure_names())
    if len(set(measures)) < len(measures):
        raise ValueError(f"a measure is named twice: {', '.join(measures)}")
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
    """The names of metrics that can be added to those that are always measured."""
    return list(dict.fromkeys(m.asked_as for m in METRICS if m.asked_as))


def features_in_words(evaluation: Mapping[str, Any]) -> str:
    """The name of the features of an evaluation, for tables and figures.

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
