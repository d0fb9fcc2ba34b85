"""The losses and their weights, against plain statements of the formulas."""

import copy

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_gd import (
    DenoisingLoss,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplayPlugin,
)
from avalanche_gd.plugins import Teacher, soft_label_loss
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import note_lessons
from tests.helpers.small_models import SHAPE, conditioned, images
from tests.helpers.small_trainings import fake_strategy, train_generator


def strategy_in_experience(n, student, teacher, current):
    """A strategy in ``before_backward`` of experience n, and its L_cur."""
    strategy = fake_strategy(student, n, mb_x=current, mb_y=torch.zeros(len(current)))
    strategy._criterion = DenoisingLoss()
    strategy.mb_output = student(current)
    strategy.criterion = lambda: strategy._criterion(strategy.mb_output, strategy.mb_y)
    strategy.forward = lambda: student(strategy.mbatch[0])
    strategy.mbatch = [current, strategy.mb_y, strategy.mb_y]
    strategy.loss = strategy.criterion()
    Teacher.of(strategy).begin(strategy)
    if n > 1:
        Teacher.of(strategy).freeze(teacher)
    return strategy, strategy.loss.item()


def other(model):
    """The same model with other weights."""
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def plain_alpha_bar(t):
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[t].reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_distillation(tiny_model, n):
    teacher = other(tiny_model)
    generator = torch.Generator().manual_seed(11)
    plugin = GenerativeDistillationPlugin(2, 1.5, look_ahead=1, generator=generator)
    strategy, current = strategy_in_experience(n, tiny_model, teacher, images(8))
    plugin.before_backward(strategy)
    if n == 1:
        assert strategy.loss.item() == current
        return
    generator = torch.Generator().manual_seed(11)
    x0 = teacher.generate(8, steps=2, generator=generator).numpy()
    t = torch.randint(1000, (8,), generator=generator)
    eps = torch.randn(8, *SHAPE, generator=generator).numpy()
    a = plain_alpha_bar(t.numpy())
    x_t = torch.tensor(np.sqrt(a) * x0 + np.sqrt(1 - a) * eps, dtype=torch.float32)
    with torch.no_grad():
        difference = teacher.denoise(x_t, t) - tiny_model.denoise(x_t, t)
    replay = np.mean(difference.numpy().astype(np.float64) ** 2)
    expected = current / n + (1 - 1 / n) * 1.5 * replay
    assert abs(strategy.loss.item() - expected) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 5])
def test_generative_replay(tiny_model, n):
    teacher = other(tiny_model)
    generator = torch.Generator().manual_seed(11)
    plugin = GenerativeReplayPlugin(
        teacher_steps=2, lambd=0.7, look_ahead=1, generator=generator
    )
    strategy, current = strategy_in_experience(n, tiny_model, teacher, images(8))
    plugin.before_training(strategy)
    plugin.old_generator = Teacher.of(strategy).model
    plugin.before_backward(strategy)
    if n == 1:
        assert strategy.loss.item() == current
        return
    generator.manual_seed(11)
    x0 = teacher.generate(8, steps=2, generator=generator)
    t = torch.randint(1000, (8,), generator=generator)
    eps = torch.randn(8, *SHAPE, generator=generator)
    a = plain_alpha_bar(t.numpy())
    x_t = np.sqrt(a) * x0.numpy() + np.sqrt(1 - a) * eps.numpy()
    with torch.no_grad():
        prediction = tiny_model.denoise(torch.tensor(x_t, dtype=torch.float32), t)
    replay = np.mean((prediction - eps).numpy().astype(np.float64) ** 2)
    expected = current / n + (1 - 1 / n) * 0.7 * replay
    assert abs(strategy.loss.item() - expected) < 1e-6


@pytest.mark.parametrize("n", [1, 2, 5])
def test_constant_weights_are_1_and_lambda_in_every_experience(tiny_model, n, monkeypatch):
    """For all that replay: distillation, a generator's replay, and a solver's."""
    distillation = GenerativeDistillationPlugin(2, 0.5, weighting="constant")
    replay = GenerativeReplayPlugin(lambd=0.5, weighting="constant")
    solver = SoftGenerativeReplayPlugin(
        fake_strategy(tiny_model), lambd=0.5, weighting="constant"
    )
    monkeypatch.setattr(distillation.lesson, "loss", lambda *_: torch.tensor(3.0))
    monkeypatch.setattr(replay.lesson, "loss", lambda *_: torch.tensor(3.0))
    monkeypatch.setattr(solver, "generate", lambda *_: (images(8), None))
    monkeypatch.setattr(solver, "replay_loss", lambda *_: torch.tensor(3.0))
    for plugin in (distillation, replay, solver):
        strategy, current = strategy_in_experience(
            n, tiny_model, other(tiny_model), images(8)
        )
        if plugin is not solver:
            plugin.before_training(strategy)
        plugin.before_backward(strategy)
        expected = current + (0.5 * 3 if n > 1 else 0)  # L_cur + lambda L_rep
        assert strategy.loss.item() == pytest.approx(expected, abs=1e-6)


def test_of_two_weightings_the_first_is_that_of_the_current_loss(tiny_model):
    plugins = [
        GenerativeDistillationPlugin(lambd=0.0, weighting=name)
        for name in ("constant", "experiences")
    ]
    for own, weight in ((plugins, 1), (plugins[::-1], 1 / 4)):
        strategy, current = strategy_in_experience(
            4, tiny_model, other(tiny_model), images(8)
        )
        for plugin in own:
            plugin.before_backward(strategy)
        assert strategy.loss.item() == pytest.approx(weight * current, abs=1e-6)


def test_the_current_loss_is_weighted_alone_whatever_another_plugin_added(tiny_model):
    plugin = GenerativeDistillationPlugin(lambd=0.0)
    strategy, current = strategy_in_experience(4, tiny_model, other(tiny_model), images(8))
    strategy.loss = strategy.loss + 10  # a penalty
    plugin.before_backward(strategy)
    assert strategy.loss.item() == pytest.approx(current / 4 + 10, abs=1e-5)


def test_two_plugins_weight_the_current_loss_once(tiny_model):
    plugins = [GenerativeDistillationPlugin(lambd=0.0) for _ in range(2)]
    strategy, current = strategy_in_experience(4, tiny_model, other(tiny_model), images(8))
    for plugin in plugins:
        plugin.before_backward(strategy)
    assert strategy.loss.item() == pytest.approx(current / 4, abs=1e-6)


@pytest.mark.parametrize("beside", [None, 0.5])
@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_the_criterion_gets_the_classes_that_are_taught(digits, ratio, beside):
    model = conditioned(dropout=0.3, seen=())
    plugin = GenerativeDistillationPlugin(replay_ratio=ratio, unconditional_weight=beside)
    lessons, given, own = note_lessons(plugin), [], DenoisingLoss()
    teach = plugin.distillation_loss

    class Criterion(DenoisingLoss):
        teaching = False

        def forward(self, denoising, y=None):
            if self.teaching:
                given.append((denoising.timesteps, y))
            return own(denoising, y)

    def noted(strategy):
        strategy._criterion.teaching = True
        loss = teach(strategy)
        strategy._criterion.teaching = False
        return loss

    plugin.distillation_loss = noted
    train_generator(model, digits.train_stream[:2], plugin, criterion=Criterion())
    taught = [lesson.apart() for lesson in lessons]
    timesteps, classes = (torch.cat(part) for part in zip(*given, strict=True))
    assert len(classes) == 3 * int(16 * ratio) * (1 if beside is None else 2)
    assert torch.equal(timesteps, torch.cat([lesson.timesteps for lesson in taught]))
    assert torch.equal(classes, torch.cat([lesson.condition for lesson in taught]))


def test_the_criterion_gets_no_classes_of_a_model_without_them(tiny_model):
    plugin = GenerativeDistillationPlugin(replay_ratio=0.5)
    strategy, _ = strategy_in_experience(2, tiny_model, other(tiny_model), images(8))
    given, criterion = [], strategy._criterion
    strategy._criterion = lambda denoising, y: given.append(y) or criterion(denoising, y)
    plugin.distillation_loss(strategy)
    assert given == [None]


class Copies(SupervisedPlugin):
    """Copies the batch after its loss was computed."""

    def before_backward(self, strategy, **kwargs):
        strategy.mbatch = [part.clone() for part in strategy.mbatch]


def test_a_copied_batch_is_not_passed_through_the_model_again(digits):
    found = []
    for beside in ([], [Copies()]):
        torch.manual_seed(5)
        model, passed = conditioned(dropout=0.5, seen=()), []
        plugin = GenerativeDistillationPlugin(generator=torch.Generator().manual_seed(1))
        model.denoiser.register_forward_hook(
            lambda module, inputs, out, passed=passed: passed.append(len(inputs[0]))
        )
        train_generator(model, digits.train_stream[:2], *beside, plugin)
        found.append((passed, weights(model)))
    assert found[0][0] == found[1][0] and same_bits(found[0][1], found[1][1])


def test_soft_labels_have_the_old_solver_as_target():
    old, new, temperature = torch.randn(5, 3), torch.randn(5, 3), 2.0
    p = np.exp(old.numpy() / temperature)
    p /= p.sum(axis=1, keepdims=True)
    q = np.exp(new.numpy() / temperature)
    q /= q.sum(axis=1, keepdims=True)
    expected = -(temperature**2) * np.sum(p * np.log(q), axis=1).mean()
    assert abs(soft_label_loss(new, old, temperature).item() - expected) < 1e-6
    swapped = -(temperature**2) * np.sum(q * np.log(p), axis=1).mean()
    assert abs(expected - swapped) > 0.1  # so that the roles matter here


def test_the_solver_learns_the_old_solvers_soft_labels_on_samples(tiny_model):
    new, old = SmallCNN(SHAPE, 4), SmallCNN(SHAPE, 4)
    plugin = SoftGenerativeReplayPlugin(fake_strategy(tiny_model), temperature=2.0)
    plugin.old_model = old
    samples = images(6)
    loss = plugin.replay_loss(fake_strategy(new), samples, None)
    assert torch.equal(loss, soft_label_loss(new(samples), old(samples), 2.0))
    loss.backward()
    assert all(p.grad is not None for p in new.parameters())
    assert all(p.grad is None for p in old.parameters())


def test_hard_labels_are_those_of_the_old_solver(tiny_model):
    new, old = SmallCNN(SHAPE, 4), SmallCNN(SHAPE, 4)
    plugin = GenerativeReplayPlugin(fake_strategy(tiny_model))
    plugin.old_model = old
    samples = images(6)
    strategy = fake_strategy(new, mbatch=["x", "y", "t"], mb_output="output")
    strategy.forward = lambda: new(strategy.mbatch[0])
    strategy.criterion = lambda: nn.functional.cross_entropy(
        strategy.mb_output, strategy.mbatch[1]
    )
    loss = plugin.replay_loss(strategy, samples, None)
    log_probability = new(samples).log_softmax(1).detach().numpy()
    labels = old(samples).detach().numpy().argmax(1)
    assert abs(loss.item() + log_probability[np.arange(6), labels].mean()) < 1e-6
    assert strategy.mbatch == ["x", "y", "t"] and strategy.mb_output == "output"
