"""A copied or unpickled strategy goes on with the benchmark itself."""

import copy
import pickle

import pytest
import torch

from avalanche_gd import to_model_space
from avalanche_gd.metrics import fid_metrics, fid_transfer_metrics
from tests.helpers.small_models import SHAPE
from tests.helpers.small_streams import SAMPLING, FirstPixels, Pixels, strategy_with
from tests.helpers.stream_builders import (
    by_class,
    classes_in_model_space,
    classes_of_no_benchmark,
    pieces_of_two,
)


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def metrics():
    options = dict(features=Pixels(), sampling=SAMPLING, oracle=FirstPixels())
    own = fid_metrics(experience=True, summary=True, afid=True, **options)
    return own + fid_transfer_metrics(**options)


def whole_stream(benchmark):
    return list(benchmark.train_stream)[:3]


def pieces(benchmark):
    return list(pieces_of_two(benchmark.train_stream, size=15))


def go_on(strategy, benchmark, experiences):
    """The values after each of some experiences."""
    values = []
    for place, experience in enumerate(experiences):
        torch.manual_seed(place)
        strategy.train(experience, eval_streams=[])
        values.append(strategy.eval(benchmark.test_stream))
    return values


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled])
@pytest.mark.parametrize("parts", [whole_stream, pieces])
@pytest.mark.parametrize("build", [classes_in_model_space, classes_of_no_benchmark])
@pytest.mark.parametrize("first", ["train", "eval"])
def test_a_copy_goes_on_as_the_strategy_itself(duplicate, parts, build, first):
    benchmark = build()
    strategy = strategy_with(*metrics())
    experiences = parts(benchmark)
    go_on(strategy, benchmark, experiences[:2])
    copied = duplicate(duplicate(strategy))
    if first == "eval":
        copied.eval(benchmark.test_stream)
        strategy.eval(benchmark.test_stream)
    expected = go_on(strategy, benchmark, experiences[2:])
    found = go_on(copied, benchmark, experiences[2:])
    assert len(found) == len(expected) > 0
    for values, others in zip(found, expected, strict=True):
        assert values == pytest.approx(others, nan_ok=True)


def test_a_copy_goes_on_with_the_copy_of_the_benchmark():
    benchmark = classes_in_model_space()
    strategy = strategy_with(*metrics())
    go_on(strategy, benchmark, benchmark.train_stream[:2])
    copied, own = copy.deepcopy((strategy, benchmark))
    expected = go_on(strategy, benchmark, benchmark.train_stream[2:])
    found = go_on(copied, own, own.train_stream[2:])
    assert found[-1] == pytest.approx(expected[-1], nan_ok=True)


def test_another_benchmark_takes_no_place_of_a_copy():
    """Of other classes or numbers of images, or for a strategy that is no copy."""
    benchmark, other = (
        classes_in_model_space(),
        to_model_space(by_class(2, task_labels=False), SHAPE),
    )
    for strategy in (
        strategy_with(*metrics()),
        copy.deepcopy(strategy_with(*metrics())),
    ):
        go_on(strategy, benchmark, benchmark.train_stream[:1])
        trained = copy.deepcopy(strategy)._generation.trained
        names = [(key.owner is other, key.place) for key in trained._classes]
        assert names == [(False, 0)]
        go_on(strategy, other, other.train_stream[:1])
        kept = [(key.owner, key.place) for key in strategy._generation.trained._classes]
        assert kept == [(benchmark, 0), (other, 0)]


def test_a_benchmark_that_is_like_two_copies_is_refused_before_training():
    strategy = strategy_with(*metrics())
    benchmarks = [classes_in_model_space(), classes_in_model_space()]
    for benchmark in benchmarks:
        go_on(strategy, benchmark, benchmark.train_stream[:1])
    copied = copy.deepcopy(strategy)
    steps = copied.clock.train_iterations
    for run in (copied.train, copied.eval):
        with pytest.raises(ValueError, match=r"on 2 benchmarks like .*; copy") as caught:
            run(benchmarks[0].train_stream[1])
        assert "\n" not in str(caught.value)
    assert copied.clock.train_iterations == steps
    copied, own = pickled((strategy, benchmarks))
    go_on(copied, own[1], own[1].train_stream[1:2])
