"""Values of two metrics under one name, of which one would be lost."""

from functools import partial

import pytest

from avalanche_gd import Sampling
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    generated_image_metrics,
    kid_metrics,
    precision_recall_metrics,
)
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_streams import SAMPLING, Pixels, strategy_with
from tests.helpers.stream_builders import by_class

FEWER = Sampling(images=20, steps=1)
SAME = {
    "FID_Stream": fid_metrics,
    "FID_Exp": partial(fid_metrics, stream=False, experience=True),
    "FID_Final": partial(fid_metrics, stream=False, summary=True),
    "AFID": partial(fid_metrics, stream=False, afid=True),
    "FID_BackwardTransfer": fid_transfer_metrics,
    "KID_Stream": partial(kid_metrics, subset_size=2),
    "Precision_Stream": partial(precision_recall_metrics, nearest_k=1),
    "KLD_Stream": lambda features, sampling: class_balance_metrics(
        classifier=features, sampling=sampling
    ),
    "CAS_Stream": lambda features, sampling: classification_accuracy_metrics(
        classifier=features, sampling=sampling, steps=1
    ),
    "GeneratedImages": lambda features, sampling: generated_image_metrics(
        sampling=sampling, shown=4
    ),
}


@pytest.mark.parametrize(("name", "make"), SAME.items(), ids=SAME)
def test_two_metrics_of_one_name_are_refused_before_training(name, make):
    metrics = [make(features=Pixels(), sampling=one) for one in (SAMPLING, FEWER)]
    strategy = strategy_with(*metrics)
    before = weights(strategy.model)
    with pytest.raises(ValueError, match=f"two metrics would be logged as {name}, and one"):
        strategy.train(by_class(task_labels=False).train_stream, eval_streams=[])
    assert same_bits(before, weights(strategy.model))


def test_metrics_of_different_values_stand_beside_each_other():
    options = dict(features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(
        fid_metrics(**options),
        fid_metrics(stream=False, experience=True, **options),
        fid_metrics(stream=False, afid=True, **options),
        fid_transfer_metrics(**options),
        kid_metrics(subset_size=2, **options),
        class_balance_metrics(classifier=Pixels(), sampling=SAMPLING),
        generated_image_metrics(sampling=SAMPLING, shown=4),
    )
    benchmark = by_class(task_labels=False)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    values = strategy.eval(benchmark.test_stream)
    found = {name.partition("/")[0] for name in values}
    assert {"FID_Stream", "FID_Exp", "AFID", "KID_Stream", "KLD_Stream"} <= found
