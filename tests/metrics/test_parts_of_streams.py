"""Values over a stream of which a part is evaluated, or all was trained at once."""

import warnings

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import JointTraining
from torch import nn

from avalanche_gd import DenoisingLoss
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    kid_metrics,
)
from tests.helpers.small_models import conditioned, tiny
from tests.helpers.small_streams import (
    FEW_CLASSES,
    FID,
    SAMPLING,
    FirstPixels,
    Pixels,
    domain_incremental,
    expected_fid,
    strategy_with,
)
from tests.helpers.stream_builders import (
    by_class,
    classes_in_model_space,
    with_a_joint_test,
)

EVALUATE_ALL = "have no new value, as classes that were trained on are in none"
OF_TRAINING = FID.replace("test", "train")


def in_features(make, **options):
    return make(features=Pixels(), sampling=SAMPLING, oracle=FirstPixels(), **options)


def labelled(make, **options):
    return make(sampling=SAMPLING, classifier=FirstPixels(), **options)


def all_metrics():
    return [
        in_features(fid_metrics, experience=True, summary=True, afid=True),
        in_features(kid_metrics, subsets=2, subset_size=10),
        in_features(fid_transfer_metrics),
        labelled(class_balance_metrics),
        labelled(classification_accuracy_metrics, steps=1),
    ]


def test_joint_training_is_judged_on_all_that_it_was_trained_on():
    benchmark = classes_in_model_space()
    model = tiny()
    strategy = JointTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        criterion=DenoisingLoss(),
        train_mb_size=16,
        eval_mb_size=16,
        evaluator=EvaluationPlugin(*all_metrics()),
    )
    strategy.train(benchmark.train_stream)
    values = strategy.eval(benchmark.test_stream)
    expected = expected_fid(model, benchmark.test_stream)
    assert values[FID] == pytest.approx(expected, rel=1e-4)
    assert [name for name in values if "FID_Exp" in name] == [
        f"{FID.replace('Stream', 'Exp', 1)}/Exp{place:03d}" for place in range(4)
    ]
    with torch.no_grad():
        labels = FirstPixels()(strategy._generation.images(model, SAMPLING)).argmax(1)
    ratios = torch.bincount(labels, minlength=FEW_CLASSES) / len(labels)
    ard = float((ratios - 1 / FEW_CLASSES).abs().sum() / 2)
    assert values[f"ARD_{FID[4:]}"] == pytest.approx(ard, abs=1e-6)
    assert {f"KID_{FID[4:]}", f"CAS_{FID[4:]}"} < set(values)


@pytest.mark.parametrize("in_training", [True, False])
def test_a_part_without_a_class_trained_on_has_no_value_over_the_stream(in_training):
    benchmark = by_class(task_labels=False)
    strategy = strategy_with(*all_metrics(), eval_every=0 if in_training else -1)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    strategy.evaluator.reset_last_metrics()
    with pytest.warns(UserWarning, match=EVALUATE_ALL) as caught:
        if in_training:  # evaluates this experience only
            values = strategy.train(benchmark.train_stream[1])
        else:
            strategy.train(benchmark.train_stream[1], eval_streams=[])
            values = strategy.eval(benchmark.test_stream[0])
    said = {str(warning.message) for warning in caught if EVALUATE_ALL in str(warning)}
    assert len(said) == 1 and "\n" not in said.pop()
    names = {name.partition("/")[0] for name in values}
    over_stream = {"FID_Stream", "KID_Stream", "KLD_Stream", "ARD_Stream", "CAS_Stream"}
    summaries = {"FID_Final", "FID_Mean", "AFID", "F", "FID_BackwardTransfer"}
    assert not (over_stream | summaries) & names
    assert "FID_Exp" in names


def test_experiences_not_trained_on_and_not_in_the_stream_are_not_missed(tmp_path):
    """Nor are other experiences of the same classes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{EVALUATE_ALL}")
        benchmark = by_class(task_labels=False)
        strategy = strategy_with(in_features(fid_metrics))
        strategy.train(benchmark.train_stream[:2], eval_streams=[])
        assert FID in strategy.eval(benchmark.test_stream[:2])
        assert OF_TRAINING in strategy.eval(benchmark.train_stream[:2])
        parts = [experience.dataset for experience in benchmark.train_stream]
        lacking = as_benchmark(train=parts, test=parts[:2])  # has two of four classes
        strategy = strategy_with(in_features(fid_metrics))
        strategy.train(lacking.train_stream, eval_streams=[])
        assert FID in strategy.eval(lacking.test_stream)
        train, test, _ = with_a_joint_test(tmp_path)
        strategy = strategy_with(in_features(fid_metrics))
        strategy.train(train, eval_streams=[])
        assert FID in strategy.eval(test)
        domains = domain_incremental()
        strategy = strategy_with(in_features(fid_metrics), eval_every=0)
        assert OF_TRAINING in strategy.train(domains.train_stream[0])


class Silent(nn.Linear):
    """A solver, which generates nothing."""

    def forward(self, x):
        return super().forward(x.flatten(1))


def test_metrics_of_generated_images_are_refused_in_a_solvers_evaluator():
    solver = Silent(64, FEW_CLASSES)
    strategy = JointTraining(
        model=solver,
        optimizer=torch.optim.SGD(solver.parameters(), 0.1),
        criterion=nn.CrossEntropyLoss(),
        evaluator=EvaluationPlugin(in_features(fid_metrics)),
    )
    weights = solver.weight.clone()
    with pytest.raises(TypeError, match=r"FID measures .*the evaluator of the generator's"):
        strategy.train(by_class(task_labels=False).train_stream)
    assert torch.equal(solver.weight, weights)


def in_parts(*classes):
    """A stream with an experience of some classes after another."""
    data = stream_tensors(by_class(task_labels=False).test_stream)
    parts = [torch.isin(data[1], torch.tensor(own)) for own in classes]
    return [as_dataset(data[0][part], data[1][part]) for part in parts]


@pytest.mark.parametrize("tests", [([0], [1, 2], [3]), ([0], [1, 2, 3])])
def test_an_experience_that_does_not_count_has_no_class_in_the_evaluation(tests):
    benchmark = as_benchmark(train=in_parts([0, 1], [2, 3]), test=in_parts(*tests))
    strategy = strategy_with(in_features(fid_metrics), labelled(class_balance_metrics))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    with pytest.warns(UserWarning, match=EVALUATE_ALL):
        assert not strategy.eval(benchmark.test_stream)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    assert FID in strategy.eval(benchmark.test_stream)


def test_an_experience_that_is_evaluated_twice_counts_once():
    benchmark = by_class(2, task_labels=False)
    strategy = strategy_with(*all_metrics())
    strategy.train(benchmark.train_stream, eval_streams=[])
    first, second = benchmark.test_stream
    once = strategy.eval([first, second])
    assert strategy.eval([first, first, second, first]) == pytest.approx(once, nan_ok=True)


def test_generated_images_of_a_class_that_the_stream_lacks_count_as_they_are():
    benchmark = as_benchmark(train=in_parts([0, 1, 2]), test=in_parts([0, 1]))
    model = conditioned(seen=())
    strategy = strategy_with(in_features(fid_metrics), model=model)
    strategy.train(benchmark.train_stream, eval_streams=[])
    value = strategy.eval(benchmark.test_stream)[FID]
    _, asked = strategy._generation.samples(model, SAMPLING)
    assert torch.bincount(asked).tolist() == [10, 10, 10]
    assert value == pytest.approx(expected_fid(model, benchmark.test_stream), rel=1e-4)
