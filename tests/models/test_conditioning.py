"""Models conditioned on the class."""

import copy
import threading
from functools import partial

import numpy as np
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from torch import nn

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    DiffusionTraining,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from avalanche_gd.data.model_space import as_dataset
from avalanche_gd.metrics import Sampling, generate_images
from avalanche_gd.models.sampler import SAMPLERS
from avalanche_gd.plugins import SOURCES, LookAhead, ReplayPool, Teacher
from tests.helpers.bits import same_bits, weights
from tests.helpers.lessons import request_of
from tests.helpers.small_models import (
    CLASSES,
    PREDICTING,
    SHAPE,
    conditioned,
    images,
    seeded,
)
from tests.helpers.small_trainings import fake_strategy


def test_the_criterion_conditions_the_denoising():
    model, labels = conditioned(), torch.tensor([3, 1, 4])
    torch.manual_seed(5)
    output = model(images(3))
    loss = DenoisingLoss()(output, labels)
    noised = output.noised
    expected = model.denoise(noised.x_t, noised.timesteps, labels)
    assert torch.equal(output.given(labels).prediction, expected)
    assert loss.item() == pytest.approx((expected - noised.target).square().mean().item())


def test_asking_again_for_the_same_labels_costs_no_pass():
    model, labels, passes = conditioned(), torch.tensor([3, 1, 4]), []
    model.denoiser.register_forward_hook(lambda *_: passes.append(1))
    output = model(images(3))
    assert torch.equal(DenoisingLoss()(output, labels), DenoisingLoss()(output, labels))
    assert len(passes) == 1
    DenoisingLoss()(output, labels.clone())
    assert len(passes) == 2


def test_classes_are_left_out_as_often_as_asked_and_only_in_training():
    model = conditioned(dropout=0.25)
    seen = []
    model.denoiser.register_forward_hook(
        lambda m, inputs, kw, out: seen.append(kw["class_labels"]), with_kwargs=True
    )
    labels = torch.arange(4000) % CLASSES
    model(images(4000)).given(labels)
    model.eval()
    model(images(4000)).given(labels)
    without = (seen[0] == CLASSES).float().mean().item()
    assert without == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][seen[0] < CLASSES], labels[seen[0] < CLASSES])
    assert torch.equal(seen[1], labels)


def test_samples_are_of_the_classes_asked_for():
    model = conditioned()
    noise = model.draw_noise(6, seeded())
    wanted = torch.tensor([0, 1, 2, 3, 4, 5])
    together = model.reverse(noise, wanted, steps=3)
    alone = [model.reverse(noise[i : i + 1], wanted[i : i + 1], steps=3) for i in range(6)]
    assert (together - torch.cat(alone)).abs().max() < 1e-6
    others = model.reverse(noise, wanted.flip(0), steps=3)
    assert (together - others).abs().max() > 1e-3


def test_without_a_condition_classes_are_drawn_evenly_over_those_seen():
    model = conditioned(seen=(2, 3, 7))
    counts = torch.bincount(model.draw_condition(64, seeded()), minlength=CLASSES)
    assert sorted(counts.tolist()) == [0] * 7 + [21, 21, 22]
    assert counts[[2, 3, 7]].min() == 21
    once_more = {
        int(torch.bincount(model.draw_condition(4, seeded(i))).argmax()) for i in range(20)
    }
    assert once_more == {2, 3, 7}
    state = torch.get_rng_state()
    assert model.generate(5, steps=1).shape == (5, *SHAPE)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("predicting", PREDICTING)
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guidance_is_the_formula(guidance, predicting):
    model = conditioned(0.1, guidance, scheduler=PREDICTING[predicting]())
    noise, labels = model.draw_noise(4, seeded()), torch.tensor([1, 5, 5, 9])
    with torch.no_grad():
        given = model.denoise(noise, torch.full((4,), 999), labels).numpy()
        without = model.denoise(
            noise, torch.full((4,), 999), torch.full((4,), CLASSES)
        ).numpy()
    guided, x = without + guidance * (given - without), noise.numpy()
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[999]
    a, b = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    expected = {
        "epsilon of ddim_scheduler": (x - b * guided) / a,
        "sample of ddim_scheduler": guided,
        "v_prediction of ddim_scheduler": a * x - b * guided,
        "flow_prediction of flow_scheduler": x - guided,
        "sample of flow_scheduler": guided,
        "v_prediction of flow_scheduler": -guided,  # at T - 1, a = 0 and b = 1
    }[predicting].clip(-1, 1)
    assert np.abs(model.reverse(noise, labels, steps=1).numpy() - expected).max() < 1e-4


def sampled_by_a_source(name):
    def sample(model):
        SOURCES[name]().draw(request_of(model, images(4), steps=2))

    return sample


SAMPLED = {
    "generate": lambda model: model.generate(4, steps=2),
    **{
        sampler: lambda model, sampler=sampler: model.generate(4, steps=2, sampler=sampler)
        for sampler in SAMPLERS
    },
    "metrics": lambda model: generate_images(model, Sampling(images=4, steps=2)),
    "ahead": lambda model: LookAhead(2, steps=2).draw(model, 4, seeded()).images(),
    "pool": lambda model: ReplayPool(4, steps=2).draw(model, 4, seeded()).images(),
    **{
        name: sampled_by_a_source(name)
        for name in ("generation", "partial_generation", "trajectory")
    },
}


@pytest.mark.parametrize("scheduler", [ddim_scheduler, flow_scheduler])
@pytest.mark.parametrize("how", SAMPLED)
def test_all_sampling_is_guided(how, scheduler):
    model, asked = conditioned(0.1, 2.0, seen=(1, 2), scheduler=scheduler()), []
    model.condition_dropout = 0.0  # so that a trajectory has a class
    model.denoiser.register_forward_hook(
        lambda m, inputs, kw, out: asked.append(kw["class_labels"]), with_kwargs=True
    )
    with torch.no_grad():
        SAMPLED[how](model)
    assert len(asked) >= 2
    for labels in asked[:2]:
        given, without = labels.chunk(2)
        assert set(given.tolist()) <= {1, 2} and set(without.tolist()) == {CLASSES}


def test_training_learns_which_classes_there_are(digits):
    model = DiffusionModel.from_preset("digits", num_classes=10)
    with pytest.raises(ValueError, match="seen no class yet"):
        model.generate(2)
    DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        train_steps=2,
        evaluator=None,
    ).train(digits.train_stream[0], eval_streams=[])
    seen = set(model.classes_seen.nonzero().flatten().tolist())
    assert seen == set(digits.train_stream[0].classes_in_this_experience)


@pytest.mark.parametrize("predicting", PREDICTING)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", [name for name in SOURCES if name != "trajectory"])
def test_every_source_distils_under_the_same_condition(name, dropout, predicting):
    teacher = conditioned(dropout, seen=(2, 3, 7), scheduler=PREDICTING[predicting]())
    student = conditioned(dropout, scheduler=PREDICTING[predicting]())
    plugin = GenerativeDistillationPlugin(source=name, look_ahead=1, generator=seeded())
    batch = dict(mb_x=images(64), mb_y=torch.ones(64), mb_output=None)
    strategy = fake_strategy(student, 2, **batch, _criterion=DenoisingLoss())
    Teacher.of(strategy).freeze(teacher)
    asked = {}
    for owner, model in (("teacher", Teacher.of(strategy).model), ("student", student)):
        model.denoiser.register_forward_hook(
            lambda m, inputs, kw, out, owner=owner: asked.setdefault(owner, []).append(
                (inputs[0], inputs[1], kw["class_labels"], out)
            ),
            with_kwargs=True,
        )
    loss = plugin.distillation_loss(strategy)
    (x, t, condition, prediction) = asked["student"][-1]
    (x_t, t_t, condition_t, target) = asked["teacher"][-1]
    assert torch.equal(x, x_t) and torch.equal(t, t_t)
    assert torch.equal(condition, condition_t)
    assert loss.item() == pytest.approx((prediction - target).square().mean().item())
    kept = condition[condition < CLASSES]
    assert set(kept.tolist()) == {2, 3, 7}
    assert (len(kept) == 64) == (dropout == 0)
    for *_, sampled, _ in asked["teacher"][:-1]:  # sampling never leaves a class out
        evenly = len(sampled) // 3
        assert torch.bincount(sampled, minlength=8)[[2, 3, 7]].min() >= evenly > 3


def test_a_generator_replays_its_samples_under_the_classes_they_were_made_for():
    model = conditioned(seen=(2, 3))
    plugin = GenerativeReplayPlugin(generator=seeded())
    strategy = fake_strategy(model, 2, mbatch=["x", "y", "t"], mb_output="output")
    strategy.forward = lambda: model(strategy.mbatch[0])
    asked = []
    strategy.criterion = lambda: (
        asked.append(strategy.mbatch[1]),
        DenoisingLoss()(strategy.mb_output, strategy.mbatch[1]),
    )[1]
    plugin.before_training(strategy)
    plugin.old_generator = model
    samples, condition = plugin.generate(strategy, 8)
    plugin.replay_loss(strategy, samples, condition)
    assert torch.equal(asked[0], condition)
    assert sorted(condition.tolist()) == [2] * 4 + [3] * 4


def test_a_solver_may_take_the_condition_as_the_label():
    new, old = SmallCNN(SHAPE, CLASSES), SmallCNN(SHAPE, CLASSES)
    plugin = SoftGenerativeReplayPlugin(fake_strategy(conditioned()), labels="condition")
    plugin.old_model = old
    samples, labels = images(6), torch.tensor([0, 1, 2, 3, 4, 9])
    strategy = fake_strategy(new, mbatch=["x", "y", "t"], mb_output="output")
    strategy.forward = lambda: new(strategy.mbatch[0])
    strategy.criterion = lambda: nn.functional.cross_entropy(
        strategy.mb_output, strategy.mbatch[1]
    )
    loss = plugin.replay_loss(strategy, samples, labels)
    log_probability = new(samples).log_softmax(1).detach().numpy()
    assert abs(loss.item() + log_probability[np.arange(6), labels].mean()) < 1e-6


def test_a_condition_of_an_unconditioned_model_is_refused(tiny_model):
    with pytest.raises(ValueError, match="make it with num_classes="):
        tiny_model.denoise(images(2), torch.zeros(2).long(), torch.zeros(2).long())
    with pytest.raises(ValueError, match="make it with num_classes="):
        tiny_model.generate(2, condition=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="needs a generator that is conditioned"):
        GenerativeReplayPlugin(fake_strategy(tiny_model), labels="condition")
    with pytest.raises(ValueError, match="choose from solver, condition"):
        GenerativeReplayPlugin(labels="oracle")


def test_a_conditioned_model_without_a_condition_is_refused():
    with pytest.raises(ValueError, match="give condition="):
        conditioned().denoise(images(2), torch.zeros(2).long())
    with pytest.raises(ValueError, match="trained with labels"):
        DenoisingLoss()(conditioned()(images(2)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 10]), "from 0 to num_classes - 1 = 9, got 10"),
        (torch.tensor([-1, 0]), "got -1"),
        (torch.tensor([0, 1, 2]), "must be 2 integers"),
        (torch.tensor([0.0, 1.0]), "must be 2 integers"),
        (torch.tensor([True, False]), "must be 2 integers"),
        (torch.tensor([0j, 1]), "must be 2 integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    model = conditioned()
    with pytest.raises(ValueError, match=message):
        model.generate(2, condition=labels)
    with pytest.raises(ValueError, match=message):
        DenoisingLoss()(model(images(2)), labels)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int32, torch.int64])
def test_labels_of_any_integers_are_numbers_of_classes(kind):
    model = conditioned(seen=())
    labels = torch.tensor([3, 1])
    DenoisingLoss()(model(images(2)), labels.to(kind))
    assert model.classes_seen.nonzero().flatten().tolist() == [1, 3]
    given = (labels.to(kind), labels)
    samples = [model.generate(2, one, generator=seeded()) for one in given]
    assert torch.equal(*samples)


def test_a_class_that_the_model_has_not_is_refused_before_any_training(digits):
    model = DiffusionModel.from_preset("digits", num_classes=5)
    before = weights(model)
    strategy = DiffusionTraining(
        model=model, optimizer=torch.optim.Adam(model.parameters()), evaluator=None
    )
    with pytest.raises(ValueError, match=r"has class \d, but .* num_classes - 1 = 4"):
        strategy.train(digits.train_stream)
    assert same_bits(weights(model), before)


def test_a_class_below_zero_is_refused_before_any_training():
    data = as_dataset(images(4), torch.tensor([0, 1, -1, 1]))
    model = DiffusionModel.from_preset("digits", num_classes=2)
    before = weights(model)
    strategy = DiffusionTraining(
        model=model, optimizer=torch.optim.Adam(model.parameters()), evaluator=None
    )
    with pytest.raises(ValueError, match="has class -1, but labels must be from 0 to"):
        strategy.train(benchmark_from_datasets(train=[data]).train_stream)
    assert same_bits(weights(model), before)


class Counter:
    """Counts images by a method, and holds what must not be copied with it."""

    def __init__(self):
        self.images, self.backward = 0, 0
        self.lock = threading.Lock()

    def note(self, count):
        self.images += count
        return self.note_backward

    def note_backward(self):
        self.backward += 1

    def note_under(self, name, count):
        return self.note(count)


@pytest.mark.parametrize("bind", [lambda c: c.note, lambda c: partial(c.note_under, "n")])
def test_the_hooks_of_a_models_copies_are_its_own(bind):
    model, counter = conditioned(), Counter()
    hook = bind(counter)
    model.pass_hooks.append(hook)
    teacher = copy.deepcopy(model)
    assert teacher.pass_hooks[0] is hook and teacher.pass_hooks is not model.pass_hooks
    again = copy.deepcopy(teacher)
    for one, count in ((model, 2), (teacher, 3), (again, 4)):
        output = one.denoise(images(count), torch.zeros(count).long(), torch.arange(count))
        output.sum().backward()
    assert (counter.images, counter.backward) == (9, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(num_classes=0), "num_classes must be an integer of 1 or more"),
        (dict(num_classes=3, condition_dropout=1.0), r"in \[0, 1\)"),
        (dict(num_classes=3, guidance=2.0), "give condition_dropout"),
        (dict(num_classes=3, condition_dropout=0.1, guidance=-1.0), "0 or more"),
        (dict(guidance=2.0), "need num_classes="),
        (dict(condition_dropout=0.1), "need num_classes="),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionModel.from_preset("digits", **options)
