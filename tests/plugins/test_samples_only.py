"""A solver that is taught on samples only, and replay that the solver guides."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from avalanche_gd import (
    ClassifierGuidance,
    DiffusionModel,
    DiffusionTraining,
    GuidingSolverPlugin,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    ddim_scheduler,
    flow_scheduler,
)
from avalanche_gd.plugins.regeneration import regenerate
from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import make_benchmark, run
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, conditioned, images, seeded, tiny
from tests.helpers.small_runs import metrics, run_killed_after, small_config
from tests.helpers.small_trainings import fake_strategy

LAST = 999


def alpha_bar(scheduler, t):
    if hasattr(scheduler, "alphas_cumprod"):
        return float(scheduler.alphas_cumprod[t])
    return (1 - (t + 1) / 1000) ** 2


@pytest.mark.parametrize("make", [ddim_scheduler, flow_scheduler])
@pytest.mark.parametrize(("timestep", "steps"), [(0, 1), (250, 3), (999, 4)])
@pytest.mark.parametrize("kind", [tiny, conditioned])
def test_images_are_made_again_as_by_a_plain_loop(make, timestep, steps, kind):
    model = kind(scheduler=make()).double().eval()
    is_flow = make is flow_scheduler
    x = images(3).double()
    classes = None if kind is tiny else torch.tensor([1, 7, 7])
    found = regenerate(
        model, x, classes, timestep=timestep, steps=steps, generator=seeded(4)
    )
    noise = torch.randn(3, *SHAPE, generator=seeded(4)).double()
    grid = [round(timestep * (steps - j) / steps) for j in range(steps)]
    for j, t in enumerate(grid):
        a = math.sqrt(alpha_bar(model.noise_scheduler, t))
        b = 1 - a if is_flow else math.sqrt(1 - a**2)
        if j == 0:
            x_t = a * x + b * noise
        with torch.no_grad():
            out = model.denoise(x_t, torch.full((3,), t), classes)
        x0 = x_t - b * out if is_flow else (x_t - b * out) / a
        eps = x_t + a * out if is_flow else out
        if j + 1 < steps:
            a = math.sqrt(alpha_bar(model.noise_scheduler, grid[j + 1]))
            b = 1 - a if is_flow else math.sqrt(1 - a**2)
            x_t = a * (x0 if is_flow else x0.clamp(-1, 1)) + b * eps
    assert np.abs((found - x0.clamp(-1, 1)).numpy()).max() < 1e-6


class Perfect(nn.Module):
    """Predicts the noise of pixels that are N(0, 0.2^2)."""

    def __init__(self, scheduler):
        super().__init__()
        self.levels = scheduler.alphas_cumprod
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x_t, t):
        a2 = self.levels[t].view(-1, 1, 1, 1)
        return (1 - a2).sqrt() * x_t / (0.04 * a2 + 1 - a2)


def test_the_lower_the_timestep_the_more_is_kept():
    scheduler = ddim_scheduler()
    model = DiffusionModel(Perfect(scheduler), scheduler, SHAPE).eval()
    x = torch.randn(400, *SHAPE, generator=seeded()) * 0.2
    kept = []
    for timestep in (0, 100, 300, LAST):
        made = regenerate(model, x, timestep=timestep, steps=20, generator=seeded(1))
        kept.append(torch.corrcoef(torch.stack([x.flatten(), made.flatten()]))[0, 1])
    assert kept[0] > 0.99 and abs(kept[-1]) < 0.02
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(timestep=-1, steps=1), "timestep must be an integer from 0 to 999, got -1"),
        (dict(timestep=1000, steps=1), "timestep must be an integer from 0 to 999"),
        (dict(timestep=5, steps=0), "steps must be an integer of 1 or more"),
    ],
)
def test_timesteps_and_steps_that_there_are_not_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        regenerate(tiny(), images(2), generator=seeded(), **options)


def trained(model, stream, *, steps=3, **options):
    """A solver that replays, its plugin, and its batches by experience and step."""
    generator = DiffusionTraining(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), 1e-2),
        train_steps=2,
        evaluator=None,
    )
    solver = SmallCNN(SHAPE, 10)
    replay = SoftGenerativeReplayPlugin(generator, **options)
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        replay=replay,
        train_steps=steps,
        train_mb_size=16,
        evaluator=None,
    )
    events = []
    train, forward = generator.train, strategy.forward
    generator.train = lambda experience, **kwargs: (
        events.append(("generator", experience.current_experience)),
        train(experience, **kwargs),
    )
    strategy.forward = lambda: events.append(("step", strategy.mb_x.clone())) or forward()
    strategy.train(stream, eval_streams=[])
    return strategy, generator, events


def is_real(batch, experience):
    data = torch.stack([item[0] for item in experience.dataset])
    return all((image == data).flatten(1).all(1).any() for image in batch)


@pytest.mark.parametrize("first", [None, 0, 2, 9])
def test_current_images_go_through_the_generator_from_a_step_on(digits, first, recwarn):
    stream = digits.train_stream[:2]
    _, generator, events = trained(tiny(), stream, samples_only_from=first)
    said = [str(warning.message) for warning in recwarn]
    assert any("before samples_only_from=9" in one for one in said) == (first == 9)
    expected, found = [], []
    for index in range(2):
        kinds = ["real"] * 3 if first is None else ["real", "real", "made"]
        kinds = ["made"] * 3 if first == 0 else kinds if first != 9 else ["real"] * 3
        place = first if first in (0, 2) else 3  # of the generator's training
        expected += [*kinds[:place], f"generator {index}", *kinds[place:]]
    index = 0
    for kind, value in events:
        if kind == "generator":
            found.append(f"generator {value}")
        else:
            found.append("real" if is_real(value, stream[index]) else "made")
        steps = sum(not name.startswith("generator") for name in found)
        index = min(1, steps // 3)
    assert found == expected
    assert generator.clock.train_exp_counter == 2


def test_replay_is_of_the_generator_of_the_experience_before(digits):
    model = tiny()
    made = []
    strategy, *_ = trained(model, digits.train_stream[:1], samples_only_from=0)
    before = weights(model.denoiser)
    plugin = strategy.replay
    draw, regenerate_ = plugin.lesson.draw, plugin.regenerate
    plugin.lesson.draw = lambda strategy, teacher, count: (
        made.append(weights(teacher.denoiser)) or draw(strategy, teacher, count)
    )
    plugin.regenerate = lambda x, y: (
        made.append(weights(plugin.new_generator.denoiser)) or regenerate_(x, y)
    )
    strategy.train(digits.train_stream[1], eval_streams=[])
    after = weights(model.denoiser)
    assert len(made) == 6 and not same_bits(before, after)
    assert all(same_bits(state, after) for state in made[0::2])  # of current images
    assert all(same_bits(state, before) for state in made[1::2])
    assert plugin.new_generator is None


@pytest.mark.parametrize(("given", "expected"), [(None, LAST), (40, 40)])
def test_a_conditioned_generator_is_asked_for_the_labels(
    digits, monkeypatch, given, expected
):
    asked = []
    monkeypatch.setattr(
        "avalanche_gd.plugins.soft_replay.regenerate",
        lambda model, x, condition, *, timestep, steps, generator: (
            asked.append((condition, timestep, steps)) or x
        ),
    )
    options = dict(samples_only_from=0, regenerate_from=given, teacher_steps=4)
    labels = []
    loss = torch.nn.functional.cross_entropy
    monkeypatch.setattr(
        "torch.nn.functional.cross_entropy",
        lambda logits, target, *rest, **more: (
            labels.append(target) or loss(logits, target, *rest, **more)
        ),
    )
    trained(conditioned(), digits.train_stream[:1], **options)
    assert len(asked) == len(labels) == 3
    for (condition, timestep, steps), target in zip(asked, labels, strict=True):
        assert torch.equal(condition, target)
        assert (timestep, steps) == (expected, 4)


def test_without_a_condition_images_keep_what_they_show(digits, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "avalanche_gd.plugins.soft_replay.regenerate",
        lambda model, x, condition, *, timestep, **_: (
            asked.append((condition, timestep)) or x
        ),
    )
    trained(tiny(), digits.train_stream[:1], samples_only_from=0)
    assert set(asked) == {(None, 250)}


@pytest.mark.parametrize("towards", ["missing", "confused"])
def test_a_solver_guides_its_replay(digits, monkeypatch, towards):
    guidance, used = ClassifierGuidance(towards=towards), []
    guide = guidance.guide

    def noting(teacher, classes):
        guiding = guide(teacher, classes)
        used.append((weights(guidance.classifier), set(classes.tolist())))
        return guiding

    guidance.guide = noting
    strategy, *_ = trained(tiny(), digits.train_stream[:1], guidance=guidance, look_ahead=1)
    old, solvers = weights(strategy.model), []
    forward = strategy.forward
    strategy.forward = lambda: solvers.append(weights(strategy.model)) or forward()
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert len(used) == len(solvers) == 3
    classes = [set(exp.classes_in_this_experience) for exp in digits.train_stream[:2]]
    wanted = classes[0] if towards == "missing" else classes[1]
    for (judge, asked), solver in zip(used, solvers, strict=True):
        assert asked <= wanted
        expected = old if towards == "missing" else solver
        # A forward pass of the solver moves nothing of it but what its norms count.
        assert same_bits(
            {k: v for k, v in judge.items() if "running" not in k and "num_" not in k},
            {k: v for k, v in expected.items() if "running" not in k and "num_" not in k},
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(samples_only_from=-1), "samples_only_from must be an integer of 0 or more"),
        (dict(samples_only_from=1, regenerate_from=1000), "from 0 to 999, got 1000"),
        (dict(regenerate_from=10), "regenerate_from needs samples_only_from; give both"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SoftGenerativeReplayPlugin(fake_strategy(tiny()), **options)


def test_only_a_diffusion_model_makes_images_again():
    class Other(nn.Module):
        def generate(self, count):
            return images(count)

    with pytest.raises(TypeError, match="needs a DiffusionModel, as it makes images again"):
        SoftGenerativeReplayPlugin(fake_strategy(Other()), samples_only_from=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["solver.guidance_scale=2"], "guidance_scale needs solver.guidance"),
        (["solver.guidance=x"], "no guidance towards 'x'; choose from missing, confused"),
        (["solver.regenerate_from=3"], "regenerate_from needs samples_only_from"),
        (
            ["solver.samples_only_from=0", "method=guide_distillation"],
            "with solver.samples_only_from that is trained last",
        ),
        (
            ["solver.samples_only_from=7", "solver.steps=7"],
            "solver.samples_only_from must be below solver.steps, 7, got 7; give null",
        ),
    ],
)
def test_runs_refuse_them_before_any_work(overrides, message):
    with pytest.raises(ValueError, match=message):
        compose_config(overrides)


def test_a_solver_that_is_trained_last_guides_nobody_before(digits):
    guidance = ClassifierGuidance(towards="confused")
    generator = SimpleNamespace(model=tiny())
    replay = SoftGenerativeReplayPlugin(generator, samples_only_from=0)
    solver = SmallCNN(SHAPE, 10)
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters()),
        plugins=[GuidingSolverPlugin(guidance, solver)],
        replay=replay,
        evaluator=None,
    )
    with pytest.raises(
        ValueError, match="with samples_only_from it is trained last; leave"
    ):
        strategy.train(digits.train_stream[0], eval_streams=[])


def test_a_generator_that_was_trained_before_an_interruption_is_not_trained_again(digits):
    strategy, generator, _ = trained(tiny(), digits.train_stream[:1], samples_only_from=0)
    forward = strategy.forward

    def failing():
        raise KeyboardInterrupt

    strategy.forward = failing
    with pytest.raises(KeyboardInterrupt):
        strategy.train(digits.train_stream[1], eval_streams=[])
    strategy.forward = forward
    strategy.train(digits.train_stream[1], eval_streams=[])
    assert generator.clock.train_exp_counter == 2


OPTIONS = ["solver.samples_only_from=1", "solver.guidance=confused", "solver.steps=3"]


def test_a_run_goes_on_with_the_numbers_it_would_have_reached(tmp_path):
    whole = small_config(tmp_path / "whole", *OPTIONS)
    run(whole)
    killed = small_config(tmp_path / "killed", *OPTIONS)
    run_killed_after(2, killed)
    run(killed)
    assert metrics(killed.folder) == metrics(whole.folder)


def test_a_run_counts_the_passes_and_the_seconds_of_each_model(tmp_path):
    config = small_config(
        tmp_path,
        *("solver.samples_only_from=1", "solver.steps=4", "solver.look_ahead=1"),
        *("benchmark.n_experiences=2", "generator.steps=3", "method=generative_replay"),
    )
    learner, stream = Learner(config), make_benchmark(config).train_stream
    began = time.perf_counter()
    for experience in stream:
        learner.train(experience)
    assert sum(learner.seconds.values()) <= time.perf_counter() - began  # none twice
    batch, k = 64, config.solver.replay_steps
    solver = [
        sum(images * count for (images, _), count in passes.items()) / batch
        for passes in learner.counter.passes["solver"]
    ]
    assert solver == [3 * k, (3 + 4) * k]  # 3 of 4 steps make current images again
    assert learner.cost()["F_per_step"] == 8
    assert set(learner.seconds) == {"evaluation", "generator", "solver"}
    generator = learner.strategies["generator"].clock.train_exp_counter
    assert generator == 2
