"""Cheaper replay: what it costs, ratios, trajectories, samplers."""

import math

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from avalanche_gd import (
    ClassifierGuidance,
    DenoisingLoss,
    DiffusionModel,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    SmallCNN,
    ddim_scheduler,
)
from avalanche_gd.plugins import SOURCES, SNRSplit, Teacher, Trajectory
from avalanche_gd.plugins.look_ahead import Ahead
from avalanche_gd.runs.passes import PassCounter
from tests.helpers.lessons import note_losses, request_of
from tests.helpers.small_models import CLASSES, SHAPE, conditioned, images, seeded, tiny
from tests.helpers.small_trainings import fake_strategy, train_generator

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


class Passes(SupervisedPlugin):
    """Counts samples through the denoiser in the second experience, weighted as F."""

    def __init__(self, model):
        super().__init__()
        self.samples, self.counting = 0, False

        def count(module, inputs, output):
            if self.counting:
                factor = 3 if torch.is_grad_enabled() else 1
                self.samples += factor * len(inputs[0])

        model.denoiser.register_forward_hook(count)

    def before_training_exp(self, strategy, **kwargs):
        self.counting = strategy.clock.train_exp_counter == 1


def cost(model, digits, plugin, steps=4):
    """F a step in the second experience, at batches of 16."""
    passes = Passes(model)
    train_generator(model, digits.train_stream[:2], passes, plugin, train_steps=steps)
    return passes.samples / 16 / steps


ABOVE_1 = float((ALPHA_BAR > 0.5).mean())  # of the timesteps, by their SNR


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), 9),
        (dict(replay_ratio=0.5), 6),
        (dict(replay_ratio=2.0), 15),
        (dict(pool_size=32, teacher_steps=5), 7 + 5 * 32 / 16 / 4),
        (dict(pool_size=32, teacher_steps=5, pool_refresh=2), 7 + 2 * 5 * 32 / 16 / 4),
        (dict(pool_size=16, replay_ratio=0.5), 5 + 2 * 16 / 16 / 4),
        (dict(source="trajectory", teacher_steps=4), 7),
        (dict(source="trajectory", teacher_steps=4, replay_ratio=0.5), 5),
        (dict(source="gaussian", replay_ratio=0.5), 5),
        (dict(source="current"), 4),
        (dict(source="current", replay_ratio=0.5), 5),
        (dict(pool_size=32, pool_of="pairs", teacher_steps=5), 6 + 6 * 32 / 16 / 4),
        (dict(pool_size=16, pool_of="pairs", replay_ratio=0.5), 4.5 + 3 * 16 / 16 / 4),
        (dict(pool_size=16, pool_of="pairs", pool_refresh=2), 6 + 2 * 3 * 16 / 16 / 4),
        (dict(pool_size=16, pool_of="pairs", source="gaussian"), 6 + 16 / 16 / 4),
        (dict(source=SNRSplit(1.0)), 7 + 2 * math.ceil(16 * ABOVE_1) / 16),
        (dict(source=SNRSplit(0.0)), 9),
        (dict(look_ahead=1), 9),
        (dict(look_ahead=2, teacher_steps=5), 12),
    ],
)
def test_a_distillation_step_costs_what_it_says(tiny_model, digits, options, expected):
    plugin = GenerativeDistillationPlugin(**options)
    assert cost(tiny_model, digits, plugin) == pytest.approx(expected)


def test_a_smaller_batch_at_the_end_of_an_epoch_does_not_stop_the_look_ahead():
    ahead, teacher, made = Ahead(4), tiny(), []

    def make(count):
        return lambda steps: made.append((count, steps)) or [count] * steps

    epochs = 3 * [64, 64, 64, 64, 32]
    for left, count in zip(range(len(epochs), 0, -1), epochs, strict=True):
        assert ahead.next(teacher, count, make(count), left) == count
    assert made == 3 * [(64, 4), (32, 1)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), 13),
        (dict(source="trajectory"), 11),
        (dict(source="current"), 11),
        (dict(replay_ratio=0.5), 8),
        (dict(pool_size=32, teacher_steps=5), 11 + 5 * 32 / 16 / 4),
        (dict(pool_size=32, pool_of="pairs", teacher_steps=5), 9 + 7 * 32 / 16 / 4),
        (dict(unconditional_weight=0.0), 9),
    ],
)
def test_a_step_that_teaches_both_predictions_costs_what_it_says(digits, options, expected):
    options = dict(unconditional_weight=0.5) | options
    plugin = GenerativeDistillationPlugin(**options)
    assert cost(conditioned(0.1), digits, plugin) == pytest.approx(expected)


def test_guidance_by_a_classifier_costs_a_backward_pass_in_each_sampling_step(
    tiny_model, digits
):
    guidance = ClassifierGuidance(SmallCNN(SHAPE, CLASSES).eval())
    counter = PassCounter(tiny_model, batch_size=16)
    plugins = [
        counter.plugin("generator"),
        GenerativeDistillationPlugin(3, guidance=guidance, look_ahead=1),
    ]
    train_generator(tiny_model, digits.train_stream[:2], *plugins, train_steps=4)
    passes = counter.passes["generator"][-1]
    assert +passes == {(32, 1): 4, (16, 1): 4 * 3, (16, 0): 4}
    assert counter.summary(4)["F_per_step"] == 3 * 2 + 3 * (1 + 2) + 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(), 8),
        (dict(replay_ratio=0.5), 5.5),
        (dict(pool_size=32, teacher_steps=5), 6 + 5 * 32 / 16 / 4),
    ],
)
def test_a_replay_step_costs_what_it_says(tiny_model, digits, options, expected):
    plugin = GenerativeReplayPlugin(**options)
    assert cost(tiny_model, digits, plugin) == pytest.approx(expected)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("num_classes", [None, CLASSES])
def test_a_ratio_goes_with_every_source_and_leaves_the_weights_of_the_losses(
    digits, name, num_classes
):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes)
    plugin = GenerativeDistillationPlugin(4, source=name, replay_ratio=0.5)
    losses = note_losses(plugin)
    train_generator(model, digits.train_stream[:2], plugin)
    assert losses[0].item() < 1e-12 < losses[-1].item() < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(pool_size=0), "pool_size must be an integer of 1 or more, got 0"),
        (dict(pool_size=9, pool_refresh=0), "pool_refresh must be an integer of 1 or more"),
        (dict(replay_ratio=0), "replay_ratio must be above 0, got 0"),
        (dict(replay_ratio=-1.0), "replay_ratio must be above 0"),
        (dict(teacher_sampler="euler"), "no sampler 'euler'; choose from own, dpmsolver"),
        (dict(look_ahead=0), "look_ahead must be an integer of 1 or more, got 0"),
        (dict(look_ahead=2.5), "look_ahead must be an integer of 1 or more, got 2.5"),
    ],
)
@pytest.mark.parametrize("plugin", [GenerativeDistillationPlugin, GenerativeReplayPlugin])
def test_options_out_of_range_are_refused(plugin, options, message):
    with pytest.raises(ValueError, match=message):
        plugin(**options)


def test_a_pool_of_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no pool of 'x'; choose from samples, pairs"):
        GenerativeDistillationPlugin(pool_size=9, pool_of="x")
    with pytest.raises(ValueError, match="pool_of needs a pool; give pool_size"):
        GenerativeDistillationPlugin(pool_of="pairs")


@pytest.mark.parametrize("source", ["current", "trajectory", SNRSplit()])
def test_a_pool_of_pairs_that_depend_on_the_current_batch_is_refused(source):
    with pytest.raises(ValueError, match="depends on the current batch and cannot fill"):
        GenerativeDistillationPlugin(source=source, pool_size=9, pool_of="pairs")


def test_a_pool_of_a_source_that_does_not_sample_is_refused():
    with pytest.raises(ValueError, match="are for sources that take the teacher's samples"):
        GenerativeDistillationPlugin(source="current", pool_size=10)
    with pytest.raises(ValueError, match="are for sources that take the teacher's samples"):
        GenerativeDistillationPlugin(source="trajectory", teacher_sampler="unipc")


@pytest.mark.parametrize("count", [12, 10, 3])
def test_trajectories_are_ddim_from_noise_and_their_passes_are_the_targets(
    tiny_model, count
):
    tiny_model.double()
    single = tiny_model.draw_noise
    tiny_model.draw_noise = lambda *arguments: single(*arguments).double()
    with torch.no_grad():
        x_t, t, target, condition = Trajectory().draw(
            request_of(tiny_model, images(count).double(), steps=4, seed=0)
        )
    assert condition is None and len(x_t) == len(t) == len(target) == count
    steps = min(4, count)
    number = -(-count // steps)
    generator = seeded()
    noise = torch.randn(number, *SHAPE, generator=generator).double().numpy()
    u = torch.rand(number, generator=generator).numpy()
    for i in range(count):
        j, row = divmod(i, number)
        x, now, eps = noise[row], None, None
        for part in range(j + 1):
            following = int(np.float32(1 - (part + u[row]) / steps) * 1000)
            if now is not None:
                a, a_end = ALPHA_BAR[now], ALPHA_BAR[following]
                x0 = np.clip((x - np.sqrt(1 - a) * eps) / np.sqrt(a), -1, 1)
                x = np.sqrt(a_end) * x0 + np.sqrt(1 - a_end) * eps
            now = following
            with torch.no_grad():
                eps = tiny_model.denoise(torch.tensor(x[None]), torch.tensor([now]))[0]
            eps = eps.numpy()
        assert t[i] == now
        assert np.abs(x_t[i].numpy() - x).max() < 1e-5
        assert np.abs(target[i].numpy() - eps).max() < 1e-5


def test_trajectories_cover_all_timesteps_evenly(tiny_model):
    with torch.no_grad():
        t = Trajectory().draw(request_of(tiny_model, images(4000), steps=10)).timesteps
    counts = torch.bincount(t // 100, minlength=10)
    assert counts.sum() == 4000 and counts.min() > 330 and counts.max() < 470


def test_a_trajectory_keeps_its_class():
    teacher, plugin = (
        conditioned(dropout=0.5, seen=(2, 3)),
        GenerativeDistillationPlugin(4, source="trajectory", generator=seeded()),
    )
    student = conditioned(dropout=0.5)
    batch = dict(mb_x=images(16), mb_y=torch.ones(16), mb_output=None)
    strategy = fake_strategy(student, 2, **batch, _criterion=DenoisingLoss())
    Teacher.of(strategy).freeze(teacher)
    asked = []
    for model in (Teacher.of(strategy).model, student):
        model.denoiser.register_forward_hook(
            lambda m, inputs, kw, out: asked.append(kw["class_labels"]), with_kwargs=True
        )
    plugin.distillation_loss(strategy)
    *passes, taught = asked
    assert len(passes) == 4 and all(torch.equal(part, passes[0]) for part in passes)
    assert torch.equal(taught, torch.cat(passes))
    assert set(taught.tolist()) <= {2, 3, CLASSES} and CLASSES in taught


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dpmsolver++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)],
)
def test_a_sampler_by_name_is_diffusers_own_on_clipped_images(tiny_model, name, kind):
    noise = tiny_model.draw_noise(3, seeded())
    ours = tiny_model.reverse(noise, steps=5, sampler=name)
    scheduler = kind.from_config(ddim_scheduler().config, timestep_spacing="trailing")
    scheduler.set_timesteps(5)
    x = noise
    with torch.no_grad():
        for t in scheduler.timesteps:
            timesteps = torch.full((3,), int(t))
            prediction = tiny_model.denoise(x, timesteps)
            clipped = tiny_model.process.clipped(x, prediction, timesteps)
            x = scheduler.step(clipped, t, x).prev_sample
    assert (ours - x.clamp(-1, 1)).abs().max() < 1e-5
    assert (ours - tiny_model.reverse(noise, steps=5)).abs().max() > 1e-4
    assert int(scheduler.timesteps[0]) == 999


def test_a_teacher_samples_by_the_sampler_named(tiny_model, digits, monkeypatch):
    asked = []
    reverse = DiffusionModel.reverse
    monkeypatch.setattr(
        DiffusionModel,
        "reverse",
        lambda *a, **k: asked.append((k["sampler"], k["steps"])) or reverse(*a, **k),
    )
    for plugin in (GenerativeDistillationPlugin, GenerativeReplayPlugin):
        replay = plugin(teacher_steps=3, look_ahead=1, teacher_sampler="unipc")
        train_generator(tiny_model, digits.train_stream[:2], replay)
    assert asked == [("unipc", 3)] * 6
