"""What tables and figures show of a run: one entry for each metric and each cost."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    kid_metrics,
    precision_recall_metrics,
)
from avalanche_gd.runs.column import Column

_STREAM = "eval_phase/test_stream"

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
