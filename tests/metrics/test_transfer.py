"""AFID, F and transfer by hand, and over a stream."""

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.online import split_online_stream

from avalanche_gd import to_model_space
from avalanche_gd.data.model_space import as_benchmark
from avalanche_gd.metrics import (
    afid_summary,
    fid_metrics,
    fid_transfer_metrics,
    generate_images,
    generation_summary,
    transfer_summary,
)
from avalanche_gd.metrics.shared_images import generate_samples
from avalanche_gd.runs.strategies import CumulativePlugin
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import SHAPE, conditioned
from tests.helpers.small_streams import (
    FEW_CLASSES,
    SAMPLING,
    FirstPixels,
    Pixels,
    domain,
    domain_datasets,
    domain_incremental,
    expected_fid,
    strategy_with,
)
from tests.helpers.stream_builders import (
    by_class,
    classes_in_model_space,
    classes_of_no_benchmark,
    whole,
)

STREAM = "eval_phase/test_stream"
# FID on experience i (columns, from 0) after k experiences (lines, from 0), in full.
Q = np.array(
    [[9.0, 8.0, 7.0, 9.0], [3, 7, 6, 8], [5, 2, 6, 7], [9, 4, 1, 9], [12, 8, 3, 2]]
)
MATRIX = {k: dict(enumerate(line)) for k, line in enumerate(Q.tolist())}
TRAINED = {k: {i: MATRIX[k][i] for i in range(k)} for k in range(1, 5)}


def test_afid_and_f_by_hand():
    values = afid_summary(TRAINED)
    assert values["AFID"] == (12 + 8 + 3 + 2) / 4
    assert values["F"] == ((12 - 3) + (8 - 2) + (3 - 1) + 0) / 4


def test_afid_and_f_follow_from_the_other_summary():
    afid, summary = afid_summary(TRAINED), generation_summary(TRAINED)
    assert afid["AFID"] == summary["Final"]
    assert afid["F"] == pytest.approx(summary["Forgetting"] * 3 / 4)


def test_f_needs_what_was_measured_right_after_training():
    values = afid_summary({1: {0: 3.0}, 3: {0: 5.0, 1: 4.0, 2: 4.0}})
    assert np.isnan(values["F"]) and values["AFID"] == pytest.approx(13 / 3)


def test_transfer_by_hand():
    values = transfer_summary(MATRIX, {i: i + 1 for i in range(4)})
    assert values["Backward"] == pytest.approx(((3 - 12) + (2 - 8) + (1 - 3)) / 3)
    assert values["Forward"] == pytest.approx(((8 - 7) + (7 - 6) + (9 - 9)) / 3)
    assert values["Backward"] == pytest.approx(-generation_summary(TRAINED)["Forgetting"])


def test_transfer_goes_by_the_order_of_training():
    swapped = {k: {0: line[1], 1: line[0]} for k, line in MATRIX.items() if k < 3}
    values = transfer_summary(swapped, {1: 1, 0: 2})
    assert values == {"Backward": 3 - 5, "Forward": 8 - 7}


def test_no_transfer_where_nothing_can_be_compared():
    assert transfer_summary({0: {0: 9.0, 1: 9.0}, 1: {0: 3.0, 1: 8.0}}, {0: 1}) == {}
    assert transfer_summary({1: {0: 3.0}, 2: {0: 5.0, 1: 4.0}}) == {"Backward": -2.0}


def options():
    return dict(features=Pixels(), sampling=SAMPLING, oracle=FirstPixels())


def test_afid_over_a_stream_is_that_of_the_distances():
    benchmark = classes_in_model_space()
    strategy = strategy_with(fid_metrics(experience=True, afid=True, **options()))
    q = {}
    for k in range(FEW_CLASSES):
        strategy.train(benchmark.train_stream[k], eval_streams=[])
        values = strategy.eval(benchmark.test_stream)
        for i in range(k + 1):
            q[i, k] = values[f"FID_Exp/{STREAM}/Exp{i:03d}"]
    last = FEW_CLASSES - 1
    expected = np.mean([q[i, last] for i in range(FEW_CLASSES)])
    assert values[f"AFID/{STREAM}"] == pytest.approx(expected)
    lost = np.mean([q[i, last] - q[i, i] for i in range(FEW_CLASSES)])
    assert values[f"F/{STREAM}"] == pytest.approx(lost)


def test_transfer_over_a_stream_is_that_of_what_was_generated():
    benchmark = classes_in_model_space()
    strategy = strategy_with(
        fid_metrics(experience=True, **options()), fid_transfer_metrics(**options())
    )
    ahead, q = {}, {}
    for k in range(FEW_CLASSES):
        for i in range(k, FEW_CLASSES):
            ahead[i, k] = expected_fid(strategy.model, benchmark.test_stream[i : i + 1])
        strategy.train(benchmark.train_stream[k], eval_streams=[benchmark.test_stream])
        values = strategy.eval(benchmark.test_stream[: k + 1])
        for i in range(k + 1):
            q[i, k] = values[f"FID_Exp/{STREAM}/Exp{i:03d}"]
    last = FEW_CLASSES - 1
    backward = np.mean([q[i, i] - q[i, last] for i in range(last)])
    forward = np.mean([ahead[i, 0] - ahead[i, i] for i in range(1, FEW_CLASSES)])
    assert values[f"FID_BackwardTransfer/{STREAM}"] == pytest.approx(backward)
    assert values[f"FID_ForwardTransfer/{STREAM}"] == pytest.approx(forward, rel=1e-3)


def test_what_comes_is_measured_once_before_its_first_piece():
    benchmark = classes_in_model_space()
    (metric,) = fid_transfer_metrics(**options())
    strategy = strategy_with([metric])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    first = expected_fid(strategy.model, benchmark.test_stream[1:2])
    for piece in split_online_stream(benchmark.train_stream[1:2], experience_size=20):
        strategy.train(piece, eval_streams=[])
    measured = metric.qualities["test"]
    assert measured[1] == pytest.approx({1: first}, rel=1e-3)
    assert {k: set(q) for k, q in measured.items()} == {0: {0, 1, 2, 3}, 1: {1}}


def test_a_conditioned_model_is_asked_for_all_classes_before_training(digits):
    model = conditioned(seen=())
    (metric,) = fid_transfer_metrics(features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with([metric], model=model)

    def expected(images, experience):
        real = torch.stack([item[0] for item in experience.dataset])
        return plain_fid(Pixels()(real).numpy(), Pixels()(images).numpy())

    images, _ = generate_samples(model, SAMPLING, classes=range(10))
    before = [expected(images, experience) for experience in digits.test_stream]
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert list(metric.qualities["test"][0].values()) == pytest.approx(before, rel=1e-3)
    ahead = expected(generate_images(model, SAMPLING), digits.test_stream[1])
    strategy.train(digits.train_stream[1], eval_streams=[])
    values = strategy.eval(digits.test_stream)
    forward = before[1] - ahead
    assert values[f"FID_ForwardTransfer/{STREAM}"] == pytest.approx(forward, rel=1e-3)


def test_experiences_that_are_evaluated_one_by_one_are_all_in_the_summary(digits):
    metrics = fid_metrics(stream=False, afid=True, features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(metrics)
    for number, experience in enumerate(digits.train_stream[:3], start=1):
        strategy.train(experience, eval_streams=[])
        for test in digits.test_stream[:number]:
            apart = strategy.eval([test])
    together = strategy.eval(digits.test_stream[:3])
    names = [f"{name}/{STREAM}" for name in ("AFID", "F")]
    assert [apart[name] for name in names] == [together[name] for name in names]
    assert len(metrics[0].qualities["test"][3]) == 3
    strategy.train(digits.train_stream[3], eval_streams=[])
    part = strategy.eval([digits.test_stream[2]])  # one of those only
    assert list(metrics[0].qualities["test"][4]) == [2] and not part.keys() & {*names}
    last = strategy.eval(digits.test_stream[:4])
    again = fid_metrics(stream=False, afid=True, features=Pixels(), sampling=SAMPLING)
    again[0].qualities = metrics[0].qualities  # as from a checkpoint
    assert afid_summary(again[0].qualities["test"])["F"] == last[names[1]]


def test_a_stream_that_is_trained_on_at_once_has_no_transfer(digits):
    model = conditioned(seen=())
    metrics = fid_transfer_metrics(features=Pixels(), sampling=SAMPLING)
    strategy = strategy_with(metrics, model=model, plugins=[CumulativePlugin()])
    strategy.train(digits.train_stream[-1], eval_streams=[])
    values = strategy.eval(digits.test_stream)
    assert all(
        np.isnan(values[f"FID_{n}Transfer/{STREAM}"]) for n in ("Backward", "Forward")
    )
    assert list(metrics[0].qualities["test"]) == [0, 5]


def test_real_images_have_the_same_bits_whenever_they_are_read(digits):
    def features(images):  # whose sums depend on the order, unlike those of digits' pixels
        return Pixels()(images).double().exp()

    (metric,) = fid_transfer_metrics(features=features, sampling=SAMPLING)
    strategy = strategy_with([metric], eval_mb_size=16)
    strategy.train(digits.train_stream[0], eval_streams=[])
    before = dict(metric._real)  # of the whole test stream, before it was evaluated
    metric._real.clear()
    for experience in digits.train_stream[1:]:
        strategy.train(experience, eval_streams=[])
    metric._real.clear()
    strategy.eval(digits.test_stream)
    assert len(before) == len(metric._real) == 5
    for key, moments in before.items():
        assert torch.equal(moments.mean, metric._real[key].mean)
        assert torch.equal(moments.scatter, metric._real[key].scatter)


def test_there_is_no_forward_transfer_where_the_test_stream_is_not_known():
    benchmark = classes_of_no_benchmark()  # whose streams know no benchmark
    strategy = strategy_with(fid_transfer_metrics(**options()))
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        values = strategy.eval(benchmark.test_stream)
    assert np.isfinite(values[f"FID_BackwardTransfer/{STREAM}"])
    assert np.isnan(values[f"FID_ForwardTransfer/{STREAM}"])


@pytest.mark.parametrize("is_known", [True, False])
def test_where_experiences_share_classes_they_have_no_values_of_their_own(is_known):
    """Their images are of all domains: FID on one would rise with each further domain."""
    benchmark = domain_incremental()
    if is_known:
        benchmark = to_model_space(benchmark, SHAPE)
    strategy = strategy_with(
        fid_metrics(experience=True, summary=True, afid=True, **options()),
        fid_transfer_metrics(**options()),
    )
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    said = "FID by experience, its summary and its transfer have no value, as experiences"
    for evaluated in (benchmark.test_stream, benchmark.test_stream[:1]):
        with pytest.warns(UserWarning, match=said):
            values = strategy.eval(evaluated)
        assert list(values) == [f"FID_Stream/{STREAM}"]
    if is_known:
        with pytest.warns(UserWarning, match=said):
            strategy.train(benchmark.train_stream[1], eval_streams=[])
    assert not strategy.evaluator.metrics[1].qualities


@pytest.mark.parametrize("is_known", [True, False])
def test_nor_where_one_test_experience_stands_for_those_that_do(is_known):
    data = domain_datasets()
    data["test"] = [domain(1)]
    benchmark = as_benchmark(**data) if is_known else benchmark_from_datasets(**data)
    strategy = strategy_with(
        fid_metrics(experience=True, summary=True, afid=True, **options()),
        fid_transfer_metrics(**options()),
    )
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
        with pytest.warns(UserWarning, match="as experiences of the stream train share"):
            values = strategy.eval(benchmark.test_stream)
        assert list(values) == [f"FID_Stream/{STREAM}"]
    assert not strategy.evaluator.metrics[1].qualities


def test_a_test_experience_of_all_classes_has_no_forward_transfer():
    parts = by_class(task_labels=False)
    train = [experience.dataset for experience in parts.train_stream]
    benchmark = as_benchmark(train=train, test=[whole("test")])
    metrics = fid_transfer_metrics(**options())
    strategy = strategy_with(metrics)
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    values = strategy.eval(benchmark.test_stream)
    assert np.isnan(values[f"FID_ForwardTransfer/{STREAM}"])
    assert {k: set(q) for k, q in metrics[0].qualities["test"].items()} == {0: {0}, 4: {0}}


def test_it_changes_no_training(digits):
    weights = []
    for metrics in ([], fid_transfer_metrics(features=Pixels(), sampling=SAMPLING)):
        torch.manual_seed(0)
        strategy = strategy_with(metrics)
        strategy.train(digits.train_stream[:2], eval_streams=[])
        weights.append(strategy.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_oracle_is_that_of_the_stream_that_is_trained_on(digits):
    (metric,) = fid_transfer_metrics(sampling=SAMPLING)
    strategy_with([metric]).train(digits.train_stream[0], eval_streams=[])
    assert len(metric.qualities["test"][0]) == len(digits.test_stream)
