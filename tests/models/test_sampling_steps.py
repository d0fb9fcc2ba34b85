"""Every number of sampling steps k visits k timesteps, or is refused."""

from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch

from avalanche_gd import DiffusionModel, ddim_scheduler
from avalanche_gd.models.prediction import NoiseProcess
from avalanche_gd.models.sampler import FITTING, SAMPLERS, Sampler
from tests.helpers.small_models import SHAPE, TinyDenoiser, seeded, tiny

pytestmark = pytest.mark.usefixtures("quiet_schedulers")

MEAN, STD = 0.3, 0.2  # of the pixels of the sampler's own perfect denoiser

FALLING = [
    *((name, "own") for name in FITTING if "Heun" not in name and "Flow" not in name),
    *(("DDIMScheduler", sampler) for sampler in SAMPLERS if sampler != "own"),
]
"""Schedulers that visit a timestep once."""


def levels(count):
    """The configuration of T timesteps that end in noise."""
    betas = np.linspace(0.1 / count, min(20 / count, 0.9), count)
    return dict(num_train_timesteps=count, trained_betas=betas)


def with_surplus(count):
    """The k for which diffusers has k + 1 timesteps."""
    ks = range(1, count + 1)
    return [k for k in ks if len(np.arange(count, 0, -count / k)) > k]


def sampled(sampler, steps, eta=0.0):
    noise = torch.randn(64, *SHAPE, generator=seeded())
    return sampler.reverse(sampler._perfect, noise, steps, eta, seeded(1))


@pytest.mark.parametrize("count", [50, 100, 199, 200, 257, 1000])
def test_k_trailing_timesteps_fall_from_the_last_one_and_end_at_0_or_above(count):
    process = NoiseProcess(ddim_scheduler(**levels(count)))
    for steps in range(1, count + 1):
        times = process.trailing_timesteps(steps)
        assert len(times) == steps and times[0] == count - 1 and times[-1] >= 0
        assert all(now > after for now, after in pairwise(times))


@pytest.mark.parametrize(("name", "kind"), FALLING)
def test_a_sampler_visits_k_timesteps_that_fall_from_the_last_one(name, kind):
    sampler = Sampler(getattr(diffusers, name)(), kind)
    assert len(with_surplus(1000)) == 62
    for steps in [*range(1, 1000, 33), *with_surplus(1000)]:
        try:
            sampler.check_steps(steps)
        except ValueError:
            assert name == "PNDMScheduler"
            continue
        times = sampler.scheduler.timesteps.unique().flip(0).tolist()
        if name != "PNDMScheduler":  # its first steps are of a higher order
            assert sampler.scheduler.timesteps.tolist() == times
            assert len(times) == steps
        assert times[0] == 999 and times[-1] >= 0


def test_ddim_visits_the_trailing_timesteps_for_every_k():
    for count in (100, 200, 257):
        sampler = Sampler(ddim_scheduler(**levels(count)))
        for steps in range(1, count + 1):
            sampler.check_steps(steps)
            times = sampler.scheduler.timesteps.tolist()
            assert times == sampler.process.trailing_timesteps(steps)


@pytest.mark.parametrize(
    "name",
    ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"],
)
@pytest.mark.parametrize("steps", [61, 122, 206, 971])
def test_without_the_surplus_a_scheduler_is_as_if_it_were_given_the_timesteps(name, steps):
    sampler = Sampler(getattr(diffusers, name)())
    sampler.check_steps(steps)
    given = getattr(diffusers, name).from_config(sampler.scheduler.config)
    given.set_timesteps(timesteps=sampler.process.trailing_timesteps(steps))
    assert sampler.scheduler.timesteps.tolist() == given.timesteps.tolist()
    assert torch.equal(sampler.scheduler.sigmas, given.sigmas)


@pytest.mark.parametrize(
    "name", [*FITTING, "CogVideoXDDIMScheduler", "DDIMParallelScheduler"]
)
def test_a_perfect_denoiser_gives_the_images_where_k_does_not_divide_t(name):
    if name == "PNDMScheduler":
        return  # it refuses such k
    pixels = sampled(Sampler(getattr(diffusers, name)()), 127)
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert pixels.std().item() == pytest.approx(STD, abs=0.05)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_more_steps_of_ddim_lose_less_of_the_deviation_of_the_images(eta):
    sampler = Sampler(ddim_scheduler())
    for steps in (100, 103, 267, 334, 501, 999):
        pixels = sampled(sampler, steps, eta)
        assert pixels.mean().item() == pytest.approx(MEAN, abs=0.01)
        lost = STD - pixels.std().item()
        assert -0.008 < lost < 2.6 / steps + 0.008


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [7, 61, 334])
def test_the_parallel_ddim_of_diffusers_gives_the_same_bits(steps, eta):
    config = ddim_scheduler().config
    one, two = (
        Sampler(kind.from_config(config))
        for kind in (diffusers.DDIMScheduler, diffusers.DDIMParallelScheduler)
    )
    assert torch.equal(sampled(one, steps, eta), sampled(two, steps, eta))


@pytest.mark.parametrize("steps", [1, 2, 5, 50, 125])
def test_where_k_divides_t_a_step_ends_where_diffusers_ends_it(steps):
    sampler, plain = Sampler(ddim_scheduler()), ddim_scheduler()
    plain.set_timesteps(steps)
    for eta in (0.0, 1.0):
        x_t, generator = torch.randn(64, *SHAPE, generator=seeded()), seeded(1)
        for t in plain.timesteps:
            prediction = sampler._perfect(x_t, t.repeat(64))
            options = dict(eta=eta, generator=generator)
            x_t = plain.step(prediction, t, x_t, **options).prev_sample
        assert torch.equal(sampled(sampler, steps, eta), x_t.clamp(-1, 1))


@pytest.mark.parametrize(
    ("scheduler", "steps", "nearest"),
    [
        (diffusers.PNDMScheduler(), 3, 4),
        (diffusers.PNDMScheduler(), 30, 25),
        (diffusers.PNDMScheduler(), 499, 500),
        (diffusers.PNDMScheduler(skip_prk_steps=True), 3, 2),
        (diffusers.KDPM2DiscreteScheduler(), 61, 60),
        (diffusers.KDPM2AncestralDiscreteScheduler(), 122, 123),
    ],
)
def test_steps_that_a_scheduler_cannot_make_are_refused_with_the_nearest(
    scheduler, steps, nearest
):
    sampler = Sampler(scheduler)
    message = f"^{type(scheduler).__name__} cannot sample in {steps} steps; .* {nearest}$"
    with pytest.raises(ValueError, match=message):
        sampler.check_steps(steps)
    assert sampler.check_steps(nearest) == nearest


@pytest.mark.parametrize("count", [101, 150])
def test_pndm_fits_a_number_of_timesteps_that_100_does_not_divide(count):
    scheduler = diffusers.PNDMScheduler(**levels(count))
    assert Sampler(scheduler).check_steps(count) == count


DDPM = [diffusers.DDPMScheduler, diffusers.DDPMParallelScheduler]


@pytest.mark.parametrize("kind", DDPM)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 61])
def test_no_noise_is_left_in_the_only_image_that_there_is(kind, variance, steps):
    sampler = Sampler(kind(prediction_type="sample", variance_type=variance))
    noise = torch.randn(4, *SHAPE, generator=seeded())
    pixels = sampler.reverse(
        lambda x_t, t: torch.full_like(x_t, MEAN), noise, steps, 0.0, seeded(1)
    )
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert pixels.std().item() < 0.02  # where k does not divide T, DDPM ends at t = 0


@pytest.mark.parametrize("kind", DDPM)
@pytest.mark.parametrize("steps", [2, 10])
def test_the_default_of_ddpm_has_the_bits_of_diffusers(kind, steps):
    sampler, plain = Sampler(kind(timestep_spacing="trailing")), kind()
    plain.register_to_config(timestep_spacing="trailing")
    plain.set_timesteps(steps)
    x_t, generator = torch.randn(64, *SHAPE, generator=seeded()), seeded(1)
    for t in plain.timesteps:
        prediction = sampler._perfect(x_t, t.repeat(64))
        x_t = plain.step(prediction, t, x_t, generator=generator).prev_sample
    assert torch.equal(sampled(sampler, steps), x_t.clamp(-1, 1))


COSINE = dict(beta_schedule="squaredcos_cap_v2")
DIVERGING = [
    (diffusers.HeunDiscreteScheduler, COSINE, 2, 20),
    (diffusers.KDPM2DiscreteScheduler, COSINE, 2, 20),
    (diffusers.KDPM2AncestralDiscreteScheduler, COSINE, 4, 20),
    (diffusers.EulerAncestralDiscreteScheduler, COSINE, 3, 2),
    (diffusers.DEISMultistepScheduler, dict(use_karras_sigmas=True), 1, 2),
    (diffusers.FlowMatchEulerDiscreteScheduler, dict(shift_terminal=0.1), 1, 2),
]


@pytest.mark.parametrize(("kind", "config", "steps", "enough"), DIVERGING)
def test_steps_in_which_a_scheduler_diverges_are_refused(kind, config, steps, enough):
    scheduler = kind(**config)
    model = DiffusionModel(TinyDenoiser(), scheduler, SHAPE, sampling_steps=enough)
    state, generator = torch.get_rng_state(), seeded()
    message = f"^{kind.__name__} cannot sample in {steps} steps: .*; choose another number"
    for ask in (model.check_steps, lambda k: model.generate(1, steps=k)):
        with pytest.raises(ValueError, match=message):
            ask(steps)
    first = model.generate(2, steps=enough, generator=generator)
    assert torch.equal(torch.get_rng_state(), state)
    again = model.generate(2, steps=enough, generator=seeded())
    assert torch.equal(first, again)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc"])
def test_samples_that_are_not_finite_are_not_blamed_on_the_denoiser(sampler):
    name = SAMPLERS[sampler].__name__
    model = tiny(ddim_scheduler(terminal_alpha_bar=1e-8))
    with pytest.raises(ValueError, match=f"^{name} cannot sample in 1000 st.* nan and"):
        model.generate(1, steps=1000, sampler=sampler)


def test_a_number_of_steps_is_tried_once_and_a_large_one_not_at_all(monkeypatch):
    model, tried = tiny(), []
    trial = Sampler._trial
    monkeypatch.setattr(
        Sampler, "_trial", lambda self, steps: tried.append(steps) or trial(self, steps)
    )
    for steps in (2, 3, 2, 3, 100, 1000):
        model.generate(1, steps=steps)
    assert tried == [2, 3]
