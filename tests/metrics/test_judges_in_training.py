"""Modules that judge generated images while they are trained elsewhere, as a solver is."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from avalanche_gd.data import stream_tensors
from avalanche_gd.metrics import (
    class_balance_metrics,
    classification_accuracy_metrics,
    fid_metrics,
    fid_transfer_metrics,
    generate_images,
    kid_metrics,
)
from avalanche_gd.models.evaluation_mode import in_evaluation_mode
from tests.helpers.bits import same_bits, weights
from tests.helpers.plain_fid import plain_fid
from tests.helpers.small_streams import FEW_CLASSES, FID, SAMPLING, strategy_with
from tests.helpers.stream_builders import classes_in_model_space


class Solver(nn.Module):
    """Has batch normalization and dropout, which training mode changes."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 8))
        self.head = nn.Sequential(
            nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, FEW_CLASSES)
        )

    def get_features(self, x):
        return self.hidden(x)

    def forward(self, x):
        return self.head(self.hidden(x))


def learn(solver, experience):
    """A step of a solver, which is left in training mode."""
    solver.train()
    images, labels = stream_tensors([experience])
    optimizer = torch.optim.Adam(solver.parameters(), 0.1)
    F.cross_entropy(solver(images), labels).backward()
    optimizer.step()


def judged_by(solver):
    sampling, both = dict(sampling=SAMPLING), dict(oracle=solver, sampling=SAMPLING)
    return {
        "oracle": fid_metrics(experience=True, **both),
        "features": fid_metrics(features=solver, **both),
        "method": fid_metrics(features=solver.get_features, **both),
        "transfer": fid_transfer_metrics(features=solver, **both),
        "kid": kid_metrics(subsets=2, subset_size=10, features=solver, **both),
        "balance": class_balance_metrics(classifier=solver, **sampling),
        "accuracy": classification_accuracy_metrics(classifier=solver, steps=1, **sampling),
    }


@pytest.mark.parametrize("name", judged_by(Solver()))
def test_judging_changes_neither_a_module_in_training_nor_its_modes(name):
    benchmark, solver = classes_in_model_space(), Solver()
    strategy = strategy_with(judged_by(solver)[name])
    solver.train()
    solver.hidden[1].eval()  # a part that its owner has frozen
    solver.hidden[1].running_mean.fill_(0.3)
    modes = [part.training for part in solver.modules()]
    before = weights(solver)
    strategy.train(benchmark.train_stream[:2], eval_streams=[])
    values = strategy.eval(benchmark.test_stream)
    assert same_bits(weights(solver), before)
    assert [part.training for part in solver.modules()] == modes
    solver.eval()  # so that it would judge in the same way
    assert strategy.eval(benchmark.test_stream) == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize("name", ["features", "method", "oracle"])
def test_real_images_are_in_the_features_of_the_module_as_it_is_now(name):
    benchmark, solver = classes_in_model_space(), Solver()
    strategy = strategy_with(judged_by(solver)[name])
    for place, experience in enumerate(benchmark.train_stream[:2], 1):
        strategy.train(experience, eval_streams=[])
        strategy.eval(benchmark.test_stream)
        learn(solver, experience)
        value = strategy.eval(benchmark.test_stream)[FID]
        real, _ = stream_tensors(benchmark.test_stream[:place])
        sides = real, generate_images(strategy.model, SAMPLING)
        function = solver if name == "features" else solver.get_features
        with torch.no_grad(), in_evaluation_mode(solver):
            expected = plain_fid(*(function(side).numpy() for side in sides))
        assert value == pytest.approx(expected, rel=1e-3)


def test_a_module_that_is_not_trained_sees_real_images_once():
    benchmark, solver, seen = classes_in_model_space(), Solver(), []
    solver.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    strategy = strategy_with(fid_metrics(features=solver, sampling=SAMPLING))
    strategy.train(benchmark.train_stream[0], eval_streams=[])
    seen.clear()
    for _ in range(2):
        strategy.eval(benchmark.test_stream)
    assert sum(seen) == len(benchmark.test_stream[0].dataset) + 2 * SAMPLING.images


@pytest.mark.parametrize("name", judged_by(Solver()))
def test_a_module_that_is_given_to_a_metric_stays_in_training(name):
    solver = Solver().train()
    judged_by(solver)[name]
    assert all(part.training for part in solver.modules())
