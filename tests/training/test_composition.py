"""Our plugins in Avalanche's strategies, Avalanche's plugins in ours."""

import pytest
import torch
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    ReplayPlugin,
)
from avalanche.training.supervised import GenerativeReplay
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    SmallCNN,
)
from avalanche_gd.plugins.baselines import SynapticIntelligencePlugin
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import note_losses
from tests.helpers.small_models import SHAPE


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
    taught = note_losses(plugin)
    train_plain(tiny_model, [first, second], plugin)
    assert taught[-1].item() > 0 and taught[-1].isfinite()


@pytest.mark.parametrize("num_classes", [None, 10])
@pytest.mark.parametrize("beside", ["experience replay", "EWC", "SI", "A-GEM"])
def test_distillation_beside_another_method_has_both_effects(digits, beside, num_classes):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes)
    distillation = GenerativeDistillationPlugin()
    other = {
        "experience replay": ReplayPlugin(mem_size=64),
        "EWC": EWCPlugin(ewc_lambda=100.0),
        "SI": SynapticIntelligencePlugin(si_lambda=100.0),
        "A-GEM": AGEMPlugin(patterns_per_experience=64, sample_size=32),
    }[beside]
    taught, penalties, sizes = note_losses(distillation), [], []
    penalise = other.before_backward

    def noting(strategy, **kwargs):
        loss = strategy.loss.item()
        penalise(strategy, **kwargs)
        penalties.append(strategy.loss.item() - loss)
        sizes.append(len(strategy.mb_x))

    other.before_backward = noting
    train_plain(model, digits.train_stream[:2], distillation, other)
    assert taught[0].item() < 1e-12 < taught[-1].item()
    if beside == "experience replay":
        assert max(sizes) == 128
    elif beside == "A-GEM":
        assert other.reference_gradients.abs().sum() > 0
    else:
        assert max(penalties) > 1e-6


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
