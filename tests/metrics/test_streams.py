"""What the metrics judge in the streams of each of Avalanche's builders."""

import warnings

import pytest
import torch
from avalanche import benchmarks as builders
from avalanche.benchmarks.utils import AvalancheDataset
from torch.utils.data import TensorDataset

from avalanche_gd import SplitDigits, to_model_space
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    class_balance_metrics,
    fid_metrics,
    generated_image_metrics,
)
from tests.helpers.small_models import SHAPE, images, tiny
from tests.helpers.small_streams import (
    FEW_CLASSES,
    FID,
    SAMPLING,
    Pixels,
    domain,
    domain_datasets,
    domain_incremental,
    expected_fid,
    generator_for,
    strategy_with,
)
from tests.helpers.stream_builders import (
    BUILDERS,
    classes_in_model_space,
    of_a_generator,
    of_linear_decay,
    of_models,
    of_no_stream,
    of_pixels,
    of_unlabelled,
    whole,
)


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_what_was_trained_on_counts_in_the_streams_of(build, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some builders are deprecated
        train, test, counting = build(tmp_path)
    metrics = fid_metrics(features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(metrics, model=generator_for(train[0]))
    strategy.train(train, eval_streams=[])
    values = strategy.eval(test)
    counted = [exp for exp in test if exp.current_experience in counting]
    expected = expected_fid(strategy.model, counted)
    name = f"FID_Stream/eval_phase/{next(iter(test)).origin_stream.name}_stream"
    assert values[name] == pytest.approx(expected, rel=1e-4)


BY_EXPERIENCE = dict(experience=True, features=Pixels())
OF_THE_ORACLE = dict(features="oracle")


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (of_linear_decay, dict(features=Pixels()), "mixed from several; use split_online"),
        (of_models, dict(features=Pixels()), "has no dataset; leave it out"),
        (of_no_stream, dict(features=Pixels()), "belongs to no stream; take it from"),
        (of_unlabelled, BY_EXPERIENCE, "no labels; use fid_metrics.. without experience="),
        (of_unlabelled, OF_THE_ORACLE, "no labels to train an oracle on; give"),
        (of_pixels, OF_THE_ORACLE, r"trained on tensors \(C, H, W\) in \[-1, 1\]"),
        (of_a_generator, OF_THE_ORACLE, "no known end.*; give your own .* benchmark="),
        (of_a_generator, BY_EXPERIENCE, "no known end.*; give your own .* benchmark="),
    ],
)
def test_what_cannot_be_judged_is_refused_before_training(build, options, message):
    strategy = strategy_with(fid_metrics(sampling=SAMPLING, **options))
    with pytest.raises(ValueError, match=message) as caught:
        strategy.train(build(), eval_streams=[])
    assert len(str(caught.value).splitlines()) == 1
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize("build", [of_unlabelled, of_a_generator])
def test_class_balance_without_labels_or_an_end_is_refused_before_training(build):
    strategy = strategy_with(class_balance_metrics(sampling=SAMPLING))
    with pytest.raises(ValueError, match=r"labels; remove|no known end"):
        strategy.train(build(), eval_streams=[])
    assert strategy.clock.train_iterations == 0


def test_unlabelled_images_are_judged_over_the_stream():
    parts = [AvalancheDataset([TensorDataset(images(20))]) for _ in range(4)]
    benchmark = builders.benchmark_from_datasets(train=parts[:2], test=parts[2:])
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    value = strategy.eval(benchmark.test_stream)[FID]
    expected = expected_fid(strategy.model, benchmark.test_stream[:1])
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_a_test_of_classes_never_trained_on_does_not_count(known):
    two = as_dataset(images(20), torch.arange(20) % 2)
    make = as_benchmark if known else builders.benchmark_from_datasets
    benchmark = make(train=[two], test=[whole("test")])
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(benchmark.train_stream, eval_streams=[])
    with pytest.warns(UserWarning, match="there is no value"):
        assert FID not in strategy.eval(benchmark.test_stream)


def test_an_experience_may_have_a_class_more_than_its_counterpart():
    few = as_dataset(images(20), torch.arange(20) % (FEW_CLASSES - 1))
    test = domain_datasets()["test"]
    benchmark = builders.benchmark_from_datasets(train=[domain(0), few, few], test=test)
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    value = strategy.eval(benchmark.test_stream)[FID]
    expected = expected_fid(strategy.model, benchmark.test_stream[:2])
    assert value == pytest.approx(expected, rel=1e-4)


def test_images_of_streams_that_cannot_be_judged_are_still_shown():
    strategy = strategy_with(generated_image_metrics(sampling=SAMPLING, shown=4))
    strategy.train(of_linear_decay(), eval_streams=[])
    values = strategy.eval(domain_incremental().test_stream)
    assert "GeneratedImages/eval_phase/test_stream" in values


def test_an_empty_experience_is_refused_when_it_is_evaluated():
    empty = domain(0).subset([])
    benchmark = builders.benchmark_from_datasets(train=[domain(0)], test=[empty])
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(benchmark.train_stream, eval_streams=[])
    with pytest.raises(ValueError, match="experience 1 is empty; leave it out"):
        strategy.eval(benchmark.test_stream)


@pytest.mark.parametrize("make", [classes_in_model_space, lambda: SplitDigits(5, seed=2)])
def test_benchmarks_in_one_strategy_are_judged_each_by_its_own_images(make):
    """Also one that takes the place in memory of one that is gone."""
    metrics = fid_metrics(experience=True, summary=True, sampling=SAMPLING)
    model = tiny()
    strategy = strategy_with(metrics, model=model)
    kept = to_model_space(make(), SHAPE)
    strategy.train(kept.train_stream[0], eval_streams=[])
    for seed in range(2):
        torch.manual_seed(seed)
        benchmark = classes_in_model_space() if seed else SplitDigits(5, seed=seed)
        strategy.train(benchmark.train_stream[:2], eval_streams=[])
        fresh = strategy_with(
            fid_metrics(experience=True, summary=True, sampling=SAMPLING), model=model
        )
        metric = fresh.evaluator.metrics[0]
        for experience in benchmark.train_stream[:2]:
            fresh.experience = experience
            metric.before_training_exp(fresh)
        strategy.evaluator.reset_last_metrics()
        assert strategy.eval(benchmark.test_stream) == fresh.eval(benchmark.test_stream)
        del benchmark, fresh, metric
    strategy.evaluator.reset_last_metrics()
    values = strategy.eval(kept.test_stream)
    assert [name for name in values if "Exp0" in name] == [
        "FID_Exp/eval_phase/test_stream/Exp000"
    ]


def test_online_pieces_are_evaluated_each_by_its_own_images():
    stream = domain_incremental().train_stream
    pieces = list(builders.split_online_stream(stream, 20))[:2]
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(pieces[0], eval_streams=[])
    for piece in pieces:  # of the experience that was trained on, both of them
        values = strategy.eval([piece])
        expected = expected_fid(strategy.model, [piece])
        name = "FID_Stream/eval_phase/train_online_stream"
        assert values[name] == pytest.approx(expected, rel=1e-4)


def test_streams_are_evaluated_one_by_one():
    benchmark = domain_incremental()
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    with pytest.raises(ValueError, match="must be of one stream, but are of train and of"):
        strategy.eval([benchmark.train_stream[0], benchmark.test_stream[0]])


def test_a_stream_that_may_go_with_two_is_refused():
    first, second = domain_incremental(), domain_incremental()
    strategy = strategy_with(fid_metrics(features=Pixels(), sampling=SAMPLING))
    strategy.train(first.train_stream[:2], eval_streams=[])
    strategy.train(second.train_stream[:1], eval_streams=[])
    with pytest.raises(ValueError, match="2 of the streams that were trained on"):
        strategy.eval(second.test_stream)
    strategy.train(second.train_stream[1], eval_streams=[])
    assert FID in strategy.eval(second.test_stream)  # the same of either
