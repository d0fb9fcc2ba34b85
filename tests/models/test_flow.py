"""Flow matching against closed forms: of a mixture of Gaussians, and of a step."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import nn

from avalanche_gd import DenoisingLoss, DiffusionModel, flow_scheduler
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.models.sampler import SAMPLERS
from tests.helpers.small_models import SHAPE, images, seeded, tiny

WEIGHTS, MEANS, STDS = np.array([[0.3, 0.7], [-0.5, 0.4], [0.1, 0.15]])[..., None]
MEAN = np.sum(WEIGHTS * MEANS)
VARIANCE = np.sum(WEIGHTS * (MEANS**2 + STDS**2)) - MEAN**2
KINDS = ("flow_prediction", "sample", "v_prediction")


def posterior(x, a, b):
    """Of each component at each x: its density there, and E and Var of x_0 given both."""
    variance = a**2 * STDS**2 + b**2
    density = np.exp(-((x - a * MEANS) ** 2) / (2 * variance))
    density = WEIGHTS * density / np.sqrt(2 * np.pi * variance)
    mean = MEANS + a * STDS**2 / variance * (x - a * MEANS)
    return density, mean, STDS**2 * b**2 / variance


def expected_image(x, a, b):
    """``E[x_0 | x_t = x]``."""
    density, mean, _ = posterior(x, a, b)
    return (density * mean).sum(0) / density.sum(0)


class MixtureDenoiser(nn.Module):
    """What is to be predicted of pixels that are of the mixture, and a number too much."""

    def __init__(self, kind="flow_prediction", shift=1.0, too_much=0.0):
        super().__init__()
        self.kind, self.shift, self.too_much = kind, shift, too_much

    def forward(self, x, t):
        sigma = (t.double().numpy() + 1) / 1000
        b = self.shift * sigma / (1 + (self.shift - 1) * sigma)
        a, b = ((level).repeat(x[0].numel()) for level in (1 - b, b))
        pixels = x.double().numpy().ravel()
        x0 = expected_image(pixels, a, b)
        noise = (pixels - a * x0) / b
        outputs = dict(
            flow_prediction=noise - x0, sample=x0, v_prediction=a * noise - b * x0
        )
        output = outputs[self.kind].reshape(x.shape) + self.too_much
        return torch.as_tensor(output, dtype=x.dtype)


def mixture_images(count):
    """Images whose pixels are of the mixture; about one in 10,000 is out of model space."""
    first = np.random.default_rng(0).random((count, *SHAPE)) < WEIGHTS[0]
    pixels = np.random.default_rng(1).normal(size=first.shape)
    pixels = np.where(first, MEANS[0] + STDS[0] * pixels, MEANS[1] + STDS[1] * pixels)
    return torch.as_tensor(pixels.clip(-1, 1), dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("sampler", [*SAMPLERS, "heun"])
def test_the_perfect_denoiser_samples_the_mixture(kind, shift, sampler):
    scheduler = flow_scheduler(prediction_type=kind, shift=shift)
    if sampler == "heun":
        scheduler, sampler = FlowMatchHeunDiscreteScheduler(shift=shift), "own"
        scheduler.register_to_config(prediction_type=kind)
    model = DiffusionModel(MixtureDenoiser(kind, shift), scheduler, SHAPE)
    pixels = model.generate(200, steps=100, sampler=sampler, generator=seeded())
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert pixels.var().item() == pytest.approx(VARIANCE, rel=0.05)
    assert (pixels < 0).float().mean().item() == pytest.approx(WEIGHTS[0, 0], abs=0.02)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_least_loss_is_that_of_the_mixtures_velocity(shift):
    """``E Var[eps - x_0 | x_t]``, by quadrature; an error adds its square."""
    x = np.linspace(-5, 5, 2001)
    least = []
    for sigma in np.arange(1, 1001) / 1000:
        b = shift * sigma / (1 + (shift - 1) * sigma)
        density, mean, variance = posterior(x, 1 - b, b)
        spread = (mean - expected_image(x, 1 - b, b)) ** 2
        # As eps = (x_t - a x_0) / b, the velocity is x_t / b - x_0 / b.
        least.append(np.sum(density * (variance + spread)) * (x[1] - x[0]) / b**2)
    for too_much in (0.0, 0.5):
        denoiser = MixtureDenoiser(shift=shift, too_much=too_much)
        model = DiffusionModel(denoiser, flow_scheduler(shift=shift), SHAPE)
        loss = DenoisingLoss()(model(mixture_images(3000))).item()
        assert loss == pytest.approx(np.mean(least) + too_much**2, rel=0.02)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_noise_is_added_as_diffusers_adds_it(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    process = NoiseProcess(scheduler)
    t = torch.tensor([0, 1, 300, 998, 999])
    x0, noise = images(5), torch.randn(5, *SHAPE)
    theirs = scheduler.scale_noise(x0, scheduler.timesteps.flip(0)[t], noise)
    assert (process.add_noise(x0, noise, t) - theirs).abs().max() < 1e-6
    assert torch.equal(process.add_noise(x0, noise, t)[-1], noise[-1])


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_ddim_step_is_diffusers_step_of_euler(kind, shift):
    scheduler = flow_scheduler(prediction_type=kind, shift=shift)
    process = NoiseProcess(scheduler)
    x_t, output = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE)
    for t, end in ((999, 499), (700, 0), (5, 4)):
        now, then = torch.full((3,), t), torch.full((3,), end)
        velocity = process.velocity(x_t, output, now)
        scheduler.set_timesteps(sigmas=[(t + 1) / 1000, (end + 1) / 1000])
        theirs = scheduler.step(velocity, scheduler.timesteps[0], x_t).prev_sample
        step = process.ddim_step(x_t, output, now, then)
        assert ((step - theirs).abs() < 1e-5 * (1 + velocity.abs())).all()


@pytest.mark.parametrize("kind", KINDS)
def test_image_and_noise_are_those_that_were_mixed(kind):
    process = NoiseProcess(flow_scheduler(prediction_type=kind, shift=2.0))
    t = torch.tensor([1, 300, 700, 999])
    x0, noise = images(4).double(), torch.randn(4, *SHAPE).double()
    x_t, target = process.add_noise(x0, noise, t), process.target(x0, noise, t)
    again = process.image_and_noise(x_t, target, t)
    assert (again[0] - x0).abs().max() < 1e-9 and (again[1] - noise).abs().max() < 1e-9
    assert (process.velocity(x_t, target, t) - (noise - x0)).abs().max() < 1e-9


def test_a_preset_takes_a_process_or_says_which_there_are():
    model = DiffusionModel.from_preset("digits", process="flow", num_classes=3)
    assert type(model.noise_scheduler) is FlowMatchEulerDiscreteScheduler
    assert model.process.prediction_type == "flow_prediction"
    with pytest.raises(ValueError, match="no process 'sde'; choose from ddpm, flow"):
        DiffusionModel.from_preset("digits", process="sde")
    for process in ("ddpm", "flow", "sde"):
        with pytest.raises(ValueError, match=r"^give process or noise_scheduler, n"):
            DiffusionModel.from_preset(
                "digits", process=process, noise_scheduler=flow_scheduler()
            )


def test_a_flow_knows_no_eta():
    with pytest.raises(
        ValueError, match="FlowMatchEulerDiscreteScheduler does not have eta"
    ):
        tiny(flow_scheduler()).generate(1, eta=0.5)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc"])
def test_a_sampler_by_name_takes_the_shift_over(sampler):
    model, asked = tiny(flow_scheduler(shift=3.0)), []
    model.denoiser.register_forward_hook(lambda m, given, out: asked.append(given[1][0]))
    model.generate(2, steps=2, sampler=sampler)
    asked.clear()  # of the trial before the first samples
    model.generate(2, steps=2, sampler=sampler)
    assert asked[0] >= 998 and abs(asked[1] - 499) <= 1
