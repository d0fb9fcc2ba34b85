"""A teacher's sampling, guided by a classifier."""

import copy
import math

import numpy as np
import pytest
import torch
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.core import SupervisedPlugin
from torch import nn

from avalanche_gd import (
    ClassifierGuidance,
    DiffusionModel,
    GenerativeDistillationPlugin,
    GuidingSolverPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from avalanche_gd.metrics.class_balance import kl_divergence
from avalanche_gd.plugins import LookAhead, ReplayPool
from avalanche_gd.plugins.experiences import ExperienceCount
from avalanche_gd.runs.learner import Learner
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import (
    CLASSES,
    PREDICTING,
    SHAPE,
    conditioned,
    images,
    seeded,
    tiny,
)
from tests.helpers.small_runs import small_config
from tests.helpers.small_trainings import fake_strategy, train_generator

TOWARDS = ("missing", "confused")


def classifier(logits=CLASSES):
    return SmallCNN(SHAPE, logits).eval()


def a_squared(scheduler, t):
    if hasattr(scheduler, "alphas_cumprod"):
        return float(scheduler.alphas_cumprod[t])
    return (1 - (t + 1) / 1000) ** 2


@pytest.mark.parametrize("scale", [3.0, 1e4])
@pytest.mark.parametrize("predicting", PREDICTING)
def test_guidance_is_the_formula_by_plain_autograd(predicting, scale):
    scheduler = PREDICTING[predicting]()
    model, judge = tiny(scheduler).double(), classifier().double()
    t, c = torch.tensor([0, 10, 300, 600, 999]), torch.tensor([0, 9, 3, 3, 5])
    x_t = images(5).double()
    guide = ClassifierGuidance(judge, scale).guide(model, c)
    found = guide(lambda x, t: model.denoise(x, t))(x_t, t).numpy()
    limited, moved = 0, []
    for i, step in enumerate(t.tolist()):
        a2 = a_squared(scheduler, step)
        a = math.sqrt(a2)
        b = 1 - a if "flow_scheduler" in predicting else math.sqrt(1 - a2)
        x = x_t[i : i + 1].clone().requires_grad_()
        output = model.denoise(x, t[i : i + 1])
        x0 = {
            "epsilon": lambda x, out, a, b: (x - b * out) / a,
            "sample": lambda x, out, a, b: out,
            "v_prediction": lambda x, out, a, b: (a * x - b * out) / (a**2 + b**2),
            "flow_prediction": lambda x, out, a, b: x - b * out,
        }[predicting.split()[0]](x, output, a, b)
        judge(x0.clamp(-1, 1)).softmax(1)[0, c[i]].log().backward()
        if a2 < 1e-6:
            expected = output
        else:
            eps = (x - a * x0) / b - scale * b * x.grad
            free = (x - b * eps) / a
            low, high = x0.clamp(max=-1), x0.clamp(min=1)
            limited += int(((free < low) | (free > high)).sum())
            x0 = torch.minimum(torch.maximum(free, low), high)
            eps = (x - a * x0) / b
            expected = {
                "epsilon": eps,
                "sample": x0,
                "v_prediction": a * eps - b * x0,
                "flow_prediction": eps - x0,
            }[predicting.split()[0]]
        assert np.abs(found[i] - expected[0].detach().numpy()).max() < 1e-6
        moved.append(float((expected - output).detach().abs().max()))
    assert limited > 0 or scale < 1e4
    assert max(moved) > 1e-4 and (moved[-1] == 0 or "ddim" in predicting)


class Uneven(nn.Module):
    """Perfect for images that are all bright (class 1), one in ten, or all dark (0)."""

    def __init__(self, process, spread=0.1, share=0.1):
        super().__init__()
        self.process, self.spread, self.share = process, spread, share
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        a, b = self.process.coefficients(t, x)
        variance = self.spread**2 * a**2 + b**2
        bright = (a * x / variance).sum(dim=(1, 2, 3), keepdim=True)  # of means of 1/2
        sign = torch.tanh(bright / 2 + math.log(self.share / (1 - self.share)) / 2)
        x0 = (0.5 * sign * b**2 + self.spread**2 * a * x) / variance
        return self.process.target(x0, (x - a * x0) / b, t)


class Brightness(nn.Module):
    """Knows them by their brightness."""

    def forward(self, x):
        bright = 6 * x.mean(dim=(1, 2, 3))
        return torch.stack([-bright, bright], dim=1)


def uneven(scheduler):
    model = tiny(scheduler)
    return DiffusionModel(Uneven(model.process), scheduler, SHAPE)


@pytest.mark.parametrize("make", [ddim_scheduler, flow_scheduler])
def test_samples_of_a_class_become_likelier_and_come_as_often_as_others(make):
    teacher, count = uneven(make()), 400
    plain = LookAhead(1, steps=10).draw(teacher, count, seeded()).images()
    guidance = ClassifierGuidance(Brightness().eval(), 3.0)
    guidance.classes = torch.tensor([0, 1])
    how = dict(steps=10, guidance=guidance)
    truth, wanted = torch.tensor([0.5, 0.5]), torch.arange(count) % 2

    def judged(samples):
        bright = (samples.mean(dim=(1, 2, 3)) > 0).double().mean()
        return kl_divergence(truth, torch.stack([1 - bright, bright]))

    for samples in (
        LookAhead(1, **how).draw(teacher, count, seeded()).images(),
        ReplayPool(count, **how).draw(teacher, count, seeded()).images(),
    ):
        assert judged(samples) < judged(plain) / 2
    noise = teacher.draw_noise(count, seeded())
    guided, free = (
        Brightness()(teacher.reverse(noise, steps=10, guide=guide)).log_softmax(1)
        for guide in (guidance.guide(teacher, wanted), None)
    )
    rows = torch.arange(count)
    assert guided[rows, wanted].mean() > free[rows, wanted].mean() + 0.1


def test_classes_are_drawn_evenly_or_are_those_that_are_asked_for():
    missing, confused = (ClassifierGuidance(towards=towards) for towards in TOWARDS)
    missing.classes = confused.classes = torch.tensor([2, 5, 7])
    counts = torch.bincount(missing.draw_classes(None, 64, seeded()))
    assert sorted(counts.tolist()) == [0] * 5 + [21, 21, 22]
    condition = torch.tensor([1, 1, 4])
    assert missing.draw_classes(condition, 3, seeded()) is condition
    assert sorted(confused.draw_classes(condition, 3, seeded()).tolist()) == [2, 5, 7]


def test_a_pool_guides_its_samples_towards_the_classes_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("avalanche_gd.plugins.pool._BATCH_SIZE", 8)
    model, guidance = conditioned(seen=(1, 4, 7)), ClassifierGuidance(classifier())
    asked, guided = [], []
    generate, guide = model.generate, guidance.guide
    model.generate = lambda n, c, **k: asked.append(c) or generate(n, c, **k)
    guidance.guide = lambda teacher, c: guided.append(c) or guide(teacher, c)
    ReplayPool(20, steps=1, guidance=guidance).draw(model, 4, seeded()).images()
    assert [len(classes) for classes in guided] == [8, 8, 4]
    assert torch.equal(torch.cat(guided), torch.cat(asked))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_classes_are_of_the_experiences_before_or_of_this_one(
    digits, parts, conditional
):
    stream = digits.train_stream
    own = [set(experience.dataset.targets.uniques) for experience in stream[:3]]
    third = stream[2]
    if parts > 1:
        pieces = split_online_stream(
            stream[:3], experience_size=len(third.dataset) // 2, access_task_boundaries=True
        )
        third = list(pieces)[-1]
    teacher = conditioned(seen=own[0] | own[1]) if conditional else tiny()
    for towards, expected in zip(TOWARDS, (own[0] | own[1], own[2]), strict=True):
        guidance = ClassifierGuidance(classifier(), towards=towards)
        guidance.begin_experience(third, teacher, counting(3))
        assert set(guidance.classes.tolist()) == expected
    guidance = ClassifierGuidance(classifier())
    guidance.begin_experience(stream[0], tiny(), counting(2))  # trained a second time
    assert set(guidance.classes.tolist()) == own[0]


def counting(number):
    count = ExperienceCount()
    count.number = number
    return count


def classes_of(stream, *places):
    return set().union(*(stream[place].dataset.targets.uniques for place in places))


@pytest.mark.parametrize(
    "order",
    [(3, 0), (4, 2), (2, 0, 1), (0, 1, 2), (0, 1, 0), (1, 1), (0, 1, 1), (0, 1, 1, 1)],
)
@pytest.mark.parametrize("in_pieces", [False, True])
def test_the_missing_classes_are_of_what_was_trained_in_whatever_order(
    digits, order, in_pieces
):
    stream, guidance = digits.train_stream, ClassifierGuidance(classifier())
    strategy = train_generator(
        tiny(), [], GenerativeDistillationPlugin(guidance=guidance), train_steps=1
    )
    for number, place in enumerate(order):
        parts = stream[place : place + 1]
        if in_pieces:
            parts = split_online_stream(parts, len(parts[0].dataset) // 2)
        for part in parts:
            strategy.train(part, eval_streams=[])
            expected = classes_of(stream, *order[:number])
            assert set(guidance.classes.tolist()) == expected


def test_two_strategies_that_share_a_guidance_have_learned_their_own_classes(digits):
    stream, guidance = digits.train_stream, ClassifierGuidance(classifier())
    solver, generator = counting(0), counting(0)
    for count, place, expected in (
        (generator, 0, None),  # alone first
        (generator, 1, (0,)),
        (solver, 2, None),
        (generator, 2, (0, 1)),
        (solver, 3, (2,)),
        (generator, 3, (0, 1, 2)),
        (solver, 3, (2, 3)),
    ):
        count.number += 1
        teacher = None if expected is None else tiny()
        guidance.begin_experience(stream[place], teacher, count)
        if expected is not None:
            assert set(guidance.classes.tolist()) == classes_of(stream, *expected)


def test_an_experience_that_was_interrupted_is_not_missing(digits):
    class Interruption(SupervisedPlugin):
        def before_forward(self, strategy, **kwargs):
            raise KeyboardInterrupt

    stream, interruption = digits.train_stream, Interruption()
    guidance = ClassifierGuidance(classifier())
    plugin = GenerativeDistillationPlugin(guidance=guidance)
    strategy = train_generator(tiny(), stream[2:3], plugin, train_steps=1)
    strategy.plugins.append(interruption)
    with pytest.raises(KeyboardInterrupt):
        strategy.train(stream[0], eval_streams=[])
    strategy.plugins.remove(interruption)
    for place, expected in ((1, (2,)), (3, (1, 2))):
        strategy.train(stream[place], eval_streams=[])
        assert set(guidance.classes.tolist()) == classes_of(stream, *expected)


def test_what_another_strategy_was_trained_on_before_is_not_missing(digits):
    stream, guidance = digits.train_stream, ClassifierGuidance(classifier())
    for first in (3, 1):
        plugin = GenerativeDistillationPlugin(guidance=guidance)
        train_generator(tiny(), [stream[first], stream[0]], plugin, train_steps=1)
        assert set(guidance.classes.tolist()) == classes_of(stream, first)


@pytest.mark.parametrize("towards", TOWARDS)
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(pool_size=40, pool_refresh=2),
        dict(pool_size=40, pool_of="pairs"),
        dict(source="snr_split", replay_ratio=0.5),
        dict(teacher_sampler="unipc"),
    ],
    ids=str,
)
def test_a_guided_plugin_leaves_classifier_and_random_state_as_they_were(
    digits, towards, options
):
    judge = classifier()
    before = weights(judge)
    finals = []
    for scale in (0.5, 0.5, 0.0):
        torch.manual_seed(0)
        model = tiny()
        guidance = ClassifierGuidance(judge, scale, towards=towards)
        plugin = GenerativeDistillationPlugin(
            generator=seeded(), guidance=guidance, lambd=100, **options
        )
        train_generator(model, digits.train_stream[:2], plugin)
        finals.append(weights(model))
        assert model.training
    assert same_bits(finals[0], finals[1]) and not same_bits(finals[0], finals[2])
    assert not judge.training and same_bits(weights(judge), before)
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_guided_sampling_leaves_mode_gradients_and_random_state():
    model, judge = tiny(), classifier()
    for module in (model, judge):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    guide = ClassifierGuidance(judge).guide(model, torch.arange(4))
    state = torch.get_rng_state()
    guided = model.generate(4, steps=2, generator=seeded(), guide=guide)
    assert not guided.requires_grad and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(guided, model.generate(4, steps=2, generator=seeded(), guide=guide))
    assert not torch.equal(guided, model.generate(4, steps=2, generator=seeded()))
    for module, mode in ((model, True), (judge, False)):
        assert all(part.training == mode for part in module.modules())
        assert all((p.grad == 1).all() and p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(("towards", "index"), [("missing", 0), ("confused", 1)])
def test_a_run_is_guided_by_its_solver_before_or_after_the_experience(
    digits, tmp_path, towards, index
):
    name = {"missing": "balanced", "confused": "guide"}[towards] + "_distillation"
    learner = Learner(small_config(tmp_path, f"method={name}"))
    (plugin,) = learner.method_plugins["generator"]
    solver, found = learner.strategies["solver"].model, []
    begin = plugin.before_training_exp
    plugin.before_training_exp = lambda strategy, **kwargs: (
        begin(strategy, **kwargs) or found.append(weights(plugin.guidance.classifier))
    )
    learner.train(digits.train_stream[0])
    ends = [weights(solver)]
    learner.train(digits.train_stream[1])
    ends.append(weights(solver))
    assert same_bits(found[1], ends[index]) and not same_bits(ends[0], ends[1])
    assert plugin.guidance.classifier is not solver


def test_what_is_no_guidance_is_refused():
    with pytest.raises(
        ValueError, match="the classifier of the guidance is in training mode; call"
    ):
        ClassifierGuidance(SmallCNN(SHAPE, 3))
    with pytest.raises(TypeError, match="the classifier must be a module, got 'solver'"):
        ClassifierGuidance("solver")
    with pytest.raises(ValueError, match="towards 'old'; choose from missing, confused"):
        ClassifierGuidance(classifier(), towards="old")
    with pytest.raises(TypeError, match="guidance must be a ClassifierGuidance, got 3"):
        GenerativeDistillationPlugin(guidance=3)
    for source in ("gaussian", "current", "partial_generation", "trajectory"):
        with pytest.raises(
            ValueError, match=r"guidance, .* for sources that take the teacher's samples"
        ):
            GenerativeDistillationPlugin(source=source, guidance=ClassifierGuidance())


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (None, "guidance has no classifier; give it one, or add a GuidingSolverPlugin"),
        (classifier(), "the classifier of the guidance is in training mode"),
        (classifier(1), "the classifier has 1 logits and does not know class"),
    ],
)
@pytest.mark.parametrize("towards", TOWARDS)
def test_a_classifier_that_cannot_guide_is_refused_when_an_experience_begins(
    digits, judge, message, towards
):
    judge = copy.deepcopy(judge)
    guidance = ClassifierGuidance(judge, towards=towards)
    if "training mode" in message:
        judge.hidden.train()
    with pytest.raises(ValueError, match=message) as refused:
        guidance.begin_experience(digits.train_stream[1], tiny(), counting(2))
    assert "\n" not in str(refused.value)


def test_a_solver_guides_by_a_copy(digits):
    solver, guidance = SmallCNN(SHAPE, 3), ClassifierGuidance()
    plugin = GuidingSolverPlugin(guidance, solver)
    assert solver.training and not guidance.classifier.training
    first = guidance.classifier
    plugin.after_training_exp(fake_strategy(solver))
    assert guidance.classifier is first
    begun = fake_strategy(solver, experience=digits.train_stream[0])
    plugin.before_train_dataset_adaptation(begun)
    assert guidance.classifier is not first


def test_the_solver_from_before_an_experience_guides_all_of_its_pieces(digits):
    solver, guidance = SmallCNN(SHAPE, 10), ClassifierGuidance()
    plugin = GuidingSolverPlugin(guidance, solver)
    generator = train_generator(tiny(), [], GenerativeDistillationPlugin(guidance=guidance))
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.SGD(solver.parameters(), 0.1),
        replay=SoftGenerativeReplayPlugin(generator),
        plugins=[plugin],
        train_steps=1,
        evaluator=None,
    )
    strategy.train(digits.train_stream[0], eval_streams=[])
    before = weights(solver)
    for piece in split_online_stream(digits.train_stream[1:2], 100):
        strategy.train(piece, eval_streams=[])
        assert same_bits(weights(guidance.classifier), before)
    now = weights(solver)
    strategy.train(digits.train_stream[2], eval_streams=[])
    assert same_bits(weights(guidance.classifier), now) and not same_bits(now, before)
