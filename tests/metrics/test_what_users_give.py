"""Generators, classifiers and features of the user's: right, or refused in one line."""

import copy
import warnings

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.scenarios.generic_scenario import make_stream
from torch import nn

from avalanche_gd import DiffusionModel, ddim_scheduler
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    kid_metrics,
    recovery_steps,
)
from avalanche_gd.metrics.frechet import Moments, frechet_distance
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import TinyDenoiser, images, tiny
from tests.helpers.small_models import conditioned as knowing_classes
from tests.helpers.small_streams import (
    FID,
    SAMPLING,
    FirstPixels,
    Pixels,
    domain_datasets,
    strategy_with,
)
from tests.helpers.stream_builders import by_class, classes_in_model_space


def of_images(features=None, classifier=None):
    """A metric of each kind, in a user's features and by a user's classifier."""
    features, classifier = features or Pixels(), classifier or FirstPixels()
    options = dict(sampling=SAMPLING, classifier=classifier)
    return [
        *fid_metrics(features=features, sampling=SAMPLING),
        *kid_metrics(features=features, sampling=SAMPLING, subsets=2, subset_size=10),
        *class_balance_metrics(**options),
        *classification_accuracy_metrics(steps=2, **options),
    ]


def train_once(strategy, data):
    """Train on the one experience of a benchmark."""
    stream = as_benchmark(train=[data], test=[data]).train_stream
    strategy.train(stream, eval_streams=[])


class Given(nn.Module):
    """A generator that gives what it was made with."""

    def __init__(self, make):
        super().__init__()
        self.make, self.weight = make, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.flatten(1) * self.weight

    def generate(self, batch_size, condition=None):
        return self.make(batch_size)


def training_of(make, metric):
    """A training of a step, of what gives images without any."""
    model = Given(make)
    return BudgetedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 1e-3),
        criterion=lambda prediction, y: prediction.square().mean(),
        train_mb_size=8,
        train_steps=1,
        evaluator=strategy_with(metric).evaluator,
    )


def evaluated(metric, make, benchmark=None):
    """The values of a metric over what a generator gives."""
    benchmark, strategy = benchmark or classes_in_model_space(), training_of(make, metric)
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    return strategy.eval(benchmark.test_stream[:1])


@pytest.mark.parametrize("shape", [(6,), (8, 8), (3, 4, 8, 8)])
def test_a_generator_may_make_what_is_no_picture(shape):
    def make(count):
        return torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))

    class Few(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :6]

    stored = as_dataset(make(40), torch.arange(40) % 4)
    benchmark = as_benchmark(train=[stored], test=[stored])
    metric = fid_metrics(features=Few(), sampling=SAMPLING)
    values = evaluated(metric, make, benchmark)
    expected = plain_fid(Few()(make(40)).numpy(), Few()(make(30)).numpy())
    assert values[FID] == pytest.approx(expected, rel=1e-4)


def some_nan(count):
    made = images(count)
    made[3] = torch.nan
    return made


BAD_IMAGES = {
    "too few": (lambda count: images(5), "generate(30) must return as many images"),
    "none": (lambda count: images(1)[:0], "generate(30) must return as many images"),
    "bytes": (lambda count: images(count).byte(), "must return float images"),
    "a list": (lambda count: list(images(count)), "must return float images"),
    "no numbers": (some_nan, "generates images that are not finite numbers"),
    "no end": (lambda count: images(count) / 0, "generates images that are not finite"),
}


@pytest.mark.parametrize("what", range(4), ids=["FID", "KID", "KLD", "CAS"])
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_what_a_generator_should_not_make_is_refused(what, name):
    make, message = BAD_IMAGES[name]
    with pytest.raises(ValueError) as error:
        evaluated(of_images()[what], make)
    assert message in str(error.value) and "\n" not in str(error.value)


class Half(nn.Module):
    """Has no logits for some images."""

    def forward(self, x):
        logits = x.flatten(1)[:, :4].clone()
        logits[::2] = torch.nan
        return logits if len(x) > 1 else logits.zero_()


@pytest.mark.parametrize("what", [2, 3], ids=["KLD", "CAS"])
def test_logits_that_are_no_numbers_are_no_class(what):
    metric = of_images(classifier=Half())[what]
    with pytest.raises(ValueError, match="Half has logits that are not numbers"):
        evaluated(metric, images)
    masked = nn.Sequential(FirstPixels(), MaskedClass())
    assert evaluated(of_images(classifier=masked)[what], images)


class MaskedClass(nn.Module):
    """A class that cannot be, as a head that masks has it."""

    def forward(self, logits):
        return torch.cat([logits[:, :3], torch.full_like(logits[:, 3:], -torch.inf)], 1)


class InPlace(nn.Module):
    """Changes the images that it is given."""

    def __init__(self, of):
        super().__init__()
        self.of = of

    def forward(self, x):
        return self.of(x.sub_(0.5).relu_())


def test_modules_that_work_in_place_change_nothing_of_others():
    values, data = [], []
    for bad in (False, True):
        torch.manual_seed(0)
        stored = domain_datasets()
        benchmark = as_benchmark(**stored)
        first = of_images(
            InPlace(Pixels()) if bad else None, InPlace(FirstPixels()) if bad else None
        )
        others = of_images()
        strategy = strategy_with(first[1], others[0], first[2], others[3], eval_mb_size=24)
        strategy.train(benchmark.train_stream[0], eval_streams=[])
        values.append(strategy.eval(benchmark.test_stream))
        data.append(torch.stack([item[0] for item in benchmark.train_stream[0].dataset]))
    same = [name for name in values[0] if name.startswith(("FID", "CAS"))]
    assert len(same) == 2
    assert [values[0][name] for name in same] == [values[1][name] for name in same]
    assert torch.equal(*data)


class Fails(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


WRONG_MODULES = {
    "of float64": nn.Sequential(nn.Flatten(), nn.Linear(64, 4).double()),
    "of three channels": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()),
    "of flat images": nn.Linear(64, 4),
    "that fails in two lines": Fails(RuntimeError("one\ntwo")),
    "that fails without a word": Fails(LookupError()),
    "that finds no attribute": Fails(AttributeError("no such thing")),
    "that refuses in two lines": Fails(ValueError("wrong height\nof an image")),
    "that asserts": Fails(AssertionError("wrong height\nof an image")),
}


@pytest.mark.parametrize("what", range(4), ids=["FID", "KID", "KLD", "CAS"])
@pytest.mark.parametrize("name", WRONG_MODULES)
def test_modules_that_fail_on_the_images_are_refused_before_training(what, name):
    module = WRONG_MODULES[name]
    strategy = strategy_with(of_images(module, module)[what])
    before = copy.deepcopy(strategy.model.state_dict())
    with pytest.raises(ValueError) as error:
        strategy.train(classes_in_model_space().train_stream, eval_streams=[])
    message = str(error.value)
    # A linear layer takes (N, 1, 8, 64), so some fail by what they return.
    assert any(
        part in message for part in ("fails, given an image of (1, 8, 8)", "it gives")
    )
    assert message.startswith("the module of features" if what < 2 else "the classifier")
    assert "\n" not in message
    after = strategy.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_module_that_makes_its_parameters_late_is_taken():
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8))
    benchmark, strategy = classes_in_model_space(), strategy_with(of_images(lazy)[0])
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    assert FID in strategy.eval(benchmark.test_stream)


class Flat(nn.Module):
    """Has as many logits as it is told, of images of one size."""

    def __init__(self, shape, num_classes, pixels=64):
        super().__init__()
        self.head = nn.Linear(pixels, num_classes)

    def forward(self, x):
        return self.head(x.flatten(1))


class WithAuxiliary(Flat):
    """Has a second output in training, as GoogLeNet does."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class FewerInTraining(Flat):
    """Has one logit less in training."""

    def forward(self, x):
        return super().forward(x)[:, : -1 if self.training else None]


WRONG_MAKERS = {
    "one argument": (lambda n: Flat(None, n), "make_classifier fails, given an image"),
    "another size": (
        lambda shape, n: Flat(shape, n, 784),
        "what make_classifier makes, Fl",
    ),
    "too few classes": (
        lambda shape, n: Flat(shape, n - 1),
        "a logit for each class from 0",
    ),
    "no module": (lambda shape, n: n, "make_classifier must make a module, not a int"),
    "two outputs": (WithAuxiliary, "training what make_classifier makes fails, given an"),
    "fewer logits": (FewerInTraining, "training what make_classifier makes fails"),
    "nothing to train": (lambda *_: FirstPixels(), "training what make_classifier makes"),
    "frozen": (
        lambda *given: Flat(*given).requires_grad_(False),
        "training what make_classifier makes fails",
    ),
}


@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("name", WRONG_MAKERS)
def test_a_maker_of_classifiers_that_does_not_fit_is_refused_before_training(
    name, conditioned
):
    make, message = WRONG_MAKERS[name]
    metric = classification_accuracy_metrics(
        steps=1, sampling=SAMPLING, classifier=FirstPixels(), make_classifier=make
    )
    model = knowing_classes() if conditioned else tiny()
    strategy = strategy_with(metric, model=model)
    with pytest.raises(ValueError) as error:
        strategy.train(classes_in_model_space().train_stream[0], eval_streams=[])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize("what", range(4), ids=["FID", "KID", "KLD", "CAS"])
@pytest.mark.parametrize("change", [lambda x: 2 * x, lambda x: x * torch.nan])
def test_images_outside_of_model_space_are_refused_before_training(what, change):
    data = as_dataset(change(images(40)), torch.arange(40) % 4)
    strategy = training_of(images, of_images()[what])
    with pytest.raises(ValueError, match=r"images must be .*in model space, \[-1, 1\]"):
        train_once(strategy, data)
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize("what", ["oracle", "KLD", "CAS"])
def test_marks_for_no_label_are_refused_before_training(what):
    data = as_dataset(images(40), torch.arange(40) % 4 - 1)
    metrics = {
        "oracle": lambda: fid_metrics(sampling=SAMPLING),
        "KLD": lambda: of_images()[2],
        "CAS": lambda: of_images()[3],
    }
    strategy = strategy_with(metrics[what]())
    with pytest.raises(ValueError, match="a class is -1, but classes are numbered from 0"):
        strategy.train(
            as_benchmark(train=[data], test=[data]).train_stream, eval_streams=[]
        )
    assert strategy.clock.train_iterations == 0


SUMMARY = ("FID_Final", "FID_Mean", "FID_Forgetting", "AFID", "F", "FID_BackwardTransfer")


def summarized(**options):
    options |= dict(features=Pixels(), oracle=FirstPixels(), sampling=SAMPLING)
    return [
        *fid_metrics(experience=True, stream=False, summary=True, afid=True, **options),
        *fid_transfer_metrics(**options),
    ]


def summary_in(values):
    return {
        name: values[f"{name}/eval_phase/test_stream"]
        for name in SUMMARY
        if f"{name}/eval_phase/test_stream" in values
    }


def test_a_summary_is_of_all_experiences_or_not_there():
    benchmark = classes_in_model_space()
    parted, whole = strategy_with(*summarized()), strategy_with(*summarized())
    whole.model.load_state_dict(parted.model.state_dict())
    for strategy in (parted, whole):
        for index in range(3):
            torch.manual_seed(index)
            strategy.train(benchmark.train_stream[index], eval_streams=[])
            strategy.eval(benchmark.test_stream)
    expected = summary_in(whole.eval(benchmark.test_stream))
    assert set(expected) == set(SUMMARY)
    for strategy in (parted, whole):
        strategy.train(benchmark.train_stream[3], eval_streams=[])
    with pytest.warns(UserWarning, match="experiences that were trained on are not evalu"):
        assert not summary_in(parted.eval(benchmark.test_stream[3]))
    for index in (0, 1):
        assert not summary_in(parted.eval(benchmark.test_stream[index]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*are not evaluated")
        values = summary_in(parted.eval(benchmark.test_stream[2]))  # the last one
    assert set(values) == set(SUMMARY)


def test_fid_of_a_model_before_further_training_is_in_no_summary():
    benchmark = classes_in_model_space()
    strategy = strategy_with(*summarized())
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    strategy.eval(benchmark.test_stream)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    strategy.eval(benchmark.test_stream)
    strategy.train(benchmark.train_stream[1], eval_streams=[])  # the same, further
    assert not summary_in(strategy.eval(benchmark.test_stream[1]))
    values = strategy.eval(benchmark.test_stream[0])
    name = "FID_Exp/eval_phase/test_stream/Exp00{}"
    parts = [values[name.format(place)] for place in (0, 1)]
    assert summary_in(values)["AFID"] == pytest.approx(sum(parts) / 2)


def test_fid_of_a_model_with_other_weights_is_in_no_summary():
    benchmark = classes_in_model_space()
    strategy = strategy_with(*summarized())
    for experience in benchmark.train_stream[:2]:
        strategy.train(experience, eval_streams=[])
    strategy.eval(benchmark.test_stream[0])
    strategy.model.load_state_dict(tiny().state_dict())
    with pytest.warns(UserWarning, match="experiences that were trained on are not evalu"):
        assert not summary_in(strategy.eval(benchmark.test_stream[1]))
    assert "FID_Final" in summary_in(strategy.eval(benchmark.test_stream[0]))


def test_a_part_of_a_stream_without_a_known_end_is_no_whole():
    benchmark = classes_in_model_space()
    strategy = strategy_with(*summarized()[:1])
    tests = make_stream("test", (one for one in benchmark.test_stream))
    first, second = (one for _, one in zip(range(2), tests, strict=False))
    for index, experience in enumerate(benchmark.train_stream[:2]):
        strategy.train(experience, eval_streams=[])
        values = strategy.eval([first, second])
        assert values["FID_Final/eval_phase/test_stream"] > 0, index
    strategy.train(benchmark.train_stream[2], eval_streams=[])
    with pytest.warns(UserWarning, match="experiences that were trained on are not evalu"):
        assert not summary_in(strategy.eval([second]))
    assert "FID_Final" in summary_in(strategy.eval([first]))


def test_where_a_part_was_measured_is_not_in_the_mean():
    benchmark = classes_in_model_space()
    strategy, means = strategy_with(*summarized()), []
    for index, streams in enumerate([slice(4), slice(1, 2), slice(4)]):
        strategy.train(benchmark.train_stream[index], eval_streams=[])
        values = summary_in(strategy.eval(benchmark.test_stream[streams]))
        means.append(values.get("FID_Final"))
    assert means[1] is None
    assert values["FID_Mean"] == pytest.approx((means[0] + means[2]) / 2)


def test_what_has_no_new_value_is_not_among_the_last_results():
    benchmark = by_class(task_labels=False)
    strategy = strategy_with(*of_images(), *summarized())
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    of_training = strategy.eval(benchmark.train_stream)
    before = strategy.eval(benchmark.test_stream)
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    values = strategy.eval(benchmark.test_stream[1])
    stale = [name for name, value in values.items() if before.get(name) is value]
    of_others = {"Exp000", "train_stream"}  # which nobody measured anew
    assert all(of_others & set(name.split("/")) for name in stale)
    assert of_training.keys() <= values.keys()
    assert FID not in values and FID in before


def test_nothing_to_evaluate_and_empty_experiences_are_no_part():
    parts = [as_dataset(images(20), torch.full((20,), c)) for c in range(3)]
    tests = [parts[0], parts[1].subset([]), parts[2]]
    benchmark = benchmark_from_datasets(train=parts, test=tests)
    strategy = strategy_with(*summarized()[:1])
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
    values = strategy.eval([benchmark.test_stream[0], benchmark.test_stream[2]])
    assert {"FID_Final", "AFID"} <= set(summary_in(values))
    with pytest.warns(UserWarning, match="no evaluated experience was trained on yet"):
        strategy.eval([])


def test_batches_without_images_count_nothing():
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    none, some = Moments.of(features[:0]), Moments.of(features)
    for both in (none + some, some + none, none + none + some):
        assert frechet_distance(both, features) == frechet_distance(some, features)
    assert (none + none).count == 0


def test_a_large_mean_of_features_costs_no_digits():
    generator = torch.Generator().manual_seed(0)
    real, made = (
        1e6 + 1e-2 * torch.randn(200, 6, generator=generator, dtype=torch.double)
        for _ in range(2)
    )
    kept = Moments.of(real[:70]) + Moments.of(real[70:71]) + Moments.of(real[71:])
    expected = plain_fid((real - 1e6).numpy(), (made - 1e6).numpy())
    assert frechet_distance(kept, made) == pytest.approx(expected, rel=1e-5)


def larger():
    return DiffusionModel(TinyDenoiser(), ddim_scheduler(), (1, 16, 16))


RECOVERY = {
    "another shape": (larger, {}, "(1, 16, 16)"),
    "no sequence": (tiny, dict(within=0.1), "within must be a list"),
    "no diffusion model": (lambda: Given(images), {}, "Given"),
}


@pytest.mark.parametrize("name", RECOVERY)
def test_recovery_is_refused_before_an_oracle_is_trained(name, monkeypatch):
    make, options, message = RECOVERY[name]
    monkeypatch.setattr(
        "avalanche_gd.metrics.shared_images.oracle_classifier", lambda *_: pytest.fail()
    )
    with pytest.raises((ValueError, TypeError)) as error:
        recovery_steps(make(), classes_in_model_space(), 0, 1.0, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
