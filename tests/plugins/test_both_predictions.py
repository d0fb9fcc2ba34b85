"""Teaching what a conditioned teacher predicts both with a class and with none."""

import pytest
import torch
from diffusers import UNet2DModel

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    GenerativeDistillationPlugin,
    ddim_scheduler,
    unet,
)
from avalanche_gd.plugins import SOURCES, Teacher
from tests.helpers.lessons import note_lessons, note_losses
from tests.helpers.small_models import CLASSES, SHAPE, conditioned, images, seeded, tiny
from tests.helpers.small_trainings import fake_strategy, train_generator
from tests.plugins.test_losses import other, plain_alpha_bar
from tests.plugins.test_one_pass import BATCH, STEPS, trained


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_the_loss_is_the_weighted_mean_of_both(weight):
    student = conditioned(dropout=0.5)
    teacher = other(student)
    plugin = GenerativeDistillationPlugin(
        2, look_ahead=1, generator=seeded(), unconditional_weight=weight
    )
    batch = dict(mb_x=images(8), mb_y=torch.ones(8).long(), mb_output=None)
    strategy = fake_strategy(student, 2, **batch, _criterion=DenoisingLoss())
    Teacher.of(strategy).freeze(teacher)
    found = plugin.distillation_loss(strategy).item()
    generator = seeded()
    condition = teacher.draw_condition(8, generator)
    noise = teacher.draw_noise(8, generator)
    x0 = teacher.reverse(noise, condition, steps=2)
    t = torch.randint(1000, (8,), generator=generator)
    eps = torch.randn(8, *SHAPE, generator=generator)
    a = torch.tensor(plain_alpha_bar(t.numpy()))
    x_t = (a.sqrt() * x0 + (1 - a).sqrt() * eps).float()
    with torch.no_grad():
        of_class, of_none = (
            (teacher.denoise(x_t, t, c) - student.denoise(x_t, t, c)).double().square()
            for c in (condition, torch.full((8,), CLASSES))
        )
    expected = (of_class.mean() + weight * of_none.mean()) / (1 + weight)
    assert abs(found - expected.item()) < 1e-6


POOLS = {
    **{name: dict(source=name) for name in SOURCES},
    "ratio": dict(replay_ratio=0.5),
    "pool of samples": dict(pool_size=40, pool_refresh=2),
    "pool of pairs": dict(pool_size=40, pool_of="pairs"),
    "no look-ahead": dict(look_ahead=1),
}


@pytest.mark.parametrize("name", POOLS)
def test_both_are_the_teachers_at_the_same_noisy_images_wherever_they_come_from(
    digits, name
):
    plugin = GenerativeDistillationPlugin(4, unconditional_weight=1.0, **POOLS[name])
    lessons, losses, teachers = note_lessons(plugin), note_losses(plugin), []
    begin = plugin.before_forward

    def noting(strategy, **kwargs):
        teachers.append(Teacher.of(strategy).model)
        begin(strategy, **kwargs)

    plugin.before_forward = noting
    torch.manual_seed(0)
    model = DiffusionModel.from_preset("digits", num_classes=CLASSES, condition_dropout=0.5)
    train_generator(model, digits.train_stream[:2], plugin)
    assert losses[0].item() < 1e-10 < losses[-1].item()
    assert len(lessons) == 3
    for x_t, t, target, condition in lessons:
        assert (condition[:, 0] < CLASSES).all() and (condition[:, 1] == CLASSES).all()
        for column in (0, 1):
            expected = teachers[-1].denoise(x_t, t, condition[:, column])
            assert (target[:, column] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["generation", "current", "pool of pairs", "ratio"])
def test_the_student_is_asked_about_both_in_its_one_pass(digits, name):
    options = dict(unconditional_weight=0.5, lambd=3.0) | POOLS[name]
    (_, losses, one), (_, expected, two) = (
        trained(
            digits,
            GenerativeDistillationPlugin(**options),
            num_classes=CLASSES,
            one_pass=one_pass,
        )
        for one_pass in (True, False)
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    taught = BATCH if name == "ratio" else 2 * BATCH
    assert one == [[BATCH + taught]] * STEPS and two == [[BATCH, taught]] * STEPS


def without_none():
    """A model with as many embeddings as classes."""
    config = dict(unet("digits").config) | dict(num_class_embeds=CLASSES)
    denoiser = UNet2DModel.from_config(config)
    return DiffusionModel(denoiser, ddim_scheduler(), SHAPE, num_classes=CLASSES)


@pytest.mark.parametrize("make", [tiny, without_none])
def test_a_model_that_does_not_know_both_is_refused_when_training_starts(digits, make):
    message = "unconditional_weight needs a model that can predict both with and without"
    plugin = GenerativeDistillationPlugin(unconditional_weight=1.0)
    with pytest.raises(ValueError, match=message) as refused:
        train_generator(make(), digits.train_stream[:1], plugin)
    assert "\n" not in str(refused.value)
