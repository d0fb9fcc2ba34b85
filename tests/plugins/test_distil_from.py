"""A model that is taught by a given one, without its data."""

import copy
from functools import partial

import pytest
import torch

from avalanche_gd import (
    DiffusionModel,
    DistillFromPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    ddim_scheduler,
)
from avalanche_gd.plugins import SOURCES
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_models import SHAPE, TinyDenoiser, conditioned, seeded, tiny
from tests.helpers.small_trainings import train_generator

ALL = [*SOURCES, "retraining"]
WITHOUT_DATA = [name for name in ALL if name not in ("current", "snr_split")]


def teacher_of(seed=5):
    torch.manual_seed(seed)
    return tiny()


def taught(student, stream, source="generation", teacher=None, **options):
    """The plugin, after it has taught a student."""
    plugin = DistillFromPlugin(
        teacher or teacher_of(), source=source, generator=seeded(), **options
    )
    torch.manual_seed(1)
    train_generator(student, stream, plugin)
    return plugin


@pytest.mark.parametrize("source", ALL)
def test_the_loss_is_the_squared_error_to_the_teacher_and_no_other(digits, source):
    teacher, student = teacher_of(), tiny()
    plugin = DistillFromPlugin(teacher, source=source, look_ahead=1)
    draw, drawn, losses = plugin.source.draw, [], []
    plugin.source.draw = lambda request: drawn.append(draw(request)) or drawn[-1]

    def note(strategy, **kwargs):
        x_t, t, target, _ = drawn[-1]
        with torch.no_grad():
            error = student.denoise(x_t, t) - target
            known = teacher.denoise(x_t, t)
        losses.append(strategy.loss.item() - error.square().mean().item())
        assert torch.equal(known, target) == (source != "retraining")

    plugin.before_backward = note
    train_generator(student, digits.train_stream[:1], plugin)
    assert len(losses) == 3 and max(map(abs, losses)) < 1e-6


def test_the_control_is_taught_the_noise_of_the_teachers_samples(digits):
    plugin = DistillFromPlugin(teacher_of(), source="retraining")
    draw, drawn = plugin.source.draw, []
    plugin.source.draw = lambda request: (
        drawn.append((request, draw(request))) or drawn[-1][1]
    )
    train_generator(tiny(), digits.train_stream[:1], plugin)
    request, (x_t, t, noise, _) = drawn[0]
    images = request.samples()
    assert (plugin.teacher.add_noise(images, noise, t) - x_t).abs().max() < 1e-6


@pytest.mark.parametrize("source", ALL)
def test_the_data_make_no_difference_but_to_the_source_that_takes_them(digits, source):
    students = []
    for experience in (0, 3):
        torch.manual_seed(2)
        students.append(tiny())
        taught(students[-1], [digits.train_stream[experience]], source)
    assert same_bits(*map(weights, students)) == (source in WITHOUT_DATA)


@pytest.mark.parametrize(
    ("behind", "hint"),
    [
        (partial(DistillFromPlugin, source="gaussian"), "give one of the two"),
        (lambda teacher: GenerativeDistillationPlugin(), "put that before it"),
        (lambda teacher: GenerativeReplayPlugin(), "put that before it"),
    ],
)
def test_what_teaches_behind_it_would_teach_one_image_and_is_refused(digits, behind, hint):
    teacher = teacher_of()
    plugins = DistillFromPlugin(teacher, source="gaussian"), behind(teacher)
    name = type(plugins[1]).__name__
    with pytest.raises(ValueError, match=f"a {name} behind it would see nothing; {hint}"):
        train_generator(tiny(), digits.train_stream[:1], *plugins)


def test_what_teaches_before_it_teaches_a_batch(digits):
    plugin = GenerativeDistillationPlugin(source="current")
    draw, counts = plugin.source.draw, []
    plugin.source.draw = lambda request: (
        counts.append(len(request.current)) or draw(request)
    )
    own = DistillFromPlugin(teacher_of(), source="gaussian")
    train_generator(tiny(), digits.train_stream[:2], plugin, own)
    assert sum(counts) == 3 * 16


COSTS = {"generation": 6, "partial_generation": 6, "retraining": 5, "trajectory": 4}
COSTS["snr_split"] = 4 + 2 * 5 / 16  # samples at the timesteps with an SNR above 1


@pytest.mark.parametrize("source", ALL)
def test_a_step_passes_the_student_over_what_is_taught_alone(digits, source):
    student, passed = tiny(), []

    def note(images):
        passed.append(images)
        return lambda: passed.append(2 * images)  # a backward pass

    student.pass_hooks.append(note)
    taught(student, digits.train_stream[:1], source, look_ahead=1)
    assert sum(passed) == 3 * 16 * COSTS.get(source, 4)  # 3 steps of 16 images


def test_the_student_comes_near_the_teacher(digits):
    teacher, student = teacher_of(), tiny()
    plugin = DistillFromPlugin(teacher, source="gaussian")
    losses = []
    plugin.before_backward = lambda strategy, **_: losses.append(strategy.loss.item())
    train_generator(student, digits.train_stream[:1], plugin, train_steps=100)
    assert losses[-1] < losses[0] / 10


def test_a_folder_teaches_what_its_model_does_and_a_model_what_it_was(digits, tmp_path):
    teacher = DiffusionModel.from_preset("digits")
    teacher.save_pretrained(tmp_path / "model")
    students = []
    for given in (teacher, str(tmp_path / "model"), tmp_path / "model"):
        torch.manual_seed(2)
        students.append(DiffusionModel.from_preset("digits"))
        taught(students[-1], digits.train_stream[:1], "gaussian", given)
    first, *others = map(weights, students)
    assert all(same_bits(first, other) for other in others)

    now, before = teacher_of(), weights(teacher_of())
    plugin = DistillFromPlugin(now)
    with torch.no_grad():
        now.denoiser.convolution.bias += 1
    assert same_bits(weights(plugin.teacher), before)
    assert not any(p.requires_grad for p in plugin.teacher.parameters())


@pytest.mark.parametrize("source", ALL)
def test_a_conditioned_student_learns_the_classes_of_its_teacher(digits, source):
    teacher = conditioned(dropout=0.2, seen=[2, 5])
    student = conditioned(dropout=0.2, seen=[])
    before = copy.deepcopy(weights(student))
    taught(student, digits.train_stream[:1], source, teacher)
    assert student.classes_seen.nonzero().flatten().tolist() == [2, 5]
    assert not same_bits(weights(student), before)
    student.generate(4, steps=2)


def other_noise():
    return DiffusionModel(TinyDenoiser(), ddim_scheduler(beta_end=0.01), SHAPE)


def other_target():
    scheduler = ddim_scheduler(prediction_type="v_prediction")
    return DiffusionModel(TinyDenoiser(), scheduler, SHAPE)


def other_times():
    scheduler = ddim_scheduler(num_train_timesteps=500, beta_end=0.04)
    return DiffusionModel(TinyDenoiser(), scheduler, SHAPE)


def other_size():
    return DiffusionModel(TinyDenoiser(), ddim_scheduler(), (1, 4, 4))


OTHERS = {
    "the teacher's scheduler adds other noise": (other_noise, other_target, other_times),
    r"the teacher has sample_shape \(1, 4, 4\), but its student has \(1, 8, 8\)": (
        other_size,
    ),
    "the teacher has num_classes 10, but its student has None": (conditioned,),
}


@pytest.mark.parametrize(
    ("message", "make"), [(words, make) for words, own in OTHERS.items() for make in own]
)
def test_a_teacher_of_another_kind_is_refused_before_training(digits, message, make):
    with pytest.raises(ValueError, match=message):
        taught(tiny(), digits.train_stream[:1], teacher=make())


def test_it_may_stand_behind_a_teacher_that_follows(tiny_model, digits):
    """Which is another one: the given teacher does not change."""
    given = tiny()
    follows = GenerativeDistillationPlugin(teacher_ema_decay=0.5)
    plugin = DistillFromPlugin(given)
    train_generator(tiny_model, digits.train_stream[:2], follows, plugin)
    assert same_bits(weights(plugin.teacher.denoiser), weights(given.denoiser))


def test_what_is_no_teacher_or_source_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"no complete model in .*; give a folder written by"
    ):
        DistillFromPlugin(tmp_path)
    with pytest.raises(
        TypeError, match="teacher must be a DiffusionModel or a folder, got 5"
    ):
        DistillFromPlugin(5)
    with pytest.raises(ValueError, match=r"choose from generation, .*, retraining$"):
        DistillFromPlugin(tiny(), source="data")
    with pytest.raises(ValueError, match=r"a pool of samples, .* not 'gaussian'"):
        DistillFromPlugin(tiny(), source="gaussian", pool_size=3)
    DistillFromPlugin(tiny(), source="retraining", pool_size=3)
