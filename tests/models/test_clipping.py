"""A predicted image is clipped to model space, by whatever sampler."""

from functools import partial

import diffusers
import pytest
import torch

from avalanche_gd import ddim_scheduler
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.models.sampler import FITTING, SAMPLERS, Sampler
from tests.helpers.small_models import SHAPE, seeded

pytestmark = pytest.mark.usefixtures("quiet_schedulers")

MEAN, STD = 0.3, 0.2  # of the pixels of the sampler's own perfect denoiser
ERROR = 0.06  # of a predicted noise
SCHEDULES = {
    "zero terminal SNR": dict(terminal_alpha_bar=1e-8),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "default": {},
}
KINDS = [
    *(("DDIMScheduler", sampler) for sampler in SAMPLERS),
    *((name, "own") for name in FITTING if not name.startswith(("DDIM", "Flow"))),
]


def sampler_of(schedule, name, kind):
    """A sampler with the noise levels of a schedule."""
    levels = ddim_scheduler(**SCHEDULES[schedule]).alphas_cumprod
    betas = 1 - levels / torch.cat([levels.new_ones(1), levels[:-1]])
    return Sampler(getattr(diffusers, name)(trained_betas=betas.tolist()), kind)


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize(("name", "kind"), KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_small_error_of_the_noise_stays_small_in_the_images(schedule, name, kind, steps):
    try:
        sampler = sampler_of(schedule, name, kind)
        sampler.check_steps(steps)
    except ValueError as error:  # as PNDM and Heun do not fit betas of almost 1
        pytest.skip(str(error))
    check_that_an_error_stays_small(sampler, steps)


def of_the_same_configuration(name):
    """A scheduler of another kind, which keeps options that it does not have."""
    config = ddim_scheduler(**SCHEDULES["cosine"]).config
    return getattr(diffusers, name).from_config(config)


OUR_OWN = {
    **{
        f"{schedule}, {kind}": (partial(ddim_scheduler, **SCHEDULES[schedule]), kind)
        for schedule in SCHEDULES
        for kind in SAMPLERS
    },
    **{
        name: (partial(of_the_same_configuration, name), "own")
        for name in ("EulerDiscreteScheduler", "DPMSolverMultistepScheduler")
    },
}
"""Schedulers whose configuration says that they clip, for samplers that do not."""


@pytest.mark.parametrize("name", OUR_OWN)
def test_so_it_does_where_only_the_configuration_says_clip_sample(name):
    make, kind = OUR_OWN[name]
    assert make().config.clip_sample
    check_that_an_error_stays_small(Sampler(make(), kind), 10)


def test_only_model_space_is_a_range_of_clipping():
    with pytest.raises(ValueError, match=r"clip_sample_range must be 1, .* got 0.5"):
        Sampler(ddim_scheduler(clip_sample_range=0.5))
    for kind in SAMPLERS:
        Sampler(ddim_scheduler(clip_sample=False, clip_sample_range=0.5), kind)


def check_that_an_error_stays_small(sampler, steps):
    noise = torch.randn(64, *SHAPE, generator=seeded())
    off = ERROR * torch.randn(64, *SHAPE, generator=seeded(1)).sign()
    x_0 = sampler.reverse(lambda x, t: sampler._perfect(x, t) + off, noise, steps, 0, None)
    assert (x_0.abs() == 1).float().mean() < 0.1
    assert abs(x_0.mean().item() - MEAN) < 0.15 and abs(x_0.std().item() - STD) < 0.15


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_an_output_is_changed_only_where_its_image_leaves_model_space(prediction):
    process = NoiseProcess(ddim_scheduler(prediction_type=prediction))
    timesteps = torch.tensor([0, 300, 999])
    x0 = torch.tensor([-0.9, 0.5, 1.5, -3.0]).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    noise = torch.randn(x0.shape, generator=seeded())
    x_t = process.add_noise(x0, noise, timesteps)
    output = process.target(x0, noise, timesteps)
    clipped = process.clipped(x_t, output, timesteps)
    assert torch.equal(clipped[:, :, 0], output[:, :, 0])
    image, left = process.image_and_noise(x_t, clipped, timesteps)
    torch.testing.assert_close(image, x0.clamp(-1, 1), atol=1e-3, rtol=0)
    torch.testing.assert_close(process.add_noise(image, left, timesteps), x_t)


def test_flow_matching_is_not_clipped():
    process = NoiseProcess(diffusers.FlowMatchEulerDiscreteScheduler())
    x_t, output = torch.full((2, 2, *SHAPE), 9.0)
    assert process.clipped(x_t, output, torch.tensor([0, 999])) is output
