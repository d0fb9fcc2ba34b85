"""Current and replayed images go through the student in one pass."""

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.determinism.rng_manager import RNGManager
from avalanche.training.plugins import (
    AGEMPlugin,
    EWCPlugin,
    GEMPlugin,
    ReplayPlugin,
)

from avalanche_gd import (
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
)
from avalanche_gd.models.denoising import Question
from avalanche_gd.plugins import SOURCES
from avalanche_gd.plugins.baselines import MIRPlugin
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import images
from tests.helpers.small_trainings import train_generator

BATCH, STEPS = 16, 4

REPLAYING = {
    "generative replay": lambda **o: GenerativeReplayPlugin(teacher_steps=2, **o),
    "replay of a fixed size": lambda **o: GenerativeReplayPlugin(replay_size=6, **o),
    "pooled distillation": lambda **o: GenerativeDistillationPlugin(2, pool_size=40, **o),
    **{
        name: lambda name=name, **o: GenerativeDistillationPlugin(2, source=name, **o)
        for name in SOURCES
    },
}


class Steps(SupervisedPlugin):
    """Notes losses, and the images of the student's passes that are trained on."""

    def __init__(self, model):
        super().__init__()
        self.losses, self.passes = [], []
        self.seen = []
        model.denoiser.register_forward_hook(self._note)

    def _note(self, module, inputs, output):
        if torch.is_grad_enabled():
            self.seen.append(len(inputs[0]))

    def after_training_iteration(self, strategy, **kwargs):
        self.losses.append(strategy.loss.item())
        self.passes.append(self.seen.copy())
        self.seen.clear()


def trained(digits, plugin, *beside, num_classes=None, one_pass=True, **options):
    """Two experiences of a model, and what was noted in the second."""
    RNGManager.set_random_seeds(3)  # A-GEM draws by Python's own
    dropout = 0.2 if num_classes else 0.0
    model = DiffusionModel.from_preset(
        "digits", num_classes=num_classes, condition_dropout=dropout
    )
    model.one_pass = one_pass
    steps = Steps(model)
    settings = dict(train_steps=STEPS, train_mb_size=BATCH) | options
    train_generator(model, digits.train_stream[:2], steps, plugin, *beside, **settings)
    return model, steps.losses[STEPS:], steps.passes[STEPS:]


@pytest.mark.parametrize("num_classes", [None, 10])
@pytest.mark.parametrize("name", REPLAYING)
def test_losses_of_one_pass_are_those_of_two(digits, name, num_classes):
    found = [
        trained(digits, REPLAYING[name](lambd=3.0), num_classes=num_classes, one_pass=one)
        for one in (True, False)
    ]
    (_, losses, one), (_, expected, two) = found
    assert losses == pytest.approx(expected, rel=1e-5)
    replayed = 6 if name == "replay of a fixed size" else BATCH
    shared = name == "current" and num_classes is None
    assert one == [[BATCH] if shared else [BATCH + replayed]] * STEPS
    assert two == [[BATCH, replayed]] * STEPS


@pytest.mark.parametrize("ratio", [0.5, 1.5])
def test_another_number_of_current_images_has_noise_of_its_own(digits, ratio):
    plugin = GenerativeDistillationPlugin(source="current", replay_ratio=ratio)
    _, _, passes = trained(digits, plugin)
    assert passes == [[BATCH + int(ratio * BATCH)]] * STEPS


def test_two_plugins_ask_in_the_same_pass(digits):
    plugins = [GenerativeDistillationPlugin(), GenerativeReplayPlugin(replay_ratio=0.5)]
    _, _, passes = trained(digits, *plugins)
    assert passes == [[BATCH + BATCH + BATCH // 2]] * STEPS


BESIDE = {
    "EWC": lambda: EWCPlugin(1.0),
    "GEM": lambda: GEMPlugin(8, 0.5),
    "A-GEM": lambda: AGEMPlugin(8, 8),
    "MIR": lambda: MIRPlugin(batch_size_mem=8, mem_size=20, subsample=10),
    "experience replay": lambda: ReplayPlugin(64),
}


@pytest.mark.parametrize("num_classes", [None, 10])
@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("order", [1, -1])
def test_avalanches_plugins_beside_it_change_nothing_about_it(
    digits, name, num_classes, order
):
    found = []
    for one_pass in (True, False):
        plugins = [GenerativeDistillationPlugin(lambd=3.0), BESIDE[name]()][::order]
        settings = dict(num_classes=num_classes, one_pass=one_pass)
        found.append(trained(digits, *plugins, **settings))
    (_, losses, passes), (_, expected, _) = found
    assert losses == pytest.approx(expected, rel=1e-4)  # rounding grows over the steps
    both = 4 * BATCH if name == "experience replay" else 2 * BATCH
    assert all(both in step for step in passes)


class CallsTheModel(SupervisedPlugin):
    """A plugin that calls the model between the question and the step's own pass."""

    def before_forward(self, strategy, **kwargs):
        strategy._criterion(strategy.model(strategy.mb_x), strategy.mb_y)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_a_question_that_another_call_took_is_asked_again(digits, num_classes):
    plugins = [GenerativeDistillationPlugin(lambd=3.0), CallsTheModel()]
    (_, losses, passes), (_, expected, _) = (
        trained(digits, *plugins, num_classes=num_classes, one_pass=one)
        for one in (True, False)
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    assert passes == [[2 * BATCH, BATCH, BATCH]] * STEPS


class Interrupted(SupervisedPlugin):
    def __init__(self):
        super().__init__()
        self.after_steps = 2

    def before_forward(self, strategy, **kwargs):
        self.after_steps -= strategy.clock.train_exp_counter
        if self.after_steps < 0:
            self.after_steps = 100
            raise KeyboardInterrupt


def test_a_step_that_was_interrupted_leaves_no_question(digits):
    model = DiffusionModel.from_preset("digits")
    steps = Steps(model)
    plugins = [GenerativeDistillationPlugin(), Interrupted(), steps]
    strategy = train_generator(model, digits.train_stream[0], *plugins)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    before = steps.passes.copy()
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert steps.passes[len(before) :] == [[2 * 16]] * 3


def test_an_evaluation_answers_no_question(tiny_model):
    question = Question(images(3), torch.zeros(3).long())
    tiny_model.questions.append(question)
    tiny_model.eval()
    assert len(tiny_model(images(2)).prediction) == 2
    with torch.no_grad():
        assert len(tiny_model.train()(images(2)).prediction) == 2
    assert tiny_model.questions == [question] and question.prediction is None
    output = tiny_model(images(2))
    assert len(output.prediction) == 2
    answer = question.answer(tiny_model, output)
    assert (
        answer - tiny_model.denoise(question.x_t, question.timesteps)
    ).abs().max() < 1e-6


def test_lwf_like_distillation_takes_the_students_own_prediction(digits):
    """The formula, stated with the passes of the current batch alone."""
    plugin = GenerativeDistillationPlugin(source="current", lambd=3.0)

    class Formula(SupervisedPlugin):
        errors = []

        def before_training_exp(self, strategy, **kwargs):
            self.teacher = None
            if strategy.clock.train_exp_counter:
                self.teacher = weights(strategy.model.denoiser)

        def after_backward(self, strategy, **kwargs):
            if self.teacher is None:
                return
            output, x0 = strategy.mb_output, strategy.mb_x
            x_t = strategy.model.add_noise(x0, output.target, output.timesteps)
            teacher = DiffusionModel.from_preset("digits").denoiser
            teacher.load_state_dict(self.teacher)
            with torch.no_grad():
                target = teacher(x_t, output.timesteps).sample
            l_cur = (output.prediction - output.target).square().mean()
            l_rep = (output.prediction - target).square().mean()
            expected = l_cur / 2 + 3.0 * l_rep / 2
            self.errors.append(abs(strategy.loss.item() - expected.item()))

    formula = Formula()
    model, _, _ = trained(digits, plugin, formula)
    assert len(formula.errors) == STEPS and max(formula.errors) < 1e-6
    assert not same_bits(weights(model.denoiser), formula.teacher)
