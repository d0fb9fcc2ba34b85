"""What the plugins do to a training: teachers, first steps, order, refusals."""

import itertools
from functools import partial

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models.generator import MlpVAE
from avalanche.training.supervised import VAETraining
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DenoisingLoss,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
)
from avalanche_gd.plugins import SOURCES, Teacher
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, images, seeded, tiny
from tests.helpers.small_trainings import fake_strategy, train_generator

TEACHING = (GenerativeDistillationPlugin, GenerativeReplayPlugin)


class Recorder(SupervisedPlugin):
    """Notes what a teacher is and does during the second experience."""

    def __init__(self, plugin):
        super().__init__()
        self.losses, self.teachers = [], []
        teach = plugin.distillation_loss

        def noting(strategy):
            self.losses.append(teach(strategy).item())
            return teach(strategy)

        plugin.distillation_loss = noting

    def after_training_iteration(self, strategy, **kwargs):
        if Teacher.of(strategy).model is not None:
            self.teachers.append(weights(Teacher.of(strategy).model.denoiser))


def test_at_the_first_step_of_an_experience_the_student_is_the_teacher(tiny_model, digits):
    plugin = GenerativeDistillationPlugin()
    recorder = Recorder(plugin)
    train_generator(tiny_model, digits.train_stream[:2], plugin, recorder)
    assert len(recorder.losses) == 3  # none in the first experience
    assert recorder.losses[0] < 1e-12
    assert recorder.losses[1] > 1e-6


def test_the_teacher_is_the_model_of_the_experience_before_and_never_changes(
    tiny_model, digits
):
    plugin = GenerativeDistillationPlugin()
    recorder = Recorder(plugin)
    first, second = digits.train_stream[:2]
    strategy = train_generator(tiny_model, first, plugin, recorder)
    before = weights(tiny_model.denoiser)
    strategy.train(second, eval_streams=[])
    assert len(recorder.teachers) == 3
    assert all(same_bits(teacher, before) for teacher in recorder.teachers)
    assert not same_bits(weights(tiny_model.denoiser), before)
    assert Teacher.of(strategy).model is None  # let go of


@pytest.mark.parametrize("kinds", itertools.product(TEACHING, repeat=2))
def test_plugins_of_a_strategy_share_one_teacher(tiny_model, kinds):
    strategy = fake_strategy(tiny_model, n=2)
    plugins = [kind() for kind in kinds]
    teachers = []
    tiny_model(images(2)).prediction.sum().backward()
    for plugin in plugins:
        plugin.before_training_exp(strategy)
        teachers.append(Teacher.of(strategy).model)
    assert teachers[0] is teachers[1] is not tiny_model
    assert all(p.grad is None for p in teachers[0].parameters())
    assert all(p.grad is not None for p in tiny_model.parameters())
    for plugin in plugins:
        plugin.after_training_exp(strategy)
    assert Teacher.of(strategy).model is None


@pytest.mark.parametrize("make_model", [tiny, partial(conditioned, dropout=0.2)])
@pytest.mark.parametrize(
    "make",
    [
        *(
            partial(GenerativeDistillationPlugin, source=source, replay_ratio=ratio)
            for source in SOURCES
            for ratio in (1.0, 0.5)
        ),
        *(partial(kind, pool_size=20) for kind in TEACHING),
        GenerativeReplayPlugin,
    ],
)
def test_all_that_a_plugin_draws_comes_from_its_generator(digits, make, make_model):
    """The training draws from torch's own random state, and as much as without it."""
    states = []
    for plugins in ([], [make(generator=seeded())]):
        torch.manual_seed(0)
        train_generator(make_model(), digits.train_stream[:2], *plugins)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_generator_with_batch_statistics_generates_in_evaluation_mode(
    digits, monkeypatch
):
    vae = MlpVAE((1, 8, 8), nhid=2)
    generator = VAETraining(
        model=vae, optimizer=torch.optim.Adam(vae.parameters()), evaluator=None
    )
    solver = SmallCNN(SHAPE, 10)
    strategy = SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=32,
        plugins=[GenerativeReplayPlugin(generator)],
        evaluator=None,
    )
    generator.train_mb_size = 32
    strategy.train(digits.train_stream[0], eval_streams=[])
    before, modes = weights(vae), []
    generate = MlpVAE.generate
    monkeypatch.setattr(
        MlpVAE,
        "generate",
        lambda model, count: modes.append(model.training) or generate(model, count),
    )
    generator.train = lambda *args, **kwargs: None
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert modes and not any(modes)
    assert same_bits(weights(vae), before)


def test_the_solver_replays_from_the_generator_of_the_experience_before(tiny_model, digits):
    generator = DiffusionTraining(
        model=tiny_model,
        optimizer=torch.optim.Adam(tiny_model.parameters(), 1e-2),
        train_steps=2,
        evaluator=None,
    )
    solver = SmallCNN(SHAPE, 10)
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        replay=SoftGenerativeReplayPlugin(generator, look_ahead=1),
        train_steps=2,
        evaluator=None,
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    after_first = weights(tiny_model.denoiser)
    replayed_from = []
    reverse = tiny_model.reverse
    tiny_model.reverse = lambda *args, **kwargs: (
        replayed_from.append(weights(tiny_model.denoiser)),
        reverse(*args, **kwargs),
    )[1]
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert len(replayed_from) == 2
    assert all(same_bits(seen, after_first) for seen in replayed_from)
    assert not same_bits(weights(tiny_model.denoiser), after_first)
    assert generator.clock.train_exp_counter == 2


def test_replay_of_a_solver_trains_its_generator_in_a_plain_template(tiny_model, digits):
    generator = DiffusionTraining(
        model=tiny_model,
        optimizer=torch.optim.Adam(tiny_model.parameters()),
        train_steps=2,
        evaluator=None,
    )
    solver = SmallCNN(SHAPE, 10)
    strategy = SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=32,
        plugins=[GenerativeReplayPlugin(generator)],
        evaluator=None,
    )
    strategy.train(digits.train_stream[:2], eval_streams=[])
    assert generator.clock.train_exp_counter == 2


def test_a_step_costs_the_passes_that_the_design_counts(tiny_model, digits):
    passes = []
    counting = dict(
        naive=([], 1),
        replay=([GenerativeReplayPlugin(look_ahead=1)], 3),
        distillation=([GenerativeDistillationPlugin(look_ahead=1)], 4),
    )
    for plugins, expected in counting.values():
        strategy = train_generator(tiny_model, digits.train_stream[0], *plugins)
        hook = tiny_model.denoiser.register_forward_hook(lambda *_: passes.append(1))

        class StartCounting(SupervisedPlugin):
            def before_training_exp(self, strategy, **kwargs):
                passes.clear()

        strategy.plugins.insert(0, StartCounting())
        strategy.train(digits.train_stream[1], eval_streams=[])
        hook.remove()
        assert len(passes) == 3 * expected  # deep copies keep the hook


class NotAGenerator(torch.nn.Module):
    pass


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_negative_lambda_is_refused(plugin):
    with pytest.raises(ValueError, match="lambd must be 0 or more"):
        plugin(lambd=-0.1)


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
@pytest.mark.parametrize("steps", [0, -2, 1.5])
def test_teacher_steps_below_one_are_refused(plugin, steps):
    with pytest.raises(ValueError, match="teacher_steps must be an integer of 1 or more"):
        plugin(teacher_steps=steps)


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_teacher_steps_above_the_schedule_are_refused_before_training(
    tiny_model, digits, plugin
):
    before = weights(tiny_model)
    with pytest.raises(ValueError, match="from 1 to 1000, got 1001"):
        train_generator(tiny_model, digits.train_stream[:1], plugin(teacher_steps=1001))
    assert same_bits(weights(tiny_model), before)


def test_an_unknown_source_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=f"choose from {', '.join(SOURCES)}"):
        GenerativeDistillationPlugin(source="dreams")
    with pytest.raises(TypeError, match="method draw"):
        GenerativeDistillationPlugin(source=3)


def test_a_generator_without_generate_is_refused():
    for plugin in (GenerativeReplayPlugin, SoftGenerativeReplayPlugin):
        with pytest.raises(TypeError, match="has no method generate"):
            plugin(fake_strategy(NotAGenerator()))
    with pytest.raises(TypeError, match="has no method generate"):
        GenerativeReplayPlugin().before_training(fake_strategy(NotAGenerator()))


def test_distillation_of_a_classifier_is_refused_before_training(digits):
    solver = SmallCNN(SHAPE, 10)
    strategy = SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        plugins=[GenerativeDistillationPlugin()],
        evaluator=None,
    )
    with pytest.raises(TypeError, match="needs a DiffusionModel"):
        strategy.train(digits.train_stream[0])


def test_a_replay_size_or_temperature_of_zero_is_refused(tiny_model):
    with pytest.raises(ValueError, match="replay_size"):
        GenerativeReplayPlugin(replay_size=0)
    with pytest.raises(ValueError, match="temperature"):
        SoftGenerativeReplayPlugin(fake_strategy(tiny_model), temperature=0)


def test_losses_work_with_reduction_none_and_others_are_refused():
    with pytest.raises(ValueError, match="mean, none"):
        DenoisingLoss("sum")
