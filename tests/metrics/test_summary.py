"""The summary of generation over a stream, against a second statement."""

import numpy as np
import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    SplitDigits,
)
from avalanche_gd.metrics import (
    Sampling,
    afid_summary,
    fid_metrics,
    fid_transfer_metrics,
    generation_summary,
    transfer_summary,
)
from tests.helpers.small_models import tiny
from tests.helpers.small_streams import (
    FirstPixels,
    Pixels,
    strategy_with,
)
from tests.helpers.stream_builders import classes_in_model_space, pieces_of_two

SAMPLING = Sampling(images=60, steps=2)


def test_the_summary_is_that_of_the_matrix():
    q = np.array([[3.0, 0, 0, 0], [5, 2, 0, 0], [9, 4, 1, 0], [12, 8, 3, 2]])
    qualities = {i + 1: {j: q[i, j] for j in range(i + 1)} for i in range(4)}
    summary = generation_summary(qualities)
    assert summary["Final"] == pytest.approx(q[3].mean())
    means = [q[i, : i + 1].mean() for i in range(4)]
    assert summary["Mean"] == pytest.approx(np.mean(means))
    assert summary["Forgetting"] == pytest.approx(np.mean(q[3, :3] - np.diag(q)[:3]))


def test_after_one_experience_nothing_can_be_forgotten():
    assert generation_summary({1: {0: 4.0}}) == {"Final": 4.0, "Mean": 4.0}


def test_forgetting_counts_only_experiences_measured_after_their_training():
    summary = generation_summary({1: {0: 4.0}, 3: {0: 7.0, 1: 50.0, 2: 1.0}})
    assert summary["Forgetting"] == pytest.approx(3.0)


def test_an_experience_that_is_not_generated_is_not_a_number():
    assert np.isnan(generation_summary({1: {0: float("nan")}})["Final"])


def test_evaluations_along_a_stream_add_up_to_the_summary(digits):
    model = DiffusionModel.from_preset("digits", num_classes=10)
    metrics = fid_metrics(experience=True, summary=True, sampling=SAMPLING)
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-3),
        train_steps=3,
        evaluator=EvaluationPlugin(metrics),
    )
    q = {}
    for i in range(3):
        strategy.train(digits.train_stream[i], eval_streams=[digits.test_stream[:1]])
        values = strategy.eval(digits.test_stream[: i + 1])
        for j in range(i + 1):
            q[i, j] = values[f"FID_Exp/eval_phase/test_stream/Exp{j:03d}"]
    last = {
        name: values[f"FID_{name}/eval_phase/test_stream"]
        for name in ("Final", "Mean", "Forgetting")
    }
    assert last["Final"] == pytest.approx(np.mean([q[2, j] for j in range(3)]))
    means = [np.mean([q[i, j] for j in range(i + 1)]) for i in range(3)]
    assert last["Mean"] == pytest.approx(np.mean(means))
    assert last["Forgetting"] == pytest.approx(np.mean([q[2, j] - q[j, j] for j in (0, 1)]))


def summaries(benchmark, *, order, train_too):
    """The summary after each experience, and FID by experience trained on."""
    options = dict(experience=True, summary=True, features=Pixels(), sampling=SAMPLING)
    oracle = FirstPixels()
    strategy = strategy_with(fid_metrics(oracle=oracle, **options))
    q, values = {}, {}
    for number, index in enumerate(order, 1):
        strategy.train(benchmark.train_stream[index], eval_streams=[])
        if train_too:
            strategy.eval(benchmark.train_stream)
        values = strategy.eval(benchmark.test_stream)
        for place in order[:number]:
            name = f"FID_Exp/eval_phase/test_stream/Exp{place:03d}"
            q[number, order.index(place)] = values[name]
    return values, q


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("train_too", [False, True])
def test_the_summary_is_of_one_stream_and_of_what_was_trained_on(order, train_too):
    torch.manual_seed(0)
    benchmark = classes_in_model_space()
    values, q = summaries(benchmark, order=order, train_too=train_too)
    expected = {
        "Final": np.mean([q[3, j] for j in range(3)]),
        "Mean": np.mean([np.mean([q[i, j] for j in range(i)]) for i in (1, 2, 3)]),
        "Forgetting": np.mean([q[3, j] - q[j + 1, j] for j in (0, 1)]),
    }
    for name, value in expected.items():
        assert values[f"FID_{name}/eval_phase/test_stream"] == pytest.approx(value)


def test_forgetting_goes_by_when_an_experience_came_to_count():
    qualities = {1: {0: 1.0, 1: 2.0}, 2: {0: 3.0, 1: 5.0, 2: 7.0, 3: 7.0}}
    summary = generation_summary(qualities, {0: 1, 1: 1, 2: 2, 3: 2})
    assert summary["Forgetting"] == pytest.approx(((3 - 1) + (5 - 2)) / 2)


def test_online_pieces_of_an_experience_are_one_in_the_summary():
    benchmark = classes_in_model_space()
    metrics = fid_metrics(
        experience=True,
        summary=True,
        features=Pixels(),
        oracle=FirstPixels(),
        sampling=SAMPLING,
    )
    strategy = strategy_with(metrics)
    q = {}
    for number in (1, 2):
        for piece in pieces_of_two(benchmark.train_stream, size=15):
            if piece.origin_experience.current_experience == number - 1:
                strategy.train(piece, eval_streams=[])
                values = strategy.eval(benchmark.test_stream)
        for place in range(number):
            q[number, place] = values[f"FID_Exp/eval_phase/test_stream/Exp{place:03d}"]
    forgotten = values["FID_Forgetting/eval_phase/test_stream"]
    assert forgotten == pytest.approx(q[2, 0] - q[1, 0])


def test_a_summary_goes_on_where_it_was_loaded():
    benchmark = classes_in_model_space()
    options = dict(experience=True, summary=True, features=Pixels(), sampling=SAMPLING)
    model, oracle = tiny(), FirstPixels()
    metrics = [fid_metrics(oracle=oracle, **options) for _ in range(2)]
    strategy = strategy_with(metrics[0], model=model)
    for stream in (benchmark.train_stream, benchmark.test_stream):
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        strategy.eval(stream)
    metrics[1][0].qualities = metrics[0][0].qualities
    other = strategy_with(metrics[1], model=model)
    other.experience = benchmark.train_stream[0]
    metrics[1][0].before_training_exp(other)
    values = []
    for one in (strategy, other):
        one.experience = benchmark.train_stream[1]
        one.evaluator.metrics[0].before_training_exp(one)
        one.evaluator.reset_last_metrics()
        one.eval(benchmark.test_stream)
        one.eval(benchmark.train_stream)
        values.append(one.evaluator.get_last_metrics())
    assert values[0] == values[1]
    assert "FID_Forgetting/eval_phase/test_stream" in values[0]
    assert "FID_Forgetting/eval_phase/train_stream" in values[0]


@pytest.mark.parametrize("together", [True, False])
def test_each_strategy_with_the_same_metrics_has_a_summary_of_its_own(together):
    """Whether one is trained after the other, or both in turn."""
    benchmark = classes_in_model_space()

    def metrics():
        options = dict(oracle=FirstPixels(), features=Pixels(), sampling=SAMPLING)
        summaries = fid_metrics(summary=True, afid=True, **options)
        return summaries + fid_transfer_metrics(**options)

    values = []
    for shared in (metrics(), None):
        torch.manual_seed(0)
        strategies = [strategy_with(shared or metrics()) for _ in range(2)]
        turns = [(strategy, place) for place in range(3) for strategy in strategies]
        if not together:
            turns.sort(key=lambda turn: strategies.index(turn[0]))
        values.append([])
        for strategy, place in turns:
            torch.manual_seed(place)
            strategy.train(benchmark.train_stream[place], eval_streams=[])
            values[-1].append(strategy.eval(benchmark.test_stream))
    for found, expected in zip(*values, strict=True):
        assert found == pytest.approx(expected, nan_ok=True)


def test_summaries_that_cannot_be_told_apart_later_are_not_kept():
    metrics = fid_metrics(summary=True, features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(metrics)
    for benchmark in (SplitDigits(5), SplitDigits(5, seed=1)):
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        strategy.eval(benchmark.test_stream)
    with pytest.raises(ValueError, match="the same name, test, test"):
        _ = metrics[0].qualities
    with pytest.raises(ValueError, match="from an earlier version"):
        metrics[0].qualities = {1: {0: 2.0}}


SUMMARIES = [generation_summary, afid_summary, transfer_summary]


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("nothing", [{}, {1: {}}, {1: {}, 2: {0: 1.0}}])
def test_nothing_that_was_measured_has_no_summary(summary, nothing):
    with pytest.raises(ValueError, match=r"qualities must have the FID .*, got \{"):
        summary(nothing)


@pytest.mark.parametrize("summary", SUMMARIES[:2])
def test_counts_that_lack_an_experience_are_refused(summary):
    with pytest.raises(ValueError, match=r"counts_after lacks the experiences \[1\]"):
        summary({1: {0: 1.0}, 2: {0: 2.0, 1: 3.0}}, {0: 1})
