"""The denoising loss by band of timesteps."""

import itertools

import numpy as np
import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DenoisingLoss,
    DiffusionTraining,
    SmallCNN,
    ddim_scheduler,
    denoising_loss_metrics,
    flow_scheduler,
)
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.small_models import SHAPE, tiny

NAME = "DenoisingLoss_Exp/eval_phase/test_stream/Exp001"


def evaluated(model, digits, bands, batch_size, template=DiffusionTraining):
    outputs = []
    model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    strategy = template(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        criterion=DenoisingLoss(),
        eval_mb_size=batch_size,
        evaluator=EvaluationPlugin(denoising_loss_metrics(bands=bands)),
    )
    return strategy.eval(digits.test_stream[1:2]), outputs


@pytest.mark.parametrize("scheduler", [ddim_scheduler, flow_scheduler])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_each_band_has_the_mean_of_its_timesteps(digits, bands, scheduler):
    values, outputs = evaluated(tiny(scheduler()), digits, bands, batch_size=20)
    t = torch.cat([o.timesteps for o in outputs]).numpy()
    error = torch.cat([(o.prediction - o.target) ** 2 for o in outputs])
    error = error.mean(dim=(1, 2, 3)).numpy()
    edges = np.ceil(np.arange(bands + 1) * 1000 / bands).astype(int)
    assert len(values) == bands
    for low, high in itertools.pairwise(edges):
        expected = error[(t >= low) & (t < high)].mean()
        name = f"{NAME}/T{low:03d}-{high - 1:03d}"
        assert values[name] == pytest.approx(expected, rel=1e-5)


def test_the_timesteps_and_the_noise_are_the_same_in_each_evaluation(digits):
    models = [tiny(), tiny()]
    with torch.no_grad():
        next(models[1].parameters()).add_(0.1)
    drawn = []
    for model in (*models, models[0]):
        torch.rand(7)  # the random state is another each time
        values, outputs = evaluated(model, digits, 4, batch_size=20)
        drawn.append((values, [(o.timesteps, o.target) for o in outputs]))
    assert drawn[0][0] == drawn[2][0] != drawn[1][0]
    for first, second in zip(drawn[0][1], drawn[1][1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_avalanches_own_template_draws_them_anew(digits):
    model = tiny()
    options = dict(bands=1, batch_size=20, template=SupervisedTemplate)
    first, second = (evaluated(model, digits, **options)[0] for _ in range(2))
    assert first.keys() == second.keys() and first != second


@pytest.mark.parametrize("bands", [0, 2.5, True])
def test_no_number_of_bands_is_refused(bands):
    with pytest.raises(ValueError, match="bands must be an integer of 1 or more, got"):
        denoising_loss_metrics(bands=bands)


def test_more_bands_than_timesteps_are_refused_before_training(digits):
    model = tiny(flow_scheduler(num_train_timesteps=10))
    assert len(evaluated(model, digits, bands=10, batch_size=20)[0]) == 10
    message = "bands must be an integer from 1 to 10, got 11"
    with pytest.raises(ValueError, match=message):
        evaluated(model, digits, bands=11, batch_size=20)
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        evaluator=EvaluationPlugin(denoising_loss_metrics(bands=11)),
    )
    with pytest.raises(ValueError, match=message):
        strategy.train(digits.train_stream[:1])
    assert strategy.clock.train_iterations == 0


def test_a_classifier_is_refused(digits):
    solver = SmallCNN(SHAPE, 10)
    strategy = BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        evaluator=EvaluationPlugin(denoising_loss_metrics()),
    )
    message = "needs a strategy that evaluates a DiffusionModel"
    with pytest.raises(TypeError, match=message):
        strategy.eval(digits.test_stream[:1])
    with pytest.raises(TypeError, match=message):
        strategy.train(digits.train_stream[:1], eval_streams=[])
    assert strategy.clock.train_iterations == 0
