"""Which experience a plugin is in: online streams, interruptions, a second strategy."""

import copy
import gc
import pickle
import warnings
from functools import partial

import pytest
import torch
from avalanche.benchmarks import DatasetExperience
from avalanche.benchmarks.scenarios.online import (
    split_continuous_linear_decay_stream,
    split_online_stream,
)
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    ClassifierGuidance,
    DenoisingLoss,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
)
from avalanche_gd.plugins import EMAPlugin, Teacher
from avalanche_gd.plugins.experiences import ExperienceCount, experience_number
from avalanche_gd.training.strategy_state import load_strategy_state, strategy_state
from tests.helpers import stream_builders
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, tiny
from tests.helpers.small_streams import domain
from tests.helpers.small_trainings import fake_strategy, train_generator

TEACHING = [
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    lambda **options: GenerativeDistillationPlugin(pool_size=20, **options),
]


def online(stream, *, size=120, access=False):
    """Each experience of about 280 images in three pieces."""
    return split_online_stream(
        stream, experience_size=size, access_task_boundaries=access, seed=0
    )


class Steps(SupervisedPlugin):
    """Notes n and the teacher of each step, and the weights at the end of each piece."""

    def __init__(self):
        super().__init__()
        self.numbers, self.teachers, self.ends = [], [], []

    def before_backward(self, strategy, **kwargs):
        self.numbers.append(experience_number(strategy))
        self.teachers.append(Teacher.of(strategy).model)

    def after_training_exp(self, strategy, **kwargs):
        self.ends.append(weights(strategy.model))


class Interruption(SupervisedPlugin):
    """Interrupts one step, between the forward and the backward pass."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def before_backward(self, strategy, **kwargs):
        if strategy.clock.train_iterations == self.at:
            self.at = None
            raise KeyboardInterrupt


@pytest.mark.parametrize("access", [False, True])
def test_n_counts_origin_experiences_not_pieces(digits, access):
    pieces = list(online(digits.train_stream[:3], access=access))
    whole = digits.train_stream
    (a1, a2, a3), (b1, b2, _), (c1, *_) = pieces[:3], pieces[3:6], pieces[6:]
    for experiences, expected in [
        (whole[:3], [1, 2, 3]),
        ([whole[0], whole[0], whole[1]], [1, 2, 3]),  # twice, on purpose
        (pieces, [1] * 3 + [2] * 3 + [3] * 3),
        ([a1, a2, a3, a1, a2], [1, 1, 1, 2, 2]),  # twice, in pieces
        ([a1, b1, a2], [1, 2, 3]),
        ([whole[0], a2, a3, whole[0]], [1, 2, 2, 3]),
        ([b2, c1], [1, 2]),  # a part of a stream
    ]:
        strategy = fake_strategy(None)
        count, numbers = ExperienceCount.of(strategy), []
        for strategy.experience in experiences:
            for _plugin in range(2):
                count.begin(strategy)
            numbers.append(count.number)
            for _plugin in range(2):
                count.end()
            strategy.clock.train_exp_counter += 1
        assert numbers == expected


@pytest.mark.parametrize(
    "whole",
    [
        lambda: stream_builders.by_class(2, task_labels=False).train_stream,
        lambda: stream_builders.online_of_ours(None)[1],
        lambda: [DatasetExperience(dataset=domain(i)) for i in range(2)],
    ],
)
def test_n_counts_the_origins_of_pieces_of_any_stream(whole):
    numbers, origins = [], []
    strategy = fake_strategy(None)
    for strategy.experience in split_online_stream(whole(), 15, seed=0):
        count = ExperienceCount.of(strategy)
        count.begin(strategy)
        count.end()
        strategy.clock.train_exp_counter += 1
        numbers.append(count.number)
        origins.append(id(strategy.experience.logging().origin_experience))
    assert numbers == [1 + list(dict.fromkeys(origins)).index(one) for one in origins]


@pytest.mark.parametrize("access", [False, True])
def test_after_an_interruption_n_is_that_of_what_was_not_learned(digits, access):
    a1, a2, a3, b1, b2, *_ = online(digits.train_stream[:2], access=access)
    first, second = digits.train_stream[:2]
    for learned, interrupted, following, expected in [
        ([first], second, second, 2),
        ([first], second, first, 2),
        ([a1, a2], a3, a3, 1),
        ([a1, a2], a3, a1, 1),  # all pieces again
        ([a1, a2], a3, b1, 2),
        ([a1, a2, a3], b1, b1, 2),
        ([a1, a2, a3], b1, second, 2),
        ([a1, a2, a3, b1], b2, first, 3),
    ]:
        strategy = fake_strategy(None)
        count = ExperienceCount.of(strategy)
        for strategy.experience in learned:
            count.begin(strategy)
            count.end()
            strategy.clock.train_exp_counter += 1
        for strategy.experience in (interrupted, following):
            count.begin(strategy)
        assert count.number == expected


def test_what_was_learned_without_the_plugin_counts(tiny_model, digits):
    strategy, steps = train_generator(tiny_model, digits.train_stream[:2]), Steps()
    strategy_state(strategy, [])
    plugins = [GenerativeDistillationPlugin(), steps]
    for experience in digits.train_stream[2:5]:
        strategy.plugins[:0] = plugins
        strategy.train(experience, eval_streams=[])
        del strategy.plugins[:2]
        strategy.train(experience, eval_streams=[])
    assert steps.numbers == [3] * 3 + [5] * 3 + [7] * 3
    assert None not in steps.teachers


@pytest.mark.parametrize("kind", TEACHING[:2])
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_new_strategy_for_a_trained_model_says_that_it_has_no_teacher(
    digits, kind, is_gone
):
    first, second = digits.train_stream[:2]
    plugin, model, kept, message = kind(), tiny(), [], "trained in another strategy before"
    kept.append(train_generator(model, [first], plugin, train_steps=1))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=f".*{message}")
        kept[0].train(second, eval_streams=[])
        train_generator(tiny(), [first, second], plugin, train_steps=1)  # of its own
        copy.deepcopy(kept[0]).train(first, eval_streams=[])
    if is_gone:
        kept.clear()
        gc.collect()
    with pytest.warns(UserWarning, match=message):
        train_generator(model, [second], plugin, train_steps=1)


def test_an_interruption_of_the_last_evaluation_leaves_the_experience_learned(
    tiny_model, digits
):
    class Evaluation(SupervisedPlugin):
        def after_training_exp(self, strategy, **kwargs):
            raise KeyboardInterrupt

    steps, evaluation = Steps(), Evaluation()
    strategy = train_generator(tiny_model, [], GenerativeDistillationPlugin(), steps)
    strategy.plugins.append(evaluation)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[0], eval_streams=[])
    strategy.plugins.remove(evaluation)
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert steps.numbers == [1] * 3 + [2] * 3


@pytest.mark.parametrize("access", [False, True])
@pytest.mark.parametrize("plugin", TEACHING)
def test_the_teacher_of_an_online_stream_is_kept_through_its_pieces(
    tiny_model, digits, plugin, access
):
    steps = Steps()
    stream = online(digits.train_stream[:2], access=access)
    train_generator(tiny_model, stream, plugin(), steps, train_steps=2)
    assert steps.numbers == [1] * 6 + [2] * 6
    assert steps.teachers[:6] == [None] * 6
    assert len(set(map(id, steps.teachers[6:]))) == 1
    assert same_bits(weights(steps.teachers[-1]), steps.ends[2])


def test_the_samples_of_an_online_stream_stay_as_long_as_their_teacher(digits):
    for options, expected in ((dict(pool_size=20), [20]), (dict(look_ahead=4), [64] * 3)):
        model, sizes = tiny(), []
        reverse = model.reverse
        model.reverse = lambda noise, *a, sizes=sizes, reverse=reverse, **k: (
            sizes.append(len(noise)) or reverse(noise, *a, **k)
        )
        plugin = GenerativeDistillationPlugin(**options)
        strategy = train_generator(
            model, [], plugin, train_steps=None, train_epochs=1, train_mb_size=16
        )
        pieces = online(digits.train_stream[:2], size=64)  # 4 steps, a last one of less
        strategy.train(list(pieces)[:8], eval_streams=[])
        assert sizes == expected


@pytest.mark.parametrize("replay", [GenerativeReplayPlugin, SoftGenerativeReplayPlugin])
def test_a_solver_replays_its_generator_of_before_the_first_piece(
    tiny_model, digits, replay
):
    generator = train_generator(tiny_model, [], train_steps=2)
    solver, replayed, ends = SmallCNN(SHAPE, 10), [], []

    class Replayed(SupervisedPlugin):
        def after_training_iteration(self, strategy, **kwargs):
            replayed.append((plugin.old_generator, plugin.old_model))

        def after_training_exp(self, strategy, **kwargs):  # the generator is trained then
            ends.append((weights(tiny_model.denoiser), weights(solver)))

    plugin = replay(generator)
    SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=64,
        plugins=[plugin, Replayed()],
        evaluator=None,
    ).train(online(digits.train_stream[:2], size=150), eval_streams=[])
    assert replayed[:4] == [(None, None)] * 4  # two pieces of at most three steps
    old_generator, old_solver = replayed[-1]
    assert all(one is old_generator for one, _ in replayed[-4:])
    assert same_bits(weights(old_generator.denoiser), ends[1][0])
    assert same_bits(weights(old_solver), ends[1][1])


@pytest.mark.parametrize("plugin", TEACHING)
def test_a_stream_without_origin_experiences_is_refused(tiny_model, digits, plugin):
    stream = of_no_ends(digits.train_stream[:2])
    before = weights(tiny_model)
    with pytest.raises(ValueError, match="make the stream with split_online_stream"):
        train_generator(tiny_model, stream, plugin())
    assert same_bits(weights(tiny_model), before)


def of_no_ends(stream):
    return split_continuous_linear_decay_stream(
        stream, 20, iters_per_virtual_epoch=2, beta=2, shuffle=True
    )


@pytest.mark.parametrize(
    "options",
    [
        dict(weighting="experiences"),
        dict(weighting="constant", teacher_ema_decay=None),
        dict(weighting="constant", increasing_replay_size=True),
        dict(weighting="constant", guidance=ClassifierGuidance(SmallCNN(SHAPE, 10).eval())),
    ],
)
def test_what_needs_the_ends_of_experiences_is_refused_without_them(
    tiny_model, digits, options
):
    plugin = GenerativeDistillationPlugin(**dict(teacher_ema_decay=0.9) | options)
    message = r'or distil with teacher_ema_decay= and weighting="constant"'
    with pytest.raises(ValueError, match=message):
        train_generator(tiny_model, of_no_ends(digits.train_stream[:2]), plugin)


@pytest.mark.parametrize("make", [tiny, partial(conditioned, seen=())])
def test_a_teacher_that_follows_needs_no_ends_of_experiences(digits, make):
    classes, first = [], []
    steps, model = Steps(), make()

    class Piece(SupervisedPlugin):
        """Follows again, in plain words, what the teacher should be."""

        expected = None

        def before_forward(self, strategy, **kwargs):
            teacher = Teacher.of(strategy).model
            if teacher is not None and self.expected is None:
                self.expected = weights(teacher.denoiser)
                first.append(same_bits(self.expected, weights(model.denoiser)))
            if teacher is not None:
                classes.append(set(teacher.classes_seen.nonzero().flatten().tolist()))

        def after_training_iteration(self, strategy, **kwargs):
            for name, now in weights(model.denoiser).items():
                if self.expected is not None:
                    self.expected[name] = 0.9 * self.expected[name] + 0.1 * now

    plugin = GenerativeDistillationPlugin(
        look_ahead=1, teacher_ema_decay=0.9, weighting="constant"
    )
    piece, seen = Piece(), []
    strategy = train_generator(model, [], plugin, steps, piece)
    for experience in of_no_ends(digits.train_stream[:3]):
        seen.append(set(model.classes_seen.nonzero().flatten().tolist()))
        strategy.train(experience, eval_streams=[])
    assert steps.teachers[:3] == [None] * 3 and first == [True]
    assert len(seen) == 6 and len(set(map(id, steps.teachers[3:]))) == 1
    assert classes == [known for known in seen[1:] for _ in range(3)]
    assert make is tiny or len(seen[1]) < len(seen[-1])
    followed = weights(Teacher.of(strategy).model.denoiser)
    for name, expected in piece.expected.items():
        assert torch.allclose(followed[name], expected, atol=1e-6)


@pytest.mark.parametrize("plugin", TEACHING)
@pytest.mark.parametrize("following", [1, 2])
def test_after_an_interruption_the_teacher_is_what_was_learned_before(
    tiny_model, digits, plugin, following
):
    steps = Steps()
    strategy = train_generator(
        tiny_model, digits.train_stream[0], plugin(), steps, Interruption(at=5)
    )
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    half_trained = weights(tiny_model)
    teacher = steps.teachers[-1]
    strategy.train(digits.train_stream[following], eval_streams=[])
    assert all(one is teacher for one in steps.teachers[3:])
    assert steps.numbers == [1] * 3 + [2] * 6
    assert same_bits(weights(teacher), steps.ends[0])
    assert not same_bits(weights(teacher), half_trained)
    strategy.train(digits.train_stream[3], eval_streams=[])
    assert steps.numbers[9:] == [3] * 3
    assert same_bits(weights(steps.teachers[-1]), steps.ends[1])
    assert Teacher.of(strategy).model is None


@pytest.mark.parametrize("options", [dict(pool_size=20), dict(look_ahead=4)])
def test_samples_left_by_an_interruption_stay_with_their_teacher(
    tiny_model, digits, options
):
    plugin = GenerativeDistillationPlugin(**options)
    strategy = train_generator(
        tiny_model, digits.train_stream[0], plugin, Interruption(at=4)
    )
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    assert plugin.lesson.samples._teacher() is Teacher.of(strategy).model
    strategy.train(digits.train_stream[1], eval_streams=[])
    strategy.train(digits.train_stream[2], eval_streams=[])
    teacher = plugin.lesson.samples._teacher
    assert teacher is None or teacher() is None  # they are let go of with it


def test_an_interruption_of_the_generators_training_leaves_the_solver_its_replay(
    tiny_model, digits
):
    generator = train_generator(tiny_model, [], Interruption(at=3), train_steps=2)
    solver = SmallCNN(SHAPE, 10)
    replay = SoftGenerativeReplayPlugin(generator)
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        replay=replay,
        train_steps=2,
        evaluator=None,
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    learned = weights(tiny_model.denoiser), weights(solver)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    assert not same_bits(weights(tiny_model.denoiser), learned[0])
    replay.before_training_exp(strategy)
    assert same_bits(weights(replay.old_generator.denoiser), learned[0])
    assert same_bits(weights(replay.old_model), learned[1])
    assert experience_number(strategy) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize(
    "plugin",
    [
        partial(GenerativeDistillationPlugin, source="current"),
        partial(GenerativeDistillationPlugin, source="gaussian", look_ahead=1),
        partial(GenerativeReplayPlugin, look_ahead=1),
        partial(GenerativeDistillationPlugin, look_ahead=1, teacher_ema_decay=0.9),
    ],
)
def test_a_copy_between_pieces_goes_on_as_the_strategy_does(digits, plugin, after, copied):
    pieces = list(online(digits.train_stream[:2]))
    strategy = train_generator(tiny(), pieces[:after], plugin(), Steps())
    state, ends = torch.get_rng_state(), []
    for one in (copied(strategy), strategy):
        torch.set_rng_state(state)
        one.train(pieces[after : after + 1], eval_streams=[])
        (steps,) = (p for p in one.plugins if isinstance(p, Steps))
        ends.append((steps.numbers, weights(one.model)))
    assert ends[0][0] == ends[1][0] == [1 + i // 9 for i in range(3 * after + 3)]
    assert same_bits(ends[0][1], ends[1][1])


class Evaluated(SupervisedPlugin):
    def before_eval_forward(self, strategy, **kwargs):
        self.weights = weights(strategy.model)


def plain(model, plugin):
    return SupervisedTemplate(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        criterion=DenoisingLoss(),
        train_mb_size=64,
        plugins=[plugin],
        evaluator=None,
    )


@pytest.mark.parametrize("interrupted", [False, True])
@pytest.mark.parametrize("plugin", [*TEACHING, lambda: EMAPlugin(0.9), RankOneEWCPlugin])
def test_a_plugin_keeps_nothing_of_a_strategy_before(digits, plugin, interrupted):
    """It does in a second strategy what a new one does."""
    found = []
    for used in (False, True):
        one = plugin()
        if used:
            strategy = plain(tiny(), one)
            strategy.train(digits.train_stream[:2], eval_streams=[])
            if interrupted:
                strategy.plugins.append(Interruption(strategy.clock.train_iterations + 2))
                with pytest.raises(KeyboardInterrupt):
                    strategy.train(digits.train_stream[2], eval_streams=[])
        torch.manual_seed(7)
        model, evaluated = tiny(), Evaluated()
        strategy = plain(model, one)
        strategy.plugins.append(evaluated)
        strategy.eval(digits.test_stream[0])
        assert same_bits(evaluated.weights, weights(model))
        strategy.train(digits.train_stream[:2], eval_streams=[])
        found.append(weights(model))
    assert same_bits(*found)


def test_the_generator_is_always_the_model_of_the_strategy_in_training(digits):
    plugin = GenerativeReplayPlugin()
    for model in (tiny(), tiny()):
        strategy = plain(model, plugin)
        strategy.train(digits.train_stream[0], eval_streams=[])
        assert plugin.generator is model and plugin.generator_strategy is strategy
    with pytest.raises(TypeError, match="has no method generate"):
        plain(SmallCNN(SHAPE, 10), plugin).train(digits.train_stream[0])


def test_a_checkpoint_has_n_and_is_refused_between_pieces(digits):
    strategy = train_generator(tiny(), digits.train_stream[:2])
    state = strategy_state(strategy, [])
    steps = Steps()
    strategy = train_generator(tiny(), [], GenerativeDistillationPlugin(), steps)
    load_strategy_state(strategy, [], state)
    strategy.train(digits.train_stream[2], eval_streams=[])
    assert steps.numbers == [3] * 3
    pieces = list(online(digits.train_stream[:1]))
    strategy = train_generator(tiny(), pieces[:1], GenerativeDistillationPlugin())
    with pytest.raises(ValueError, match="not between the pieces"):
        strategy_state(strategy, [])
