"""What a model says of images that are not in model space."""

import copy
import warnings

import pytest
import torch
from torch import nn

from avalanche_gd import (
    DiffusionModel,
    DiffusionTraining,
    Execution,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    ddim_scheduler,
)
from avalanche_gd.data.model_space import as_benchmark, as_dataset
from avalanche_gd.models.image_check import ImageCheck
from avalanche_gd.plugins import SOURCES
from tests.helpers.lessons import note_losses
from tests.helpers.small_models import SHAPE, images, seeded
from tests.helpers.small_trainings import train_generator

TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_images_that_are_not_float_are_refused_by_the_name_of_their_type(tiny_model, dtype):
    with pytest.raises(ValueError, match=rf"not {dtype}; .* avalanche_gd\.to_model_space"):
        tiny_model(torch.zeros(2, *SHAPE, dtype=dtype))


FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("num_classes", [None, 10])
def test_images_fit_weights_of_their_type_alone(weights, num_classes):
    model = DiffusionModel.from_preset("digits", num_classes=num_classes).to(weights)
    model(images(2).to(weights))
    for given in set(FLOATS) - {weights}:
        message = rf"^images of {given} do not fit .* by images\.to\({weights}\), or"
        with pytest.raises(ValueError, match=message):
            model(images(2).to(given))


@pytest.mark.parametrize("outer", [False, True])
def test_mixed_precision_takes_bfloat16_and_float32_but_not_float64(outer):
    execution = None if outer else Execution(precision="bfloat16")
    model = DiffusionModel.from_preset("digits", execution=execution)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
        for given in (torch.bfloat16, torch.float32):
            assert model(images(2).to(given)).prediction.isfinite().all()
        with pytest.raises(ValueError, match=r"^images of torch.float64 do not fit"):
            model(images(2).double())


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_a_model_of_another_type_samples_and_teaches_in_it(weights, source):
    model = DiffusionModel.from_preset("digits").to(weights)
    samples = model.generate(2, steps=2, generator=seeded())
    assert samples.dtype == weights
    noise = model.draw_noise(2, seeded())
    assert noise.dtype == weights
    assert torch.equal(noise, torch.randn(2, *SHAPE, generator=seeded()).to(weights))
    dataset = as_dataset(images(8).to(weights), torch.zeros(8).long())
    stream = as_benchmark(train=[dataset] * 2, test=[dataset]).train_stream
    plugin = GenerativeDistillationPlugin(source=source)
    losses = note_losses(plugin)
    train_generator(model, stream, plugin, train_steps=2, train_mb_size=8)
    assert len(losses) == 2 and losses[-1].isfinite() and losses[-1].dtype == weights


def test_a_model_of_another_type_replays_in_it(tiny_model):
    dataset = as_dataset(images(8).double(), torch.zeros(8).long())
    stream = as_benchmark(train=[dataset] * 2, test=[dataset]).train_stream
    for options in ({}, dict(pool_size=9)):
        plugin = GenerativeReplayPlugin(**options)
        train_generator(copy.deepcopy(tiny_model).double(), stream, plugin, train_steps=2)


class OfNoType(nn.Module):
    """A denoiser without weights."""

    def forward(self, x, t):
        return x / 2


def test_images_of_each_float_type_fit_a_denoiser_without_weights():
    model = DiffusionModel(OfNoType(), ddim_scheduler(), SHAPE)
    for given in FLOATS:
        assert model(images(2).to(given)).prediction.dtype == given


def test_images_fit_one_of_several_types_of_weights(tiny_model):
    tiny_model.denoiser.extra = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    tiny_model(images(2))
    with pytest.raises(RuntimeError, match="should be the same"):  # torch's own words
        tiny_model(images(2).double())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1.5, -1.5])
def test_a_single_value_that_is_not_in_model_space_is_refused(tiny_model, value):
    x0 = images(4)
    x0[2, 0, 3, 5] = value
    with pytest.raises(ValueError, match=r"in model space, \[-1, 1\]; these reach from"):
        tiny_model(x0)


def train_on(model, batches):
    """Train on images ``(steps, N, C, H, W)``, in that order."""
    flat = batches.flatten(0, 1)
    dataset = as_dataset(flat, torch.zeros(len(flat)).long())
    stream = as_benchmark(train=[dataset], test=[dataset]).train_stream
    strategy = DiffusionTraining(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        train_mb_size=batches.shape[1],
        evaluator=None,
    )
    for _ in range(2):
        strategy.train(stream, shuffle=False, eval_streams=[])


def in_unit_interval(steps):
    return torch.rand(steps, 4, *SHAPE)


def test_images_between_0_and_1_are_warned_of_once_in_training(tiny_model):
    with pytest.warns(UserWarning, match="as if they were in") as caught:
        train_on(tiny_model, in_unit_interval(20))
    (warning,) = [w for w in caught if "as if they were in" in str(w.message)]
    assert "avalanche_gd.to_model_space" in str(warning.message)


def black_background():
    batches = torch.full((20, 4, *SHAPE), -1.0)
    batches[..., 3:5, 3:5] = 1.0
    return batches


RIGHT = {
    "model space": lambda: torch.rand(20, 4, *SHAPE) * 2 - 1,
    "a black background": black_background,
    "all black": lambda: torch.full((20, 4, *SHAPE), -1.0),
    "all gray": lambda: torch.zeros(20, 4, *SHAPE),
    "a bright batch now and then": lambda: (
        in_unit_interval(20) - (torch.arange(20) % 5 == 4).float().view(-1, 1, 1, 1, 1) / 2
    ),
    "too few to say": lambda: in_unit_interval(3),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_images_in_model_space_are_not_warned_of(tiny_model, kind):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*as if they were in")
        train_on(tiny_model, RIGHT[kind]())


class OnAnAccelerator(torch.Tensor):
    """Says that it is there, and counts how often its values are read."""

    read = 0

    @property
    def device(self):
        return torch.device("cuda")

    def item(self):
        type(self).read += 1
        return super().item()


def test_an_accelerator_waits_for_the_first_batches_and_each_50th():
    check = ImageCheck(SHAPE)
    looked_at = []
    for batch in range(120):
        before = OnAnAccelerator.read
        check(images(2).as_subclass(OnAnAccelerator))
        if OnAnAccelerator.read > before:
            looked_at.append(batch)
    assert looked_at == [*range(8), 50, 100]
