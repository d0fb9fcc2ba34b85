"""The classification accuracy score."""

import random

import numpy as np
import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import nn

from avalanche_gd import SmallCNN
from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import Sampling, classification_accuracy_metrics, generate_images
from avalanche_gd.metrics.classification_accuracy import trained_classifier
from avalanche_gd.models.random_state import seeded
from tests.helpers.seeding import forbid_seeding
from tests.helpers.small_models import SHAPE, conditioned, tiny
from tests.helpers.small_streams import FirstPixels, strategy_with
from tests.helpers.stream_builders import by_class

SAMPLING = Sampling(images=200, steps=2)
CAS = "CAS_Stream/eval_phase/test_stream"


class Remembers(nn.Module):
    """A generator that gives images that it was shown."""

    def __init__(self, images):
        super().__init__()
        self.images = nn.Parameter(images)

    def generate(self, count):
        return self.images[:count].detach()


def score(strategy, digits, experiences):
    """The score after so many experiences, which are noted and not trained on."""
    for experience in digits.train_stream[:experiences]:
        strategy.experience = experience
        strategy.evaluator.metrics[0].before_training_exp(strategy)
    return strategy.eval(digits.test_stream)[CAS]


class Knows(nn.Module):
    """Labels images that it was shown, turned to other classes by ``turn``."""

    def __init__(self, images, labels, turn=0):
        super().__init__()
        self.images, self.labels, self.turn = images.flatten(1), labels, turn

    def forward(self, x):
        place = torch.cdist(x.flatten(1), self.images).argmin(1)
        return nn.functional.one_hot((self.labels[place] + self.turn) % 10, 10).float()


class Silent(nn.Module):
    """Evaluates to nothing."""

    def forward(self, output, labels):
        return torch.zeros(())


def strategy_of(model, **options):
    metrics = classification_accuracy_metrics(sampling=Sampling(images=600), **options)
    model.forward = lambda x: x
    return SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        criterion=Silent(),
        evaluator=EvaluationPlugin(metrics),
    )


def test_a_generator_of_real_images_scores_as_the_images_do(digits):
    images, labels = stream_tensors(digits.train_stream)
    order = torch.randperm(len(images))
    images, labels = images[order], labels[order]
    scores = [
        score(
            strategy_of(
                Remembers(images), classifier=Knows(images, labels, turn), steps=150
            ),
            digits,
            5,
        )
        for turn in (0, 1)
    ]
    assert scores[0] > 0.9
    assert scores[1] < 0.05  # all samples have a wrong label


def test_the_score_is_that_of_a_classifier_of_the_samples(digits):
    model = tiny()
    labeller = SmallCNN(SHAPE, 10)
    metrics = classification_accuracy_metrics(
        classifier=labeller, sampling=SAMPLING, steps=5, seed=2
    )
    strategy = strategy_with(metrics, model=model)
    strategy.train(digits.train_stream[:2], eval_streams=[])
    value = strategy.eval(digits.test_stream)[CAS]
    images = generate_images(model, SAMPLING)
    real, true = stream_tensors(digits.test_stream[:2])
    with torch.no_grad():
        labels = labeller(images).argmax(1)
        classifier = trained_classifier(SmallCNN, images, labels, steps=5, seed=2)
        expected = (classifier(real).argmax(1) == true).float().mean()
    assert value == pytest.approx(expected.item())


def test_a_conditioned_model_needs_no_labeller(digits):
    model = conditioned(seen=())
    metrics = classification_accuracy_metrics(sampling=SAMPLING, steps=3)
    strategy = strategy_with(metrics, model=model)
    strategy.train(digits.train_stream[:1], eval_streams=[])
    assert 0 <= strategy.eval(digits.test_stream[:1])[CAS] <= 1
    assert not strategy._generation._oracles


def test_the_training_leaves_all_random_states_alone(monkeypatch):
    images, labels = torch.rand(9, *SHAPE), torch.arange(9)
    state = torch.get_rng_state()
    forbid_seeding(monkeypatch)
    options = dict(steps=2, seed=5)
    one, other = (trained_classifier(SmallCNN, images, labels, **options) for _ in "ab")
    assert torch.equal(one.conv1.weight, other.conv1.weight)
    assert torch.equal(torch.get_rng_state(), state)


class Drawn(SmallCNN):
    """Draws its weights, or images that it drops, from every global random state."""

    def __init__(self, shape, num_classes):
        super().__init__(shape, num_classes)
        with torch.no_grad():
            self.conv1.weight += random.random() + np.random.rand()

    def forward(self, x):
        dropped = random.random() < 0.5 or np.random.rand() < 0.5
        return super().forward(x * (0 if dropped else 1))


def test_the_seed_decides_what_a_maker_draws_from_python_and_numpy(digits):
    images, labels = torch.rand(9, *SHAPE), torch.arange(9)
    states = random.getstate(), np.random.get_state()[1].tolist()
    one = trained_classifier(Drawn, images, labels, steps=2, seed=2**40)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states
    random.random(), np.random.rand()
    other = trained_classifier(Drawn, images, labels, steps=2, seed=2**40)
    assert torch.equal(one.conv1.weight, other.conv1.weight)
    metrics = classification_accuracy_metrics(
        sampling=SAMPLING, steps=1, make_classifier=Drawn, classifier=SmallCNN(SHAPE, 10)
    )
    strategy = strategy_with(metrics)
    strategy.experience = digits.train_stream[0]
    states = random.getstate(), np.random.get_state()[1].tolist()
    metrics[0].before_training_exp(strategy)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


def test_a_labeller_with_too_few_classes_is_refused_before_training(digits):
    metrics = classification_accuracy_metrics(
        classifier=SmallCNN(SHAPE, 9), sampling=SAMPLING
    )
    strategy = strategy_with(metrics)
    with pytest.raises(ValueError, match=r"each class from 0 to 9, .* \(1, 9\)"):
        strategy.train(digits.train_stream[0], eval_streams=[])
    assert strategy.clock.train_iterations == 0


@pytest.mark.parametrize("wrong", [dict(steps=0), dict(steps=2.5), dict(seed=-1)])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be an integer of"):
        classification_accuracy_metrics(**wrong)


def test_the_training_is_seeded_where_the_images_are(monkeypatch):
    """Of which other devices, as dropout draws there."""
    given, module = [], "avalanche_gd.metrics.classification_accuracy"

    def noted(*arguments):
        given.append(arguments)
        return seeded(*arguments)

    monkeypatch.setattr(f"{module}.seeded", noted)
    images = torch.rand(9, *SHAPE)
    trained_classifier(SmallCNN, images, torch.arange(9), steps=1, seed=5)
    assert given == [(5, images.device)]


def test_no_real_images_are_kept_after_an_evaluation_without_a_value():
    benchmark = by_class(2, task_labels=False)
    (metric,) = classification_accuracy_metrics(
        steps=1, classifier=FirstPixels(), sampling=SAMPLING
    )
    strategy = strategy_with([metric])
    strategy.train(benchmark.train_stream, eval_streams=[])
    with pytest.warns(UserWarning, match="have no new value"):
        assert not strategy.eval(benchmark.test_stream[:1])
    assert not metric._real
    assert strategy.eval(benchmark.test_stream) and not metric._real
    metric._real = {None: []}  # as an interrupted evaluation leaves them
    strategy.train(benchmark.train_stream[1], eval_streams=[])
    assert not metric._real
