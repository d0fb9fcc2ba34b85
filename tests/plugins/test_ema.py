"""The moving average of the weights."""

import pytest
import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd import DiffusionModel, GenerativeDistillationPlugin
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import note_losses
from tests.helpers.small_trainings import train_generator


def test_an_experience_ends_with_the_average_of_its_weights(tiny_model, digits):
    history, at_the_end = [], []

    class History(SupervisedPlugin):
        def before_training_exp(self, strategy, **kwargs):
            history.append(tiny_model.denoiser.convolution.weight.detach().clone())

        def after_training_iteration(self, strategy, **kwargs):
            history.append(tiny_model.denoiser.convolution.weight.detach().clone())

        def after_training_exp(self, strategy, **kwargs):
            at_the_end.append(tiny_model.denoiser.convolution.weight.detach().clone())

    train_generator(
        tiny_model, digits.train_stream[:1], History(), train_steps=12, ema_decay=0.5
    )
    average = history[0]
    for i, weight in enumerate(history[1:]):
        decay = min(0.5, (1 + i) / (10 + i)) if i else 0.0
        average = decay * average + (1 - decay) * weight
    assert (at_the_end[0] - average).abs().max() < 1e-6
    assert (at_the_end[0] - history[-1]).abs().max() > 1e-4
    assert torch.equal(tiny_model.denoiser.convolution.weight, at_the_end[0])


def test_the_average_is_the_next_teacher(tiny_model, digits):
    plugin = GenerativeDistillationPlugin()
    losses = note_losses(plugin)
    train_generator(tiny_model, digits.train_stream[:2], plugin, ema_decay=0.9)
    assert losses[0].item() < 1e-12 < losses[1].item()


def test_an_evaluation_in_between_is_of_the_average_and_changes_nothing(digits):
    trained, evaluated = [], []
    for eval_every in (-1, 1):
        torch.manual_seed(0)
        model = DiffusionModel.from_preset("digits")

        class Evaluated(SupervisedPlugin):
            def before_eval_forward(self, strategy, **kwargs):
                evaluated.append(weights(strategy.model))

        raw = []

        class Raw(SupervisedPlugin):
            def after_training_iteration(self, strategy, **kwargs):
                raw.append(weights(strategy.model))  # noqa: B023

        strategy = train_generator(
            model, [], Evaluated(), Raw(), train_steps=None, train_epochs=2,
            train_mb_size=64, ema_decay=0.9, eval_every=eval_every,
        )  # fmt: skip
        strategy.train(digits.train_stream[0], eval_streams=[digits.test_stream[:1]])
        trained.append(weights(model))
    assert same_bits(*trained)
    assert not any(same_bits(evaluated[0], one) for one in raw)


@pytest.mark.parametrize("decay", [1.0, -0.1, 2])
def test_a_decay_out_of_range_is_refused(tiny_model, digits, decay):
    with pytest.raises(ValueError, match=r"EMA must be in \[0, 1\)"):
        train_generator(tiny_model, digits.train_stream[:1], ema_decay=decay)
