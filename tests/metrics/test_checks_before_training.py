"""What metrics of generated images refuse before a step is trained."""

import warnings
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.utils.data import TensorDataset

from avalanche_gd import DiffusionModel, SmallCNN, ddim_scheduler
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    Sampling,
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    generated_image_metrics,
    kid_metrics,
    recovery_steps,
)
from tests.helpers.small_models import SHAPE, TinyDenoiser, images, tiny
from tests.helpers.small_streams import (
    FEW_CLASSES,
    SAMPLING,
    FirstPixels,
    Pixels,
    strategy_with,
)
from tests.helpers.stream_builders import by_class

IN_PIXELS = dict(features=Pixels(), sampling=SAMPLING)
LABELLED = dict(classifier=FirstPixels(), sampling=SAMPLING)


def one_experience(count=20, shape=SHAPE, classes=FEW_CLASSES):
    """A benchmark of an experience of random images."""
    dataset = as_dataset(images(count, shape), torch.arange(count) % classes)
    return as_benchmark(train=[dataset], test=[dataset])


def assert_refused(strategy, experience, message, error=ValueError):
    """In one line, before a step is trained."""
    with pytest.raises(error, match=message) as refused:
        strategy.train(experience, eval_streams=[])
    assert len(str(refused.value).splitlines()) == 1
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (dict(steps=1001), "sampling steps must be an integer from 1 to 1000, got 1001"),
        (dict(steps=5, eta=0.5, sampler="unipc"), "UniPC.* does not have eta"),
    ],
)
@pytest.mark.parametrize(
    "make", [partial(fid_metrics, features=Pixels()), generated_image_metrics]
)
def test_samplings_that_the_model_cannot_make_are_refused(make, how, message):
    strategy = strategy_with(make(sampling=Sampling(images=100, **how)))
    assert_refused(strategy, one_experience().train_stream, message)


@pytest.mark.parametrize(
    "make",
    [
        class_balance_metrics,
        classification_accuracy_metrics,
        partial(fid_metrics, features=Pixels()),
        generated_image_metrics,
        kid_metrics,
        lambda sampling: recovery_steps(
            tiny(), by_class(2, task_labels=False), 0, 1.0, sampling=sampling
        ),
    ],
)
def test_a_number_is_no_sampling(make):
    with pytest.raises(TypeError, match=r"must be a Sampling, such as .*, got 500"):
        make(sampling=500)


@pytest.mark.parametrize("wrong", [SmallCNN(SHAPE, FEW_CLASSES), "SmallCNN"])
def test_a_module_or_a_name_makes_no_classifiers(wrong):
    with pytest.raises(TypeError, match="make_classifier must be a function or a class"):
        classification_accuracy_metrics(make_classifier=wrong)


def test_features_without_a_hash_are_refused():
    class First:
        number: int = 4

        def __call__(self, x):
            return x.flatten(1)[:, : self.number]

    benchmark, features = one_experience(), dataclass(eq=False)(First)()
    strategy = strategy_with(fid_metrics(features=features, sampling=SAMPLING))
    strategy.train(benchmark.train_stream, eval_streams=[])
    assert strategy.eval(benchmark.test_stream)
    with pytest.raises(TypeError, match=r"hashable, but a First is not; .*eq=False"):
        fid_metrics(features=dataclass(First)())


NEED_LABELS = {
    "class balance": (partial(class_balance_metrics, **LABELLED), "remove class_bal"),
    "CAS": (
        partial(classification_accuracy_metrics, steps=1, **LABELLED),
        "remove classification_accuracy",
    ),
    "FID by experience": (
        partial(fid_metrics, experience=True, oracle=FirstPixels(), **IN_PIXELS),
        "use fid_metrics.. without experience=",
    ),
    "transfer": (
        partial(fid_transfer_metrics, oracle=FirstPixels(), **IN_PIXELS),
        "without experience=",
    ),
}


@pytest.mark.parametrize(("make", "message"), NEED_LABELS.values(), ids=NEED_LABELS)
def test_a_test_stream_without_labels_is_refused_where_labels_count(make, message):
    """Before training if the stream is known, else before it is evaluated."""
    message = f"images of the stream test have no labels; .*{message}"
    labelled = as_dataset(images(20), torch.arange(20) % FEW_CLASSES)
    bare = AvalancheDataset([TensorDataset(images(20))])
    benchmark = benchmark_from_datasets(train=[labelled], test=[bare])
    strategy = strategy_with(make())
    strategy.train(benchmark.train_stream, eval_streams=[])
    with pytest.raises(ValueError, match=message):
        strategy.eval(benchmark.test_stream)
    for stream in benchmark.streams.values():
        stream.benchmark = benchmark
    assert_refused(strategy_with(make()), benchmark.train_stream, message)


@pytest.mark.parametrize("make", [fid_metrics, class_balance_metrics])
def test_an_oracle_needs_images_that_can_be_pooled_twice(make):
    shape = (1, 3, 5)
    model = DiffusionModel(TinyDenoiser(), ddim_scheduler(), shape)
    strategy = strategy_with(make(sampling=SAMPLING), model=model)
    message = "images of 4x4 or more, but those of the stream train are 3x5; give your own"
    assert_refused(strategy, one_experience(shape=shape).train_stream, message)


@pytest.mark.parametrize("make", [fid_metrics, class_balance_metrics])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(shape=(1, 16, 16)),
            r"takes images of shape \(1, 16, 16\), but .*\(1, 8, 8\)",
        ),
        (dict(classes=2), r"does not know the classes \[2, 3\] that are trained on; give"),
    ],
)
def test_an_oracle_of_other_images_or_classes_is_refused(make, options, message):
    other = one_experience(**options)
    strategy = strategy_with(make(benchmark=other, sampling=SAMPLING))
    experience = by_class(2, task_labels=False).train_stream[1]
    assert_refused(strategy, experience, message)


class Plain(nn.Module):
    """A generator such as Avalanche's VAE, whose images have some lowest value."""

    num_classes = FEW_CLASSES  # which does not make it conditioned

    def __init__(self, low=-1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.low, self.asked = low, []

    def forward(self, x):
        return x * self.weight

    def generate(self, count):
        self.asked.append(count)
        return torch.linspace(self.low, 1, count).view(-1, 1, 1, 1).expand(-1, *SHAPE)


def plain_strategy(model, metrics):
    return SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        criterion=lambda output, _: output.mean(),
        evaluator=EvaluationPlugin(metrics),
    )


@pytest.mark.parametrize(
    "make",
    [
        partial(fid_metrics, experience=True, features=Pixels()),
        partial(classification_accuracy_metrics, steps=1),
    ],
)
def test_an_own_generator_with_num_classes_needs_a_classifier_of_enough(make):
    few = SmallCNN(SHAPE, FEW_CLASSES - 1)
    name = "oracle" if make.func is fid_metrics else "classifier"
    strategy = plain_strategy(Plain(), make(sampling=SAMPLING, **{name: few}))
    message = "a logit for each class from 0 to 3, but for images"
    assert_refused(strategy, one_experience().train_stream, message)


@pytest.mark.parametrize("features", ["oracle", Pixels()])
def test_images_outside_of_model_space_are_refused(features):
    dataset = as_dataset(images(20) * 1.5, torch.arange(20) % 2)
    stream = as_benchmark(train=[dataset]).train_stream
    metrics = fid_metrics(features=features, sampling=SAMPLING)
    message = r"in \[-1, 1\]|in model space, \[-1, 1\]; these reach from"
    assert_refused(plain_strategy(Plain(), metrics), stream, message)


def test_generated_images_outside_of_model_space_are_clipped_with_a_warning():
    """They are asked for in one call; rounding is not worth a warning."""
    benchmark, model = one_experience(), Plain(low=-1.0009)
    sampling = Sampling(images=30, batch_size=4)
    strategy = plain_strategy(model, fid_metrics(features=Pixels(), sampling=sampling))
    strategy.train(benchmark.train_stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert strategy.eval(benchmark.test_stream)
    assert set(model.asked) == {30}
    assert strategy._generation.images(model, sampling).min() == -1
    model.low = -1.002
    message = r"images that Plain generates must be in model space.*-1.002 to 1;.* clipped"
    with pytest.warns(UserWarning, match=message):
        strategy.eval(benchmark.test_stream)
    assert strategy._generation.images(model, sampling).min() == -1
