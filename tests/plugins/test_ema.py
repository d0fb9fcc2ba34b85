"""The moving average of the weights."""

import copy
from functools import partialmethod
from itertools import pairwise

import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.evaluation import PluginMetric
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
)
from diffusers.training_utils import EMAModel

from avalanche_gd import (
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    Sampling,
    generated_image_metrics,
)
from avalanche_gd.metrics.shared_images import SharedImages, generate_images
from avalanche_gd.plugins import EMAPlugin, Teacher
from avalanche_gd.plugins.baselines import (
    MASPlugin,
    RWalkPlugin,
    SynapticIntelligencePlugin,
)
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import note_losses
from tests.helpers.small_models import tiny
from tests.helpers.small_trainings import train_generator


class Following(SupervisedPlugin):
    """Notes the weights of teacher and student after each step that has a teacher."""

    def __init__(self):
        super().__init__()
        self.teachers, self.students = [], []

    def after_training_iteration(self, strategy, **kwargs):
        if (teacher := Teacher.of(strategy).model) is not None:
            self.teachers.append(weights(teacher.denoiser))
            self.students.append(weights(strategy.model.denoiser))


def test_a_teacher_follows_the_student_by_a_moving_average(tiny_model, digits):
    end_of_first, following = [], Following()
    for steps in (3, 8):  # of one experience, and of one more
        following = Following()
        torch.manual_seed(0)
        model = copy.deepcopy(tiny_model)
        plugins = [
            GenerativeDistillationPlugin(teacher_ema_decay=0.7),
            GenerativeDistillationPlugin(source="gaussian", teacher_ema_decay=0.7),
            following,
        ]
        stream = digits.train_stream[: 1 if steps == 3 else 2]
        train_generator(model, stream, *plugins, train_steps=3)
        end_of_first.append(weights(model.denoiser))
    expected = end_of_first[0]
    assert len(following.teachers) == 3
    for teacher, student in zip(following.teachers, following.students, strict=True):
        expected = {k: 0.7 * expected[k] + 0.3 * student[k] for k in expected}
        assert all((teacher[k] - expected[k]).abs().max() < 1e-6 for k in expected)


def test_a_teacher_that_follows_goes_on_over_the_pieces_of_an_experience(
    tiny_model, digits
):
    stream = split_online_stream(digits.train_stream[:2], experience_size=120, seed=0)
    following = Following()
    plugin = GenerativeDistillationPlugin(teacher_ema_decay=0.5)
    train_generator(tiny_model, list(stream), plugin, following, train_steps=2)
    teachers = pairwise(following.teachers)
    for (before, after), student in zip(teachers, following.students[1:], strict=True):
        for k in before:
            assert (after[k] - (before[k] + student[k]) / 2).abs().max() < 1e-6
    assert len(following.teachers) == 6


def test_plugins_that_share_a_teacher_have_it_follow_alike(tiny_model, digits):
    plugins = [GenerativeDistillationPlugin(teacher_ema_decay=d) for d in (0.5, None)]
    with pytest.raises(ValueError, match="share one teacher; give them the same"):
        train_generator(tiny_model, digits.train_stream[:1], *plugins)
    with pytest.raises(ValueError, match=r"teacher_ema_decay must be in \[0, 1\], got 1.5"):
        GenerativeDistillationPlugin(teacher_ema_decay=1.5)


@pytest.mark.parametrize("at", [0, 1])
def test_a_teacher_that_moves_is_refused_beside_replay(tiny_model, digits, at):
    plugins = [GenerativeReplayPlugin()]
    plugins.insert(at, GenerativeDistillationPlugin(teacher_ema_decay=0.5))
    with pytest.raises(ValueError, match="moves, but replay is of a frozen model; leave"):
        train_generator(tiny_model, digits.train_stream[:1], *plugins)


def share_of_old(i, decay):
    """d after step i = 1, 2, ..., as the plugin's docstring says."""
    return 0.0 if i == 1 else min(decay, i / (9 + i))


def test_the_share_of_the_old_average_is_that_of_diffusers(tiny_model, digits):
    raw, shares = Raw(), []
    train_generator(tiny_model, digits.train_stream[:1], raw, train_steps=12, ema_decay=0.5)
    model = copy.deepcopy(tiny_model)
    model.denoiser.load_state_dict(raw.starts[0])
    average = EMAModel(model.parameters(), decay=0.5)
    for step in raw.steps:
        model.denoiser.load_state_dict(step)
        average.step(model.parameters())
        shares.append(average.cur_decay_value)
    assert shares == pytest.approx([share_of_old(i, 0.5) for i in range(1, 13)])
    assert shares[:4] == [0, 2 / 11, 3 / 12, 4 / 13] and shares[-1] == 0.5
    average.copy_to(model.parameters())
    assert same_bits(weights(tiny_model.denoiser), weights(model.denoiser))


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
    for i, weight in enumerate(history[1:], 1):
        decay = share_of_old(i, 0.5)
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


class Raw(SupervisedPlugin):
    """Notes the weights before the first step and after each, and at each step's start."""

    def __init__(self):
        super().__init__()
        self.steps, self.starts, self.ends = [], [], []

    def before_training_iteration(self, strategy, **kwargs):
        self.starts.append(weights(strategy.model.denoiser))

    def after_training_iteration(self, strategy, **kwargs):
        self.steps.append(weights(strategy.model.denoiser))

    def after_training_exp(self, strategy, **kwargs):
        self.ends.append(weights(strategy.model.denoiser))

    def average(self, decay, steps):
        """After so many steps, by the formula."""
        average = self.starts[0]
        for i, now in enumerate(self.steps[:steps], 1):
            d = share_of_old(i, decay)
            average = {k: d * average[k] + (1 - d) * now[k] for k in now}
        return average


def distance(one, other):
    return max((one[name] - other[name]).abs().max().item() for name in other)


class Seen(PluginMetric):
    """Notes what a metric can see in the last evaluation, hook by hook."""

    def __init__(self, sampling):
        self.weights, self.images, self.sampling = {}, None, sampling

    def note(self, strategy, hook):
        self.weights[hook] = weights(strategy.model.denoiser)
        if hook == "after_eval":
            shared = SharedImages.of(strategy)
            self.images = shared.images(strategy.model, self.sampling)

    def reset(self):
        """Nothing."""

    def result(self):
        """Nothing."""


HOOKS = ("before_eval", "before_eval_exp", "after_eval_iteration", "after_eval_exp")
for hook in (*HOOKS, "after_eval"):
    setattr(Seen, hook, partialmethod(Seen.note, hook=hook))


def test_all_metrics_of_an_evaluation_in_between_see_the_average(tiny_model, digits):
    raw, sampling = Raw(), Sampling(images=4, steps=1)
    seen = Seen(sampling)
    judges = [generated_image_metrics(sampling=sampling, shown=4), seen]
    strategy = train_generator(
        tiny_model, [], raw, train_steps=None, train_epochs=1, train_mb_size=64,
        ema_decay=0.9, eval_every=1, evaluator=EvaluationPlugin(*judges),
    )  # fmt: skip
    strategy.train(digits.train_stream[0], eval_streams=[digits.test_stream[:1]])
    expected = raw.average(0.9, len(raw.steps))
    assert set(seen.weights) == {*HOOKS, "after_eval"}
    for evaluated in seen.weights.values():
        assert distance(evaluated, expected) < 1e-6
    assert distance(raw.steps[-1], expected) > 1e-4
    tiny_model.denoiser.load_state_dict(expected)
    assert (seen.images - generate_images(tiny_model, sampling)).abs().max() < 1e-4


@pytest.mark.parametrize("access", [False, True])
def test_an_average_ends_with_the_origin_experience(tiny_model, digits, access):
    stream = split_online_stream(
        digits.train_stream[:2], 150, seed=0, access_task_boundaries=access
    )  # two pieces each
    raw = Raw()
    train_generator(tiny_model, stream, raw, ema_decay=0.5)
    for piece in (0, 1):
        assert distance(raw.ends[piece], raw.average(0.5, 3 * (piece + 1))) < 1e-6
    assert same_bits(raw.starts[3], raw.steps[2])  # goes on from the weights
    assert same_bits(raw.starts[6], raw.ends[1])  # begins with the average
    assert not same_bits(raw.starts[6], raw.steps[5])


def test_weights_that_are_new_in_a_piece_leave_the_average_of_the_others(
    tiny_model, digits
):
    first, second = split_online_stream(digits.train_stream[:1], 150, seed=0)
    raw = Raw()
    strategy = train_generator(tiny_model, [first], raw, ema_decay=0.5)
    tiny_model.new = torch.nn.Parameter(torch.full((3,), 7.0))  # the first of all
    strategy.train(second, eval_streams=[])
    assert same_bits(raw.starts[3], raw.steps[2])  # goes on from the weights
    assert distance(raw.ends[1], raw.average(0.5, 6)) < 1e-6
    assert (tiny_model.new == 7).all()


def test_weights_that_are_loaded_between_pieces_begin_an_average(tiny_model, digits):
    first, second = split_online_stream(digits.train_stream[:1], 150, seed=0)
    raw, other = Raw(), tiny()
    strategy = train_generator(tiny_model, [first], raw, ema_decay=0.5)
    tiny_model.load_state_dict(other.state_dict())
    strategy.train(second, eval_streams=[])
    assert same_bits(raw.starts[3], weights(other.denoiser))
    average = raw.starts[3]
    for i, now in enumerate(raw.steps[3:], 4):  # d goes on with the steps
        d = share_of_old(i, 0.5)
        average = {k: d * average[k] + (1 - d) * now[k] for k in now}
    assert distance(raw.ends[1], average) < 1e-6


@pytest.mark.parametrize("shared", [False, True])
def test_strategies_that_take_turns_have_averages_of_their_own(digits, shared):
    first, second = split_online_stream(digits.train_stream[:1], 150, seed=0)
    plugins, models = [EMAPlugin(0.5), EMAPlugin(0.5)], []
    for other in (plugins[0] if shared else plugins[1], None):
        torch.manual_seed(0)
        beside = tiny()
        strategy = train_generator(tiny(), [first], plugins[0])
        if other is not None:
            with torch.random.fork_rng():
                train_generator(beside, [first], other)
        strategy.train(second, eval_streams=[])
        models.append(weights(strategy.model))
    assert same_bits(*models)


def test_a_copy_of_a_strategy_has_an_average_of_its_own(digits):
    pieces = split_online_stream(digits.train_stream[:1], 150, seed=0)
    strategy = train_generator(tiny(), list(pieces)[:1], EMAPlugin(0.5))
    ends = []
    for one in (strategy, copy.deepcopy(strategy)):
        torch.manual_seed(0)
        one.train(digits.train_stream[1], eval_streams=[])
        ends.append(weights(one.model))
    assert same_bits(*ends)


KEEPERS = {
    "EWC": lambda: EWCPlugin(1.0),
    "SI": lambda: SynapticIntelligencePlugin(1.0),
    "MAS": MASPlugin,
    "RWalk": lambda: RWalkPlugin(delta_t=1),
}


@pytest.mark.parametrize("make", KEEPERS.values(), ids=KEEPERS)
def test_what_keeps_weights_before_they_are_averaged_is_refused(digits, make):
    model = tiny()
    before = weights(model)
    with pytest.raises(
        ValueError, match=r"after \w+Plugin has kept them; put EMAPlugin before it"
    ) as caught:
        train_generator(model, digits.train_stream[:1], make(), EMAPlugin(0.5))
    assert len(str(caught.value).splitlines()) == 1
    assert same_bits(weights(model), before)
    train_generator(model, digits.train_stream[:1], EMAPlugin(0.5), make())


def test_the_average_is_what_plugins_behind_it_keep(digits):
    model, plugin = tiny(), EWCPlugin(1.0)
    train_generator(model, digits.train_stream[:1], EMAPlugin(0.999), plugin)
    for name, parameter in model.named_parameters():
        assert torch.equal(plugin.saved_params[0][name].data, parameter)


def early_stopping():
    return EarlyStoppingPlugin(1, "test_stream", metric_name="Loss_Stream", mode="min")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (early_stopping, "EarlyStoppingPlugin restores its best .*; remove one of the two"),
        (lambda: EMAPlugin(0.9), "one average of its weights; give one EMAPlugin, or only"),
    ],
)
def test_what_restores_weights_beside_an_average_is_refused(digits, make, message, first):
    model = tiny()
    before = weights(model)
    with pytest.raises(ValueError, match=message) as caught:
        if first:
            train_generator(model, digits.train_stream[:1], make(), EMAPlugin(0.5))
        else:
            train_generator(model, digits.train_stream[:1], make(), ema_decay=0.5)
    assert len(str(caught.value).splitlines()) == 1
    assert same_bits(weights(model), before)


def test_an_evaluation_that_was_interrupted_does_not_take_the_weights_away(
    tiny_model, digits
):
    class Interruption(SupervisedPlugin):
        def before_eval_forward(self, strategy, **kwargs):
            if strategy.clock.train_exp_iterations:  # after an epoch
                raise KeyboardInterrupt

    interruption, raw = Interruption(), Raw()
    options = dict(train_steps=None, train_epochs=1, train_mb_size=64, eval_every=1)
    strategy = train_generator(tiny_model, [], raw, ema_decay=0.9, **options)
    strategy.plugins.append(interruption)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[0], eval_streams=[digits.test_stream[:1]])
    strategy.plugins.remove(interruption)
    steps = len(raw.steps)
    strategy.train(digits.train_stream[0], eval_streams=[])
    assert same_bits(raw.starts[steps], raw.steps[steps - 1])


@pytest.mark.parametrize("decay", [1.0, -0.1, 2])
def test_a_decay_out_of_range_is_refused(tiny_model, digits, decay):
    with pytest.raises(ValueError, match=r"EMA must be in \[0, 1\)"):
        train_generator(tiny_model, digits.train_stream[:1], ema_decay=decay)
