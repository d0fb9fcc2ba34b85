"""Trainings and evaluations in which values would compare what is not alike."""

import copy
import warnings
from functools import partial

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import loss_metrics
from avalanche.training.plugins import EarlyStoppingPlugin, EvaluationPlugin
from torch import nn

from avalanche_gd import DiffusionTraining
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    generate_images,
    kid_metrics,
    recovery_steps,
)
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import SHAPE, conditioned, tiny
from tests.helpers.small_streams import (
    FID,
    SAMPLING,
    FirstPixels,
    Pixels,
    domain_incremental,
    strategy_with,
)
from tests.helpers.stream_builders import by_class, classes_in_model_space, whole

LEFT_OUT = "have no new value, as experiences that were trained on are not evaluated"
IN_PIXELS = dict(features=Pixels(), sampling=SAMPLING)
LABELLED = dict(classifier=FirstPixels(), sampling=SAMPLING)
OF_A_STREAM = {
    "FID_Stream": partial(fid_metrics, **IN_PIXELS),
    "KID_Stream": partial(kid_metrics, subsets=2, subset_size=10, **IN_PIXELS),
    "KLD_Stream": partial(class_balance_metrics, **LABELLED),
    "CAS_Stream": partial(classification_accuracy_metrics, steps=1, **LABELLED),
}


@pytest.mark.parametrize(("name", "make"), OF_A_STREAM.items(), ids=OF_A_STREAM)
def test_without_a_domain_that_was_trained_on_there_is_no_value(name, make):
    benchmark, strategy = domain_incremental(), strategy_with(make())
    tests = list(benchmark.test_stream)
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    for part in (tests[:1], tests[1:]):
        with pytest.warns(UserWarning, match=LEFT_OUT):
            assert not strategy.eval(part)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no new value.*")
        for part in (tests[:2], tests):  # the third does not count yet
            assert f"{name}/eval_phase/test_stream" in strategy.eval(part)


def test_avalanches_evaluation_of_the_last_domain_alone_has_no_value():
    benchmark = domain_incremental()
    strategy = strategy_with(fid_metrics(**IN_PIXELS), eval_every=0)
    strategy.train(benchmark.train_stream[0])
    with pytest.warns(UserWarning, match=LEFT_OUT):
        strategy.train(benchmark.train_stream[1])


@pytest.mark.parametrize(
    "make",
    [
        partial(class_balance_metrics, **LABELLED),
        partial(class_balance_metrics, sampling=SAMPLING),
        partial(classification_accuracy_metrics, steps=1, **LABELLED),
        partial(fid_metrics, sampling=SAMPLING),
        partial(fid_metrics, experience=True, oracle=FirstPixels(), **IN_PIXELS),
    ],
)
def test_classes_of_one_number_are_refused_where_labels_count(make):
    benchmark = nc_benchmark(
        whole("train"),
        whole("test"),
        2,
        task_labels=True,
        class_ids_from_zero_in_each_exp=True,
    )
    strategy = strategy_with(make())
    with pytest.raises(ValueError, match="experiences give other classes the same numbers"):
        strategy.train(benchmark.train_stream[0], eval_streams=[])
    by_pixels = strategy_with(fid_metrics(**IN_PIXELS))
    by_pixels.train(benchmark.train_stream, eval_streams=[])
    assert by_pixels.eval(benchmark.test_stream)[FID] > 0


SUMMARY = {"FID_Forgetting", "F", "AFID", "FID_BackwardTransfer"}


def compared(values):
    return SUMMARY & {name.partition("/")[0] for name in values}


def test_once_an_experience_comes_again_a_model_is_not_compared_with_earlier_ones():
    benchmark = classes_in_model_space()
    strategy = strategy_with(
        fid_metrics(experience=True, summary=True, afid=True, **IN_PIXELS),
        fid_transfer_metrics(**IN_PIXELS),
    )
    for place in (0, 0, 1):  # one after itself is trained for longer
        strategy.train(benchmark.train_stream[place], eval_streams=[])
        values = strategy.eval(benchmark.test_stream)
    assert compared(values) == SUMMARY
    copied = copy.deepcopy((strategy, benchmark))
    for one, streams in ((strategy, benchmark), copied):
        one.train(streams.train_stream[0], eval_streams=[])
        one.evaluator.last_metric_results.clear()
        with pytest.warns(UserWarning, match="have no value, as an experience was trained"):
            values = one.eval(streams.test_stream)
        assert compared(values) == set()
        assert FID.replace("Stream", "Exp", 1) + "/Exp001" in values


class Linear(nn.Module):
    """Features that training changes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x):
        return self.layer(x.flatten(1))


def fused(module):
    optimizer = torch.optim.Adam(module.parameters(), 0.1, fused=True)
    module(torch.ones(1, *SHAPE)).sum().backward()
    optimizer.step()


def through_data(module):
    for parameter in module.parameters():
        parameter.data.copy_(torch.randn_like(parameter))


def assigned(module):
    module.load_state_dict(Linear().state_dict(), assign=True)


@pytest.mark.parametrize("change", [fused, through_data, assigned])
@pytest.mark.parametrize(
    "given", [lambda module: module, lambda module: lambda x: module(x)]
)
def test_features_of_real_images_are_not_of_older_weights(change, given):
    benchmark, module = classes_in_model_space(), Linear()
    strategy = strategy_with(fid_metrics(features=given(module), sampling=SAMPLING))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    before = strategy.eval(benchmark.test_stream)[FID]
    change(module)
    after = strategy.eval(benchmark.test_stream)[FID]
    real, _ = stream_tensors(benchmark.test_stream[:1])
    with torch.no_grad():
        sides = [module(x) for x in (real, generate_images(strategy.model, SAMPLING))]
    assert after == pytest.approx(plain_fid(*(side.numpy() for side in sides)), rel=1e-3)
    assert after != pytest.approx(before, rel=1e-2)


def unequal():
    """Nine times as many images of the first class as of the second."""
    labels = torch.tensor([0] * 90 + [1] * 10), torch.tensor([2] * 50 + [3] * 50)
    parts = [
        as_dataset(torch.randn(100, *SHAPE) * 0.1 + (own.view(-1, 1, 1, 1) - 1.5) / 3, own)
        for own in labels
    ]
    return as_benchmark(train=parts, test=parts)


def test_fid_of_an_experience_is_the_same_evaluated_alone_and_by_recovery():
    benchmark, model = unequal(), conditioned(seen=())
    with torch.no_grad():
        model.denoiser.shift.weight[:4].copy_((1.5 - torch.arange(4).view(-1, 1)) / 2)
    sampling = Sampling(images=400, steps=2)
    metric = fid_metrics(
        stream=False, experience=True, features=Pixels(), sampling=sampling
    )
    strategy = strategy_with(metric, model=model, train_steps=1)
    strategy.train(benchmark.train_stream, eval_streams=[])
    name = FID.replace("Stream", "Exp", 1) + "/Exp000"
    together = strategy.eval(benchmark.test_stream)[name]
    assert strategy.eval([benchmark.test_stream[0]])[name] == together
    options = dict(features=Pixels(), sampling=Sampling(images=200, steps=2), most=1)
    assert recovery_steps(model, benchmark, 0, together, within=(0.05,), **options) == {
        0.05: 0
    }


def test_after_early_stopping_the_weights_that_are_left_are_evaluated():
    benchmark, model = classes_in_model_space(), tiny()
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.9),
        train_mb_size=8,
        train_epochs=15,
        eval_every=1,
        max_grad_norm=None,
        plugins=[
            EarlyStoppingPlugin(2, "test_stream", metric_name="Loss_Stream", mode="min")
        ],
        evaluator=EvaluationPlugin(fid_metrics(**IN_PIXELS), loss_metrics(stream=True)),
    )
    strategy.train(benchmark.train_stream[0], eval_streams=[benchmark.test_stream])
    assert strategy.clock.train_exp_epochs < 15
    left = dict(strategy.evaluator.get_last_metrics())
    now = strategy.eval(benchmark.test_stream)
    assert all(left[name] == value for name, value in now.items())


class Changed(nn.Module):
    """Features that training mode would change, and be changed by."""

    def __init__(self):
        super().__init__()
        self.normalized = nn.BatchNorm1d(64)

    def forward(self, x):
        return self.normalized(x.flatten(1))[:, 20:28]


def test_recovery_is_measured_in_evaluation_mode():
    module = Changed().train()
    before = copy.deepcopy(module.state_dict())
    benchmark = classes_in_model_space()
    options = dict(sampling=SAMPLING, every=1, most=2)
    recovery_steps(tiny(), benchmark, 0, 1e-9, features=module.forward, **options)
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())


@pytest.mark.parametrize(("every", "most"), [(10, 5), (2, 3), (3, 3)])
def test_recovery_is_measured_after_the_last_step(every, most, monkeypatch):
    distances = []

    class Falling:
        """Is low enough from the second to last look on."""

        def __init__(self, *_):
            pass

        def __call__(self, model):
            distances.append(10.0 if len(distances) < -(-most // every) else 1.0)
            return distances[-1]

    monkeypatch.setattr("avalanche_gd.metrics.recovery._ExperienceFID", Falling)
    reached = recovery_steps(
        tiny(), classes_in_model_space(), 0, 1.0, every=every, most=most
    )
    assert set(reached.values()) == {most}


def test_a_class_that_is_generated_no_longer_has_the_share_0():
    benchmark = by_class(task_labels=False)
    metric = class_balance_metrics(histogram=True, **LABELLED)
    strategy = strategy_with(metric)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    name = "ClassRatio_Stream/eval_phase/test_stream/Class003"
    shares = []
    for brightest in (3, 0):
        images = torch.full((SAMPLING.images, *SHAPE), -1.0)
        images.flatten(1)[:, brightest] = 1
        strategy.model.reverse = lambda noise, *_, images=images, **__: images
        shares.append(strategy.eval(benchmark.test_stream[:1])[name])
    assert shares == [1.0, 0.0]
    again = strategy_with(class_balance_metrics(histogram=True, **LABELLED))
    load_strategy_state(again, [], strategy_state(strategy, []))
    SharedImages.of(again).observe(benchmark.train_stream[0])  # as a run that goes on
    again.train(benchmark.train_stream[1], eval_streams=[])
    again.model.reverse = strategy.model.reverse
    assert again.eval(benchmark.test_stream[:2])[name] == 0.0
