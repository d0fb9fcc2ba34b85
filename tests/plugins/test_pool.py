"""The replay pool."""

import copy
import pickle
from functools import partial

import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from avalanche_gd.functional import Ahead, draw
from avalanche_gd.models.sampler import SAMPLERS
from avalanche_gd.plugins import LookAhead, PairPool, ReplayPool, Taught, Teacher
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import note_lessons
from tests.helpers.small_models import CLASSES, SHAPE, conditioned, seeded, tiny
from tests.helpers.small_trainings import train_generator


class Frozen(SupervisedPlugin):
    """Keeps the last teacher of a strategy."""

    teacher = None

    def before_backward(self, strategy, **kwargs):
        Frozen.teacher = Teacher.of(strategy).model or Frozen.teacher


def test_a_pool_is_what_the_teacher_generates(tiny_model):
    pool = ReplayPool(40, steps=3)
    drawn = pool.draw(tiny_model, 400, seeded()).images()
    expected = tiny_model.generate(40, steps=3, generator=seeded())
    distances = (drawn[:, None] - expected[None]).abs().amax(dim=(2, 3, 4))
    assert distances.min(dim=1).values.max() < 1e-6
    assert len(distances.argmin(dim=1).unique()) == 40  # all of them come up


def test_a_pool_is_filled_anew_for_another_teacher_and_when_it_is_due(tiny_model):
    filled = []
    generate = tiny_model.generate
    tiny_model.generate = lambda *a, **k: filled.append(a) or generate(*a, **k)
    pool, generator = ReplayPool(10, refresh_every=3, steps=1), seeded()
    for _ in range(7):
        pool.draw(tiny_model, 4, generator).images()
    assert len(filled) == 3
    pool.draw(conditioned(), 4, generator).images()
    assert len(filled) == 3
    pool.draw(tiny_model, 4, generator).images()
    assert len(filled) == 4


def test_a_pool_gives_the_classes_that_it_says():
    model = conditioned(seen=(2, 3, 7))
    wanted, drawn_images = ReplayPool(31, steps=1).draw(model, 160, seeded())
    drawn = drawn_images()
    generator = seeded()
    assert torch.equal(wanted, model.draw_condition(160, generator))
    condition = model.draw_condition(31, generator).sort().values
    generated = model.generate(31, condition, steps=1, generator=generator)
    distances = (drawn[:, None] - generated[None]).abs().amax(dim=(2, 3, 4))
    assert distances.min(dim=1).values.max() < 1e-6
    assert torch.equal(condition[distances.argmin(dim=1)], wanted)


@pytest.mark.parametrize("new", [1, CLASSES - 1])  # between the old classes, after them
def test_a_class_that_a_teacher_gets_to_know_later_waits_for_the_next_filling(new):
    teacher, generator = conditioned(seen=(0, 2)), seeded()
    teacher.generate = lambda count, classes, **_: classes  # in the place of images
    pool = ReplayPool(40, refresh_every=2, steps=1)
    pool.draw(teacher, 8, generator).images()
    teacher.see_classes(torch.tensor([new]))
    for classes in ((0, 2), (0, 2, new)):
        condition, drawn_images = pool.draw(teacher, 9, generator)
        assert set(condition.tolist()) == set(classes)
        assert torch.equal(drawn_images(), condition)


def test_a_pool_never_reaches_into_the_next_class(monkeypatch):
    class Numbered:
        """A teacher whose samples say in which place they were made."""

        num_classes, made = CLASSES, 0
        classes_seen = torch.ones(CLASSES)

        def draw_condition(self, count, generator):
            return torch.arange(count) % CLASSES

        def generate(self, count, condition, **options):
            first, self.made = self.made, self.made + count
            return torch.arange(first, first + count)

    pool, teacher = ReplayPool(2000, steps=1), Numbered()
    almost_one = 1 - 2**-24  # the largest number that torch.rand draws
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), almost_one))
    condition, drawn_images = pool.draw(teacher, CLASSES, seeded())
    assert drawn_images().tolist() == (condition * 200 + 199).tolist()


@pytest.mark.parametrize("scheduler", [ddim_scheduler, flow_scheduler])
@pytest.mark.parametrize("make", [tiny, conditioned])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", [partial(LookAhead, 3), partial(ReplayPool, 20, 2)])
def test_all_that_is_drawn_comes_from_the_generator(kind, sampler, make, scheduler):
    teacher = make(scheduler=scheduler())
    state, drawn = torch.get_rng_state(), []
    for _ in range(2):
        samples, generator = kind(steps=2, sampler=sampler), seeded()
        steps = [samples.draw(teacher, 5, generator).images() for _ in range(4)]
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(torch.cat(steps))
        state = torch.manual_seed(7).get_state()
    assert torch.equal(*drawn)


@pytest.mark.parametrize("make", [tiny, partial(conditioned, seen=(2, 3))])
def test_a_pool_of_pairs_holds_what_the_teacher_predicts(make, digits):
    model = make()
    plugin = GenerativeDistillationPlugin(pool_size=12, pool_of="pairs", generator=seeded())
    batches = note_lessons(plugin)
    train_generator(
        model, digits.train_stream[:2], plugin, Frozen(), train_steps=4, train_mb_size=64
    )
    x_t, t, target, condition = Taught.joined(batches)
    assert len(x_t) == 4 * 64 and len(t.unique()) <= 12
    with torch.no_grad():
        expected = Frozen.teacher.denoise(x_t, t, condition)
    assert (target - expected).abs().max() < 1e-5
    pairs = {(int(when), float(image.sum())) for when, image in zip(t, x_t, strict=True)}
    assert 8 <= len(pairs) <= 12  # drawn with replacement from as many


def test_a_pool_of_pairs_is_filled_anew_when_it_is_due_and_for_another_teacher(tiny_model):
    made, generator = [], seeded()

    def make(count):
        made.append(count)
        return Taught(*(torch.zeros(count, 1, 1, 1), torch.zeros(count)) * 2)._replace(
            condition=None
        )

    pool = PairPool(1200, refresh_every=2)
    for _ in range(3):
        assert len(pool.draw(tiny_model, 7, generator, make).x_t) == 7
    assert made == [500, 500, 200] * 2
    pool.draw(conditioned(), 7, generator, make)
    assert len(made) == 9


@pytest.mark.parametrize("source", ["generation", "gaussian", "partial_generation"])
@pytest.mark.parametrize("make", [tiny, partial(conditioned, dropout=0.5, seen=(2, 3))])
def test_what_is_taught_ahead_is_taught_as_step_by_step(source, make):
    """The same draws in another order: those of three steps, one kind after the other."""
    teacher = make()
    ahead, generator = Ahead(3), seeded()
    with torch.no_grad():
        steps = [
            draw(source, teacher, 5, generator=generator, ahead=ahead) for _ in range(3)
        ]
        whole = Taught.joined(steps)
        assert [len(step.x_t) for step in steps] == [5, 5, 5]
        expected = teacher.denoise(whole.x_t, whole.timesteps, whole.condition)
    assert (whole.target - expected).abs().max() < 1e-5
    plain = seeded()
    classes = [teacher.draw_condition(5, plain) for _ in range(3)]
    if source == "generation":
        noise = torch.cat([teacher.draw_noise(5, plain) for _ in range(3)])
        condition = None if classes[0] is None else torch.cat(classes)
        samples = teacher.reverse(noise, condition, steps=2)
    t = torch.cat([torch.randint(1000, (5,), generator=plain) for _ in range(3)])
    assert torch.equal(whole.timesteps, t)
    noise = torch.cat([teacher.draw_noise(5, plain) for _ in range(3)])
    if source == "generation":
        assert (whole.x_t - teacher.add_noise(samples, noise, t)).abs().max() < 1e-5
    if source == "gaussian":
        assert torch.equal(whole.x_t, noise)
    for step, drawn in zip(steps, classes, strict=True):
        if drawn is not None:
            dropped = teacher.drop_condition(drawn, plain)
            assert torch.equal(step.condition, dropped)


@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_what_is_made_ahead_is_what_would_be_made_step_by_step(num_classes):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes)
    if num_classes:
        model.see_classes(torch.tensor([2, 3, 7]))
    ahead, generator = LookAhead(3, steps=2), seeded()
    steps = [ahead.draw(model, 5, generator) for _ in range(3)]
    made = [step.images() for step in steps]
    plain = seeded()
    conditions = [model.draw_condition(5, plain) for _ in range(3)]
    for condition, step, images in zip(conditions, steps, made, strict=True):
        expected = model.reverse(model.draw_noise(5, plain), condition, steps=2)
        assert (images - expected).abs().max() < 1e-5
        assert step.condition is condition is None or torch.equal(step.condition, condition)


def test_samples_are_made_ahead_once_for_as_many_steps_as_asked(tiny_model):
    sizes = []
    reverse = tiny_model.reverse
    tiny_model.reverse = lambda noise, *a, **k: (
        sizes.append(len(noise)) or reverse(noise, *a, **k)
    )
    ahead, generator = LookAhead(4, steps=1), seeded()
    for _ in range(5):
        assert len(ahead.draw(tiny_model, 6, generator).images()) == 6
    assert sizes == [24, 24]
    assert len(ahead.draw(tiny_model, 2, generator).images()) == 2  # of a last, small batch
    assert sizes == [24, 24, 2]
    ahead.draw(tiny_model, 6, generator).images()
    assert sizes == [24, 24, 2]  # what waits is not lost by it
    ahead.forget()
    ahead.draw(tiny_model, 6, generator)  # of a source that takes no samples
    assert sizes == [24, 24, 2]
    ahead.forget()
    for left in (2, 1):  # no more than will be asked for
        ahead.draw(tiny_model, 6, generator, steps_left=left).images()
    assert sizes == [24, 24, 2, 12]


@pytest.mark.parametrize(
    "plugin",
    [
        GenerativeDistillationPlugin,
        partial(GenerativeDistillationPlugin, source="snr_split"),
        partial(GenerativeDistillationPlugin, pool_size=12),
        partial(GenerativeDistillationPlugin, pool_size=12, pool_of="pairs"),
        GenerativeReplayPlugin,
    ],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_strategy_can_be_pickled_after_its_teacher_has_taught(digits, plugin, in_pieces):
    stream = digits.train_stream[:3]
    if in_pieces:
        stream = split_online_stream(stream, 120, seed=0)
    experiences = list(stream)[: 5 if in_pieces else 2]
    strategy = train_generator(tiny(), experiences, plugin())
    copied = pickle.loads(pickle.dumps(strategy))
    assert same_bits(weights(copied.model), weights(strategy.model))
    following = list(stream)[len(experiences)]
    copied.train(following, eval_streams=[])
    assert not same_bits(weights(copied.model), weights(strategy.model))
    assert (Teacher.of(copied).model is None) is not in_pieces


def test_a_copied_pool_is_filled_by_the_teacher_that_it_is_asked_of(tiny_model):
    pool = ReplayPool(9, steps=1)
    pool.draw(tiny_model, 4, seeded()).images()
    copied, other = copy.deepcopy(pool), tiny()
    assert copied.size == 9 and copied._images is None
    drawn, again = (one.draw(other, 4, seeded()).images() for one in (copied, pool))
    assert torch.equal(drawn, again)


@pytest.mark.parametrize("make", [tiny, partial(conditioned, seen=(2, 3, 7))])
@pytest.mark.parametrize("kind", [partial(LookAhead, 3), partial(ReplayPool, 20)])
def test_a_step_gets_the_first_so_many_as_often_as_it_asks(kind, make):
    teacher, samples, generator = make(), kind(steps=2), seeded()
    for number in (5, 3, 7, 0, 8):
        drawn = samples.draw(teacher, 8, generator)
        first = drawn.images(number)
        whole = drawn.images()
        assert first.shape == (number, *SHAPE) and whole.shape == (8, *SHAPE)
        assert torch.equal(whole[:number], first)
        assert torch.equal(drawn.images(4), whole[:4])
    with pytest.raises(ValueError, match="number must be an integer from 0 to 8, got 9"):
        drawn.images(9)


def test_the_samples_that_were_missing_are_of_their_classes():
    teacher, asked = conditioned(seen=(2, 3, 7)), []
    teacher.denoiser.register_forward_hook(
        lambda module, inputs, kw, out: asked.append(kw["class_labels"]), with_kwargs=True
    )
    drawn = LookAhead(1, steps=1).draw(teacher, 8, seeded())
    for number in (3, 5, 8):
        drawn.images(number)
    assert [len(classes) for classes in asked] == [3, 2, 3]
    assert torch.equal(torch.cat(asked), drawn.condition)


def test_a_solvers_pool_is_of_its_generator_as_it_is_now(tiny_model, digits):
    generator = train_generator(tiny_model, [], train_steps=2)
    solver = SmallCNN(SHAPE, 10)
    plugin = GenerativeReplayPlugin(generator, pool_size=8)
    filled, generate = [], tiny_model.generate
    tiny_model.generate = lambda *a, **k: (
        filled.append(weights(tiny_model.denoiser)) or generate(*a, **k)
    )
    SupervisedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        train_mb_size=64,
        plugins=[plugin],
        evaluator=None,
    ).train(digits.train_stream[:3], eval_streams=[])
    assert len(filled) == 2
    assert not same_bits(*filled)


@pytest.mark.parametrize(("refresh", "fills"), [(None, 1), (2, 3)])
def test_the_template_of_a_solver_replays_from_a_pool(tiny_model, digits, refresh, fills):
    solver, sizes = SmallCNN(SHAPE, 10), []
    generate = tiny_model.generate
    tiny_model.generate = lambda n, *a, **k: sizes.append(n) or generate(n, *a, **k)
    SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        replay=SoftGenerativeReplayPlugin(
            train_generator(tiny_model, [], train_steps=2),
            pool_size=9,
            pool_refresh=refresh,
        ),
        train_steps=6,
        evaluator=None,
    ).train(digits.train_stream[:2], eval_streams=[])
    assert sizes == [9] * fills


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_pool_that_the_memory_cannot_hold_is_refused_with_its_size(
    tiny_model, digits, plugin
):
    with pytest.raises(
        ValueError, match=r"pool of 10+ samples needs 2\d+\.\d GiB, more than"
    ):
        train_generator(tiny_model, digits.train_stream[:1], plugin(pool_size=10**9))


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
@pytest.mark.parametrize("size", [1, CLASSES - 1, CLASSES])
def test_a_pool_smaller_than_the_number_of_classes_is_refused_before_training(
    digits, plugin, size
):
    model = conditioned(seen=())
    before = weights(model)
    if size == CLASSES:
        train_generator(model, digits.train_stream[:2], plugin(pool_size=size))
        return
    with pytest.raises(
        ValueError, match=f"a pool of {size} samples .* for 10 classes; give"
    ):
        train_generator(model, digits.train_stream[:2], plugin(pool_size=size))
    assert same_bits(weights(model), before)


@pytest.mark.parametrize("size", [CLASSES - 1, CLASSES])
def test_a_pool_of_pairs_smaller_than_the_number_of_classes_is_refused_too(size):
    plugin = GenerativeDistillationPlugin(pool_size=size, pool_of="pairs")
    model, seen = conditioned(), conditioned(seen=(2, 3, 7))
    if size == CLASSES:
        plugin.check_model(model)
        return
    with pytest.raises(ValueError, match=f"a pool of {size} samples .* for 10 classes"):
        plugin.check_model(model)
    with pytest.raises(ValueError, match="for 3 classes; give a pool_size of 3 or more"):
        draw("generation", seen, 8, generator=seeded(), pairs=PairPool(2))
    drawn = draw("generation", seen, 8, generator=seeded(), pairs=PairPool(3))
    assert set(drawn.condition.tolist()) <= {2, 3, 7}


@pytest.mark.parametrize("seen", [(3,), (2, 3, 7), range(CLASSES)])
def test_a_pool_of_each_class_holds_every_class_as_often(seen):
    model, asked = conditioned(seen=seen), []
    generate = model.generate
    model.generate = lambda n, c, **k: asked.append(c) or generate(n, c, **k)
    pool = ReplayPool(60, steps=1, per_class=True)
    pool.draw(model, 16, seeded()).images()
    counts = torch.bincount(torch.cat(asked), minlength=CLASSES)
    assert counts.tolist() == [60 * (c in seen) for c in range(CLASSES)]


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_plugin_fills_its_pool_with_so_many_of_each_class_that_it_knows(digits, plugin):
    model, sizes = conditioned(seen=()), []
    generate = DiffusionModel.generate

    def noting(self, n, *arguments, **options):
        sizes.append(n)
        return generate(self, n, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionModel, "generate", noting)
        train_generator(model, digits.train_stream[:3], plugin(pool_per_class=7))
    assert sizes == [2 * 7, 4 * 7]


@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_a_pool_of_each_class_is_refused_before_training_where_it_cannot_be(
    tiny_model, digits, plugin
):
    message = "pool_per_class needs a model that is conditioned on the class; make it with"
    with pytest.raises(ValueError, match=message):
        train_generator(tiny_model, digits.train_stream[:1], plugin(pool_per_class=7))
    with pytest.raises(
        ValueError, match=r"pool of 10+ samples needs 2\d+\.\d GiB, more than"
    ):
        train_generator(
            conditioned(), digits.train_stream[:1], plugin(pool_per_class=10**8)
        )


def test_a_pool_of_ones_own_holds_one_of_each_class_or_is_refused():
    model = conditioned(seen=(2, 3, 7))
    for size in (1, 2):
        with pytest.raises(
            ValueError, match="for 3 classes; give a pool_size of 3 or more"
        ):
            ReplayPool(size, steps=1).draw(model, 8, seeded()).images()
    condition, drawn_images = ReplayPool(3, steps=1).draw(model, 8, seeded())
    drawn = drawn_images()
    for c in (2, 3, 7):  # one image each
        assert (drawn[condition == c] == drawn[condition == c][0]).all()
