"""The classifier that judges: trained on the training stream, on a benchmark, or given."""

from itertools import islice

import pytest
import torch
from avalanche import benchmarks as builders
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from torch import nn
from torchvision.transforms import RandomHorizontalFlip

from avalanche_gd import SmallCNN, oracle_classifier, to_model_space
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    generate_images,
    kid_metrics,
    recovery_steps,
)
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_models import SHAPE, images, tiny
from tests.helpers.small_streams import (
    FEW_CLASSES,
    FID,
    SAMPLING,
    domain,
    domain_incremental,
    strategy_with,
)
from tests.helpers.stream_builders import (
    by_class,
    class_incremental,
    classes_in_model_space,
    new_instances,
    of_a_generator,
    of_pixels,
    online,
    validated,
    validation_of_ours,
)


@pytest.mark.parametrize(
    "build",
    [validated, validation_of_ours, online, class_incremental, new_instances],
)
def test_the_oracle_is_trained_on_the_whole_training_stream(build, tmp_path):
    train, test, counting = build(tmp_path)
    strategy = strategy_with(
        fid_metrics(sampling=SAMPLING), class_balance_metrics(sampling=SAMPLING)
    )
    strategy.train(train, eval_streams=[])
    values = strategy.eval(test)
    first = getattr(train[0], "origin_experience", train[0])
    oracle = oracle_classifier(*stream_tensors(first.origin_stream))
    real, labels = stream_tensors(e for e in test if e.current_experience in counting)
    generated = generate_images(strategy.model, SAMPLING)
    with torch.no_grad():
        features = [oracle.get_features(x).numpy() for x in (real, generated)]
        q = torch.bincount(oracle(generated).argmax(1), minlength=FEW_CLASSES) / 30
    name = f"eval_phase/{next(iter(test)).origin_stream.name}_stream"
    assert values[f"FID_Stream/{name}"] == pytest.approx(plain_fid(*features), rel=1e-3)
    p = torch.bincount(labels, minlength=FEW_CLASSES) / len(labels)
    assert values[f"ARD_Stream/{name}"] == pytest.approx(
        float((p - q).abs().sum() / 2), abs=1e-6
    )


def test_transforms_of_training_change_neither_the_oracle_nor_the_random_state():
    plain = classes_in_model_space()
    flip = RandomHorizontalFlip(), None
    changing = [
        experience.dataset.replace_current_transform_group(flip)
        for experience in plain.train_stream
    ]
    tests = [experience.dataset for experience in plain.test_stream]
    benchmark = builders.benchmark_from_datasets(train=changing, test=tests)
    strategy = strategy_with(
        fid_metrics(sampling=SAMPLING),
        class_balance_metrics(sampling=SAMPLING),
        classification_accuracy_metrics(sampling=SAMPLING, steps=1),
    )
    strategy.experience = benchmark.train_stream[0]
    state = torch.get_rng_state()
    for metric in strategy.evaluator.metrics:
        metric.before_training_exp(strategy)
    assert torch.equal(torch.get_rng_state(), state)
    values = strategy.eval(benchmark.test_stream)
    oracle = oracle_classifier(*stream_tensors(plain.train_stream))
    real, _ = stream_tensors(plain.test_stream[:1])
    generated = generate_images(strategy.model, SAMPLING)
    with torch.no_grad():
        features = [oracle.get_features(x).numpy() for x in (real, generated)]
    assert values[FID] == pytest.approx(plain_fid(*features), rel=1e-3)


def test_the_oracle_can_be_given_or_trained_on_another_benchmark():
    ours = to_model_space(domain_incremental(), SHAPE)
    stream = of_a_generator()  # of which no oracle can be trained
    trained = oracle_classifier(*stream_tensors(ours.train_stream))
    values = []
    for choice in (dict(oracle=trained), dict(benchmark=ours)):
        balance = dict(choice)
        if "oracle" in balance:
            balance["classifier"] = balance.pop("oracle")
        torch.manual_seed(0)
        strategy = strategy_with(
            fid_metrics(sampling=SAMPLING, **choice),
            class_balance_metrics(sampling=SAMPLING, **balance),
        )
        strategy.train(list(islice(stream, 1)), eval_streams=[])
        values.append(strategy.eval(domain_incremental_again().test_stream))
    assert values[0] == pytest.approx(values[1], nan_ok=True)
    assert FID in values[0]


def domain_incremental_again():
    torch.manual_seed(1)
    return domain_incremental()


def test_an_oracle_that_does_not_know_what_is_evaluated_is_refused():
    others = as_dataset(images(20), torch.arange(20) % 2 + FEW_CLASSES)
    strategy = strategy_with(fid_metrics(sampling=SAMPLING))
    for part in (domain(0), others):  # each in a stream of its own
        benchmark = builders.benchmark_from_datasets(train=[part])
        strategy.train(benchmark.train_stream, eval_streams=[])
    together = as_dataset(images(24), torch.arange(24) % (FEW_CLASSES + 2))
    benchmark = builders.benchmark_from_datasets(test=[together])
    with pytest.raises(ValueError, match=r"does not know the classes \[4, 5\]"):
        strategy.eval(benchmark.test_stream)


NUMBERED_ANEW = dict(class_ids_from_zero_in_each_exp=True)


@pytest.mark.parametrize("metrics", [fid_metrics, class_balance_metrics])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(oracle=SmallCNN(SHAPE, 2), benchmark=1), ValueError, "not both"),
        (dict(oracle=3), TypeError, "oracle|classifier must be a module"),
        (dict(benchmark=3), TypeError, "must have a train_stream"),
        (dict(benchmark=CLScenario([])), TypeError, "must have a train_stream"),
        (dict(benchmark=of_pixels().benchmark), ValueError, "with to_model_space"),
        (
            dict(benchmark=by_class(2, task_labels=True, **NUMBERED_ANEW)),
            ValueError,
            "experiences give other classes the same numbers",
        ),
    ],
)
def test_oracles_of_the_wrong_kind_are_refused(metrics, options, error, message):
    if metrics is class_balance_metrics and "oracle" in options:
        options = {"classifier": options["oracle"], **options}
        del options["oracle"]
    with pytest.raises(error, match=message):
        metrics(**options)


def test_an_oracle_without_features_is_refused():
    with pytest.raises(TypeError, match="no get_features"):
        fid_metrics(oracle=nn.Linear(2, 2))


@pytest.mark.parametrize(
    "metrics", [class_balance_metrics, classification_accuracy_metrics]
)
def test_a_classifier_with_too_few_classes_is_refused_before_training(digits, metrics):
    strategy = strategy_with(metrics(classifier=SmallCNN(SHAPE, 2), sampling=SAMPLING))
    with pytest.raises(ValueError, match="for each class from 0 to 9, but for images"):
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert strategy.clock.train_iterations == 0


def test_an_oracle_and_a_new_classifier_judge_images_of_float64():
    def precise(stream):
        tensors = (stream_tensors([experience]) for experience in stream)
        return [as_dataset(part.double(), labels) for part, labels in tensors]

    own = by_class(2, task_labels=False)
    benchmark = as_benchmark(train=precise(own.train_stream), test=precise(own.test_stream))
    model = tiny().double()
    strategy = strategy_with(
        fid_metrics(experience=True, sampling=SAMPLING),
        fid_transfer_metrics(sampling=SAMPLING),
        kid_metrics(subsets=2, subset_size=10, sampling=SAMPLING),
        class_balance_metrics(sampling=SAMPLING),
        classification_accuracy_metrics(steps=1, sampling=SAMPLING),
        model=model,
    )
    strategy.train(benchmark.train_stream, eval_streams=[])
    value = strategy.eval(benchmark.test_stream)[FID]
    oracle = oracle_classifier(*stream_tensors(benchmark.train_stream))
    real, _ = stream_tensors(benchmark.test_stream)
    sides = real.float(), generate_images(model, SAMPLING).float()
    with torch.no_grad():
        expected = plain_fid(*(oracle.get_features(x).numpy() for x in sides))
    assert value == pytest.approx(expected, rel=1e-3)
    assert recovery_steps(model, benchmark, 0, 1e9, sampling=SAMPLING)[0.1] == 0
