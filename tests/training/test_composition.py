"""Our plugins in Avalanche's strategies, Avalanche's plugins in ours."""

import pytest
import torch
from avalanche.training.plugins import EWCPlugin, LRSchedulerPlugin
from avalanche.training.supervised import GenerativeReplay
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DenoisingLoss,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    SmallCNN,
)
from tests.conftest import SHAPE, same_bits, weights


def train_plain(model, stream, *plugins, **options):
    optimizer = options.pop("optimizer", None)
    strategy = SupervisedTemplate(
        model=model,
        optimizer=optimizer or torch.optim.Adam(model.parameters(), 1e-3),
        criterion=DenoisingLoss(),
        train_mb_size=64,
        plugins=list(plugins),
        evaluator=None,
        **options,
    )
    strategy.train(stream, eval_streams=[])
    return strategy


def test_distillation_in_a_plain_template(tiny_model, digits):
    first, second = digits.train_stream[:2]
    plugin = GenerativeDistillationPlugin()
    taught = []
    teach = plugin.distillation_loss
    plugin.distillation_loss = lambda s: taught.append(teach(s)) or taught[-1]
    train_plain(tiny_model, [first, second], plugin)
    assert taught[-1].item() > 0 and taught[-1].isfinite()


def test_distillation_beside_ewc(tiny_model, digits):
    ewc = EWCPlugin(ewc_lambda=1.0)
    train_plain(tiny_model, digits.train_stream[:2], GenerativeDistillationPlugin(), ewc)
    importances = [p.data.sum().item() for p in ewc.importances[0].values()]
    assert all(value > 0 for value in importances)
    assert sorted(ewc.saved_params) == [0, 1]


def test_distillation_beside_a_learning_rate_scheduler(tiny_model, digits):
    optimizer = torch.optim.Adam(tiny_model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train_plain(
        tiny_model,
        digits.train_stream[:2],
        GenerativeDistillationPlugin(),
        LRSchedulerPlugin(scheduler, reset_scheduler=False, reset_lr=False),
        optimizer=optimizer,
        train_epochs=2,
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 * 0.5**4)


def test_diffusion_training_as_the_generator_of_avalanches_generative_replay(
    tiny_model, digits
):
    generator = DiffusionTraining(
        model=tiny_model,
        optimizer=torch.optim.Adam(tiny_model.parameters(), 1e-3),
        plugins=[GenerativeDistillationPlugin()],
        train_steps=2,
        evaluator=None,
    )
    solver = SmallCNN(SHAPE, 10)
    strategy = GenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), 1e-3),
        generator_strategy=generator,
        train_mb_size=64,
        evaluator=None,
    )
    before = weights(tiny_model.denoiser)
    strategy.train(digits.train_stream[:2], eval_streams=[])
    assert generator.clock.train_exp_counter == 2
    assert not same_bits(weights(tiny_model.denoiser), before)
    assert strategy.clock.train_exp_counter == 2
