"""Values over a stream of models that have learned more than the metrics saw."""

import warnings
from functools import partial

import pytest
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import DistillFromPlugin, GenerativeDistillationPlugin
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    kid_metrics,
)
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.runs.strategies import CumulativePlugin
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state
from tests.helpers.small_models import conditioned, tiny
from tests.helpers.small_streams import (
    FEW_CLASSES,
    FID,
    SAMPLING,
    FirstPixels,
    Pixels,
    expected_fid,
    strategy_with,
)
from tests.helpers.stream_builders import by_class

EXPERIENCE = "FID_Exp/eval_phase/test_stream/Exp001"
NO_VALUE = "have no new value, as the "


def metrics():
    in_pixels = dict(features=Pixels(), sampling=SAMPLING)
    labelled = dict(classifier=FirstPixels(), sampling=SAMPLING)
    return [
        fid_metrics(experience=True, oracle=FirstPixels(), **in_pixels),
        kid_metrics(subsets=2, subset_size=10, **in_pixels),
        class_balance_metrics(**labelled),
        classification_accuracy_metrics(steps=1, **labelled),
    ]


def over_the_stream(values):
    return {name.partition("/")[0] for name in values if "_Stream/" in name}


VALUES = {"FID_Stream", "KID_Stream", "KLD_Stream", "ARD_Stream", "CAS_Stream"}


@pytest.mark.parametrize("plugins", [[], [GenerativeDistillationPlugin()]])
def test_a_conditioned_model_that_learned_other_classes_elsewhere_has_no_value(plugins):
    benchmark, model = by_class(2, task_labels=False), conditioned(seen=[0, 1])
    strategy = strategy_with(*metrics(), model=model, plugins=plugins)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    with pytest.warns(UserWarning, match=rf"{NO_VALUE}model has learned .*\[0, 1\]"):
        values = strategy.eval(benchmark.test_stream)
    assert not over_the_stream(values) and EXPERIENCE in values
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert over_the_stream(strategy.eval(benchmark.test_stream)) == VALUES


@pytest.mark.parametrize("make", [tiny, partial(conditioned, seen=())])
def test_metrics_that_come_later_have_no_value(make):
    benchmark, strategy = by_class(2, task_labels=False), strategy_with(model=make())
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    later = EvaluationPlugin(*metrics())
    strategy.plugins[strategy.plugins.index(strategy.evaluator)] = later
    strategy.evaluator = later
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    with pytest.warns(UserWarning, match=f"{NO_VALUE}strategy was trained before"):
        values = strategy.eval(benchmark.test_stream)
    assert not over_the_stream(values) and EXPERIENCE in values


@pytest.mark.parametrize("make", [tiny, partial(conditioned, seen=())])
def test_a_run_that_goes_on_has_its_values(make):
    benchmark = by_class(2, task_labels=False)
    strategy, again = (strategy_with(*metrics(), model=make()) for _ in range(2))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    load_strategy_state(again, [], strategy_state(strategy, []))
    SharedImages.of(again).observe(benchmark.train_stream[0])
    again.train(benchmark.train_stream[1], eval_streams=[])
    values = again.eval(benchmark.test_stream)
    assert over_the_stream(values) == VALUES


def test_a_student_of_the_classes_that_are_noted_has_its_values():
    benchmark = by_class(2, task_labels=False)
    teacher = conditioned(seen=range(FEW_CLASSES))
    plugins = [CumulativePlugin(), DistillFromPlugin(teacher, source="gaussian")]
    strategy = strategy_with(*metrics(), model=conditioned(seen=()), plugins=plugins)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{NO_VALUE}")
        assert over_the_stream(strategy.eval(benchmark.test_stream)) == VALUES


def test_an_unconditioned_model_from_elsewhere_is_judged_by_what_was_seen():
    benchmark, model = by_class(2, task_labels=False), tiny()
    strategy_with(model=model).train(benchmark.train_stream[0], eval_streams=[])
    strategy = strategy_with(*metrics(), model=model)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    value = strategy.eval(benchmark.test_stream)[FID]
    expected = expected_fid(model, benchmark.test_stream[1:])
    assert value == pytest.approx(expected, rel=1e-4)
