"""A solver whose head grows with the classes, as Avalanche's own does."""

import math

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import IncrementalClassifier
from torch import nn

from avalanche_gd import (
    ClassifierGuidance,
    GenerativeReplayPlugin,
    SoftGenerativeReplayPlugin,
)
from avalanche_gd.plugins import EMAPlugin, soft_label_loss
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import tiny
from tests.helpers.small_trainings import train_generator


class Growing(nn.Module):
    """Pixels, and a head that has a unit more for each class up to the highest."""

    def __init__(self, masking):
        super().__init__()
        self.head = IncrementalClassifier(64, 2, masking=masking)

    def forward(self, x):
        return self.head(x.flatten(1))


class Noted(SupervisedPlugin):
    """Notes the solver at the end of experiences, and the old one in each step."""

    def __init__(self, replay):
        super().__init__()
        self.replay, self.ends, self.old, self.losses = replay, [], [], []

    def before_forward(self, strategy, **kwargs):
        if self.replay.old_model is not None:
            self.old.append(weights(self.replay.old_model))

    def after_training_iteration(self, strategy, **kwargs):
        self.losses.append(strategy.loss.item())

    def after_training_exp(self, strategy, **kwargs):
        self.ends.append(weights(strategy.model))


def trained(stream, solver, **options):
    kind = options.pop("kind", SoftGenerativeReplayPlugin)
    replay = kind(train_generator(tiny(), [], train_steps=1), **options)
    noted = Noted(replay)
    BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        criterion=nn.CrossEntropyLoss(),
        plugins=[noted, replay],
        train_steps=2,
        train_mb_size=16,
        evaluator=None,
    ).train(stream, eval_streams=[])
    return replay, noted


@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize("kind", [GenerativeReplayPlugin, SoftGenerativeReplayPlugin])
def test_the_old_solver_is_from_before_the_head_grew(digits, kind, masking):
    _, noted = trained(digits.train_stream[:3], Growing(masking), kind=kind)
    assert len(noted.old) == 4 and np.isfinite(noted.losses).all()
    for old, end in zip(noted.old, [noted.ends[i] for i in (0, 0, 1, 1)], strict=True):
        assert same_bits(old, end)


def test_a_guiding_solver_is_from_before_the_head_grew(digits):
    guidance = ClassifierGuidance()
    _, noted = trained(digits.train_stream[:2], Growing(True), guidance=guidance)
    assert same_bits(weights(guidance.classifier), noted.ends[0])
    guidance = ClassifierGuidance(towards="confused")
    solver = Growing(True)
    trained(digits.train_stream[:2], solver, guidance=guidance)
    shapes = [one.head.classifier.weight.shape for one in (guidance.classifier, solver)]
    assert shapes[0] == shapes[1]


def test_soft_labels_are_0_for_classes_that_the_old_solver_has_no_logit_of():
    old, new, temperature = torch.randn(5, 3), torch.randn(5, 7), 2.0
    p = np.exp(old.numpy() / temperature)
    p /= p.sum(axis=1, keepdims=True)
    q = np.exp(new.numpy() / temperature)
    q /= q.sum(axis=1, keepdims=True)
    expected = -(temperature**2) * np.sum(p * np.log(q[:, :3]), axis=1).mean()
    assert abs(soft_label_loss(new, old, temperature).item() - expected) < 1e-6
    with pytest.raises(ValueError, match="the old solver has 7 logits, but the new one 3"):
        soft_label_loss(old, new, temperature)
    for wrong in (0, -2.0, math.nan):
        with pytest.raises(ValueError, match=r"^temperature must be .*above 0"):
            soft_label_loss(new, old, wrong)


class Steps(SupervisedPlugin):
    """Notes the head before and after each step, and interrupts the training once."""

    def __init__(self, at):
        super().__init__()
        self.at, self.starts, self.ends = at, [], []

    def head(self, strategy):
        return strategy.model.head.classifier.weight.detach().clone()

    def before_training_iteration(self, strategy, **kwargs):
        if len(self.ends) == self.at:
            self.at = None
            raise KeyboardInterrupt
        self.starts.append(self.head(strategy))

    def after_training_iteration(self, strategy, **kwargs):
        self.ends.append(self.head(strategy))


class Replaced(Growing):
    """Has a new head when more classes come."""

    def __init__(self, masking):
        super().__init__(masking)
        self.head.adaptation = self.replace

    def replace(self, experience):
        units = max(experience.classes_in_this_experience) + 1
        if units > self.head.classifier.out_features:
            self.head.classifier = nn.Linear(64, units)


@pytest.mark.parametrize("at", [3, 5])  # before its first step, and after two
@pytest.mark.parametrize("kind", [Growing, Replaced])
def test_an_average_begins_anew_after_an_interruption(digits, kind, at):
    steps, model = Steps(at), kind(masking=False)
    strategy = BudgetedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        criterion=nn.CrossEntropyLoss(),
        plugins=[EMAPlugin(0.9), steps],
        train_steps=3,
        train_mb_size=16,
        evaluator=None,
    )
    stream = sorted(digits.train_stream, key=lambda e: max(e.classes_in_this_experience))
    strategy.train(stream[0], eval_streams=[])
    with pytest.raises(KeyboardInterrupt):
        strategy.train(stream[1], eval_streams=[])
    strategy.train(stream[4], eval_streams=[])
    assert len(steps.ends) == at + 3 and len(steps.ends[-1]) == 10
    average = steps.ends[-3]
    for i, after in enumerate(steps.ends[-2:], 2):
        average = average.lerp(after, 1 - min(0.9, i / (9 + i)))
    assert (model.head.classifier.weight - average).abs().max() < 1e-6
    assert (steps.ends[-1] - average).abs().max() > 1e-4
