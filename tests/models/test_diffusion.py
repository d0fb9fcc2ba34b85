"""DiffusionModel: the forward process, sampling, and saving."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from avalanche_gd import DenoisingLoss, DiffusionModel, ddim_scheduler, unet
from avalanche_gd.models import PRESETS, preset_shape
from tests.helpers.small_models import SHAPE, TinyDenoiser, images


def alpha_bar() -> np.ndarray:
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def plain_ddim(model, noise, steps, eta, generator):
    """DDIM (arXiv 2010.02502, equations 12 and 16) in NumPy, sample clipped to [-1, 1]."""
    a_bar = alpha_bar()
    x = noise.numpy().astype(np.float64)
    times = [round(1000 - i * 1000 / steps) - 1 for i in range(steps)]
    for t, previous in pairwise([*times, -1]):
        a, a_prev = a_bar[t], a_bar[previous] if previous >= 0 else 1.0
        with torch.no_grad():
            x_t = torch.tensor(x, dtype=torch.float32)
            eps = model.denoise(x_t, torch.full((len(x),), t)).numpy()
        x0 = np.clip((x - np.sqrt(1 - a) * eps) / np.sqrt(a), -1, 1)
        sigma = eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        x = np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev - sigma**2) * eps
        if eta:
            x = x + sigma * torch.randn(noise.shape, generator=generator).numpy()
    return x


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 61, 334])
def test_sampler_is_ddim(tiny_model, steps, eta):
    noise = torch.randn(4, *SHAPE)
    ours = tiny_model.reverse(
        noise, steps=steps, eta=eta, generator=torch.Generator().manual_seed(3)
    )
    plain = plain_ddim(tiny_model, noise, steps, eta, torch.Generator().manual_seed(3))
    assert np.abs(ours.numpy() - plain).max() < (1e-5 if steps < 100 else 1e-4)


def test_forward_noises_by_the_formula_and_the_loss_is_the_squared_error(tiny_model):
    x0 = images(16)
    torch.manual_seed(7)
    output = tiny_model(x0)
    torch.manual_seed(7)
    t = torch.randint(1000, (16,))
    noise = torch.randn_like(x0)
    a = torch.tensor(alpha_bar())[t].view(-1, 1, 1, 1)
    x_t = (a.sqrt() * x0 + (1 - a).sqrt() * noise).float()
    with torch.no_grad():
        prediction = tiny_model.denoiser(x_t, t)
    assert torch.equal(output.timesteps, t)
    assert torch.equal(output.target, noise)
    assert (output.prediction - prediction).abs().max() < 1e-5
    plain = np.mean((prediction.numpy() - noise.numpy()) ** 2)
    assert abs(DenoisingLoss()(output, None).item() - plain) < 1e-6
    by_sample = ((prediction - noise) ** 2).mean(dim=(1, 2, 3))
    assert (DenoisingLoss("none")(output) - by_sample).abs().max() < 1e-6


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_target_follows_the_prediction_type(prediction_type):
    scheduler = ddim_scheduler(prediction_type=prediction_type)
    model = DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
    x0 = images(8)
    torch.manual_seed(1)
    output = model(x0)
    torch.manual_seed(1)
    t = torch.randint(1000, (8,))
    noise = torch.randn_like(x0)
    a = torch.tensor(alpha_bar())[t].view(-1, 1, 1, 1).float()
    expected = {"v_prediction": a.sqrt() * noise - (1 - a).sqrt() * x0, "sample": x0}
    assert (output.target - expected[prediction_type]).abs().max() < 1e-5


def test_generate_leaves_modes_gradients_and_random_state_alone(tiny_model):
    tiny_model.train()
    tiny_model.denoiser.convolution.eval()
    tiny_model(images(2)).prediction.sum().backward()
    gradient = tiny_model.denoiser.convolution.weight.grad.clone()
    config = copy.deepcopy(tiny_model.noise_scheduler.__dict__)
    state = torch.get_rng_state()
    sample = tiny_model.generate(2, steps=3, eta=1.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny_model.training and tiny_model.denoiser.training
    assert not tiny_model.denoiser.convolution.training
    assert torch.equal(tiny_model.denoiser.convolution.weight.grad, gradient)
    assert not sample.requires_grad
    assert str(tiny_model.noise_scheduler.__dict__) == str(config)


def test_generate_is_decided_by_the_generator(tiny_model):
    first, again = (
        tiny_model.generate(3, steps=2, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.shape == (3, *SHAPE)
    assert first.abs().max() <= 1


def test_generate_without_a_generator_never_repeats_and_follows_the_seed(tiny_model):
    first, second = tiny_model.generate(2), tiny_model.generate(2)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    twin = DiffusionModel(TinyDenoiser(), ddim_scheduler(), SHAPE)
    assert torch.equal(twin.generate(2), first)


def test_copies_have_the_same_noise_until_the_seed_of_the_original_is_changed(tiny_model):
    def copies():
        copied = copy.deepcopy(tiny_model)
        return torch.stack([copied.generate(2) for _ in range(2)])

    first = copies()
    assert torch.equal(copies(), first)
    tiny_model.sampling_seed += 1_000_000
    assert not torch.isin(copies(), first).all()
    tiny_model.sampling_seed -= 1_000_000
    tiny_model.generate(2)
    assert torch.equal(copies()[0], first[1])


def test_a_single_sample_has_no_batch_axis(tiny_model):
    assert tiny_model.generate().shape == SHAPE


@pytest.mark.parametrize("scheduler", [DDPMScheduler(), DPMSolverMultistepScheduler()])
def test_other_schedulers_sample(scheduler):
    model = DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
    assert model.generate(2, steps=4).isfinite().all()


def test_eta_is_refused_by_schedulers_that_do_not_know_it():
    model = DiffusionModel(TinyDenoiser(), DDPMScheduler(), SHAPE)
    with pytest.raises(ValueError, match="does not have eta"):
        model.generate(2, steps=4, eta=1.0)


def test_two_steps_begin_at_the_last_timestep():
    model = DiffusionModel(TinyDenoiser(), ddim_scheduler(), SHAPE)
    visited = []
    model.denoiser.register_forward_hook(lambda m, inputs, out: visited.append(inputs[1]))
    model.generate(1, steps=2)
    assert [int(t[0]) for t in visited] == [999, 499]


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5])
def test_steps_outside_the_schedule_are_refused(tiny_model, steps):
    with pytest.raises(ValueError, match="from 1 to 1000"):
        tiny_model.generate(1, steps=steps)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 8, 8)])
def test_images_that_do_not_fit_are_refused(tiny_model, shape):
    with pytest.raises(ValueError, match=r"do not fit a model of \(1, 8, 8\)"):
        tiny_model(images(2, shape))


def test_images_outside_model_space_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"model space, \[-1, 1\]"):
        tiny_model(torch.rand(2, *SHAPE) * 255)


def test_a_condition_is_refused(tiny_model):
    with pytest.raises(ValueError, match="not conditioned"):
        tiny_model.generate(2, condition=torch.tensor([0, 1]))


def test_a_scheduler_that_does_not_say_what_it_noises_is_refused():
    with pytest.raises(TypeError, match="or one with alphas_cumprod, not object"):
        DiffusionModel(TinyDenoiser(), object(), SHAPE)
    unknown = ddim_scheduler()
    unknown.register_to_config(prediction_type="x0")
    with pytest.raises(ValueError, match="no prediction_type 'x0'; choose from epsilon, "):
        DiffusionModel(TinyDenoiser(), unknown, SHAPE)


def test_an_unknown_preset_is_refused_with_those_that_exist():
    names = ", ".join(PRESETS)
    with pytest.raises(ValueError, match=names):
        unet("mnist")


@pytest.mark.parametrize(
    ("preset", "shape"),
    [
        ("digits", (1, 8, 8)),
        ("fmnist-small", (1, 16, 16)),
        ("fmnist-fast", (1, 16, 16)),
        ("cifar-small", (3, 16, 16)),
        ("paper-fmnist", (1, 32, 32)),
        ("paper-cifar10", (3, 32, 32)),
        ("rank1-mnist", (1, 32, 32)),
        ("rank1-cifar10", (3, 32, 32)),
    ],
)
def test_presets_denoise_images_of_their_shape(preset, shape):
    model = DiffusionModel.from_preset(preset)
    assert model.sample_shape == shape
    with torch.no_grad():
        assert model(images(1, shape)).prediction.shape == (1, *shape)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_an_embedding_of_each_class_and_the_last_of_none(preset):
    with torch.device("meta"):
        denoiser, plain = unet(preset, num_classes=7), unet(preset)
    assert denoiser.class_embedding.num_embeddings == 8
    shape = preset_shape(preset)
    assert DiffusionModel(denoiser, ddim_scheduler(), shape, num_classes=7).none == 7
    assert plain.class_embedding is None


def test_features_are_flat_and_leave_no_hook():
    model = DiffusionModel.from_preset("digits")
    features = model.get_features(images(3))
    assert features.shape == (3, 32 * 4 * 4)
    assert not model.denoiser.mid_block._forward_hooks


def test_features_without_a_class_need_a_model_that_was_trained_so():
    model = DiffusionModel.from_preset("digits", num_classes=10, condition_dropout=0.1)
    assert model.get_features(images(2)).shape == (2, 32 * 4 * 4)
    with pytest.raises(ValueError, match="not trained for; make it with condition_dropout"):
        DiffusionModel.from_preset("digits", num_classes=10).get_features(images(2))


@pytest.mark.parametrize("count", [-1, 2.5, True, "2"])
def test_a_number_of_samples_that_is_none_is_refused(tiny_model, count):
    with pytest.raises(ValueError, match="batch_size must be an integer of 0 or more"):
        tiny_model.generate(count)
