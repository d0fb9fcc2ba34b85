"""Every noise scheduler of diffusers: right, or refused by name."""

import inspect
from itertools import pairwise

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from avalanche_gd import DenoisingLoss, DiffusionModel, ddim_scheduler, flow_scheduler
from avalanche_gd.models.sampler import FITTING, SAMPLERS, Sampler
from avalanche_gd.plugins import SOURCES
from tests.helpers.lessons import request_of
from tests.helpers.small_models import (
    PREDICTING,
    SHAPE,
    ClassDenoiser,
    TinyDenoiser,
    conditioned,
    images,
    seeded,
    tiny,
)

pytestmark = pytest.mark.usefixtures("quiet_schedulers")

MEAN, STD = -0.2, 0.25  # of the pixels that a perfect denoiser knows

NOT_FITTING = {
    "CogVideoXDPMScheduler",
    "DDIMInverseScheduler",
    "DPMSolverMultistepInverseScheduler",
    "FlowMatchLCMScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
    "LCMScheduler",
    "RePaintScheduler",
    "TCDScheduler",
    "UnCLIPScheduler",
}
"""Those that say what their noise is, and do not sample from it (Helios' in stages)."""

FLOW = {
    "FlowMapEulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "HeliosDMDScheduler",
    "HeliosScheduler",
}
"""Those of flow matching."""


def schedulers():
    """All that diffusers exports and that can be made without arguments."""
    made = {}
    for name in dir(diffusers):
        kind = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
        if inspect.isclass(kind):
            try:
                made[name] = kind()
            except Exception:  # it needs arguments, or a library that is not here
                continue
    return made


SCHEDULERS = schedulers()


def plain_levels(scheduler):
    """a and b of each timestep."""
    config = scheduler.config
    if type(scheduler).__name__ in FLOW or config.get("use_flow_sigmas"):
        shift = config.get("shift", config.get("flow_shift", 1))
        sigma = np.arange(1, 1 + config.num_train_timesteps) / config.num_train_timesteps
        sigma = shift / (shift + 1 / sigma - 1)
        return 1 - sigma, sigma
    alpha_bar = np.asarray(scheduler.alphas_cumprod, dtype=np.float64)
    return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)


class PerfectDenoiser(nn.Module):
    """What a denoiser of ``x_0 ~ N(MEAN, STD^2)`` should predict, and when it is asked."""

    def __init__(self, scheduler):
        super().__init__()
        self.levels = plain_levels(scheduler)
        usual = "epsilon" if hasattr(scheduler, "alphas_cumprod") else "flow_prediction"
        self.kind = scheduler.config.get("prediction_type", usual)
        self.asked = []

    def forward(self, x, t):
        self.asked.append(int(t[0]))
        a, b = (level[t.numpy()].reshape(-1, 1, 1, 1) for level in self.levels)
        gain = STD**2 * a / (STD**2 * a**2 + b**2)
        x0 = MEAN + gain * (x.numpy() - a * MEAN)
        noise = (x.numpy() - a * x0) / b
        outputs = {"epsilon": noise, "sample": x0, "v_prediction": a * noise - b * x0}
        outputs["flow_prediction"] = noise - x0
        return torch.as_tensor(outputs[self.kind], dtype=x.dtype)


def perfect_model(scheduler, **options):
    return DiffusionModel(PerfectDenoiser(scheduler), scheduler, SHAPE, **options)


def test_the_schedulers_of_diffusers_are_found():
    assert len(SCHEDULERS) > 20 and set(FITTING) <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_is_right_or_refused_by_name(name):
    scheduler = SCHEDULERS[name]
    if not (hasattr(scheduler, "alphas_cumprod") or name in FLOW):
        message = rf"of flow matching, or one with alphas_cumprod, not {name}$"
        with pytest.raises(TypeError, match=message):
            DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
        return
    if name in NOT_FITTING:
        with pytest.raises(ValueError, match=f"{name} does not sample .* DDIMScheduler"):
            DiffusionModel(TinyDenoiser(), scheduler, SHAPE)
        return
    model = perfect_model(scheduler)
    _, b = plain_levels(scheduler)
    for t in (0, 200, 600, 999):
        timesteps = torch.full((64,), t)
        noisy = model.process.add_noise(
            torch.zeros(64, *SHAPE), model.draw_noise(64, seeded(t)), timesteps
        )
        assert noisy.std().item() == pytest.approx(b[t], rel=0.05)
    pixels = model.generate(64, steps=100, generator=seeded())
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert pixels.std().item() == pytest.approx(STD, abs=0.06)


FITTED = [
    name
    for name, scheduler in SCHEDULERS.items()
    if (hasattr(scheduler, "alphas_cumprod") or name in FLOW) and name not in NOT_FITTING
]


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_sampling_begins_at_the_last_timestep_and_is_finite(name, steps):
    model = perfect_model(SCHEDULERS[name])
    if name == "PNDMScheduler" and steps < 4:
        with pytest.raises(ValueError, match=f"PNDMScheduler cannot sample in {steps} st"):
            model.generate(2, steps=steps)
        return
    model.denoiser.asked.clear()
    pixels = model.generate(8, steps=steps, generator=seeded())
    assert model.denoiser.asked[0] == 999
    assert pixels.isfinite().all() and pixels.abs().max() <= 1


@pytest.mark.parametrize(
    ("name", "sampler", "eta"),
    [
        *((name, "own", 0.0) for name in FITTED),
        *(("DDIMScheduler", "own", eta) for eta in (0.5, 1.0)),
        *(("DDIMScheduler", sampler, 0.0) for sampler in SAMPLERS),
        *(("FlowMatchEulerDiscreteScheduler", sampler, 0.0) for sampler in SAMPLERS),
    ],
)
@pytest.mark.parametrize("num_classes", [None, 10])
def test_all_that_is_drawn_comes_from_the_generator(name, sampler, eta, num_classes):
    options = dict(noise_scheduler=SCHEDULERS[name], sample_shape=SHAPE)
    if num_classes is None:
        model = DiffusionModel(TinyDenoiser(), **options)
    else:
        model = DiffusionModel(ClassDenoiser(), num_classes=num_classes, **options)
        model.see_classes(torch.arange(num_classes))
    samples = []
    for _ in range(2):
        state, generator = torch.get_rng_state(), seeded()
        samples.append(
            model.generate(3, steps=5, eta=eta, sampler=sampler, generator=generator)
        )
        assert torch.equal(torch.get_rng_state(), state)
        torch.randn(1)
    assert torch.equal(*samples)


@pytest.mark.parametrize("steps", [1, 2, 7, 48, 1000])
def test_sampling_is_trailing_whatever_the_scheduler_says(steps):
    leading = ddim_scheduler(timestep_spacing="leading")
    model = perfect_model(leading)
    model.denoiser.asked.clear()
    assert leading.config.timestep_spacing == "leading"
    first = model.generate(2, steps=steps, generator=seeded())
    trailing = ddim_scheduler()
    trailing.set_timesteps(steps)
    assert model.denoiser.asked == trailing.timesteps.tolist()
    assert model.sampling_timesteps(steps) == model.denoiser.asked
    assert torch.equal(
        first, perfect_model(trailing).generate(2, steps=steps, generator=seeded())
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 1000])
def test_sampling_of_a_flow_is_trailing_before_its_shift(steps, shift):
    model = perfect_model(flow_scheduler(shift=shift))
    model.denoiser.asked.clear()
    model.generate(2, steps=steps)
    times = np.linspace(1, 1 / steps, steps)
    assert model.denoiser.asked == [round(1000 * time) - 1 for time in times]


def test_trailing_timesteps_are_those_of_diffusers(tiny_model):
    scheduler = ddim_scheduler()
    for steps in range(1, 1001):
        scheduler.set_timesteps(steps)
        theirs = scheduler.timesteps[scheduler.timesteps >= 0]  # for k = 61, they add -1
        assert tiny_model.sampling_timesteps(steps) == theirs.tolist()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "scheduler",
    [
        ddim_scheduler(),
        ddim_scheduler(prediction_type="sample"),
        ddim_scheduler(beta_schedule="squaredcos_cap_v2"),
        ddim_scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
        ddim_scheduler(trained_betas=np.linspace(1e-3, 0.1, 200), num_train_timesteps=200),
        ddim_scheduler(terminal_alpha_bar=1e-8),
        flow_scheduler(),
        flow_scheduler(prediction_type="sample", shift=0.5),
        flow_scheduler(prediction_type="v_prediction", shift=3.0),
        flow_scheduler(num_train_timesteps=100),
    ],
)
def test_every_sampler_takes_the_noise_levels_over(sampler, scheduler):
    model = perfect_model(scheduler)
    pixels = model.generate(64, steps=100, sampler=sampler, generator=seeded())
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert pixels.std().item() == pytest.approx(STD, abs=0.06)


def test_a_sampler_takes_levels_over_that_no_configuration_knows():
    scheduler = ddim_scheduler()
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**2
    model = perfect_model(scheduler)
    pixels = model.generate(64, steps=100, sampler="dpmsolver++", generator=seeded())
    assert pixels.std().item() == pytest.approx(STD, abs=0.06)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(trained_betas=[0.1] * 50), "has 50 betas, but num_train_timesteps is 1000"),
        (dict(num_train_timesteps=20), "does not sample .* with betas that end in noise"),
        (dict(trained_betas=[-0.1] * 1000), "must fall, from below 1"),
        (dict(rescale_betas_zero_snr=True), "zero terminal SNR, the noise tells nothing"),
        (
            dict(prediction_type="flow_prediction"),
            "^DDIMScheduler has no prediction_type 'flow_prediction'; choose from "
            "epsilon, sample, v_prediction$",
        ),
    ],
)
def test_noise_that_cannot_be_learned_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionModel(TinyDenoiser(), ddim_scheduler(**options), SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(prediction_type="epsilon"),
            "^FlowMatchEulerDiscreteScheduler has no prediction_type 'epsilon'; choose "
            "from sample, v_prediction, flow_prediction$",
        ),
        (dict(shift=0.0), "^shift must be above 0, got 0.0"),
        (dict(stochastic_sampling=True), "does not sample from the noise that a model lea"),
        (dict(invert_sigmas=True), "does not sample from the noise that a model learns"),
        (dict(use_dynamic_shifting=True), "does not sample from the noise that a model le"),
    ],
)
def test_a_flow_that_cannot_be_learned_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(flow_scheduler(**options))


@pytest.mark.parametrize(
    "kind",
    [
        diffusers.DPMSolverMultistepScheduler,
        diffusers.DPMSolverSinglestepScheduler,
        diffusers.UniPCMultistepScheduler,
        diffusers.DEISMultistepScheduler,
    ],
)
def test_a_scheduler_that_is_told_to_be_of_flow_matching_is(kind):
    options = dict(prediction_type="flow_prediction", flow_shift=2.0)
    model = perfect_model(kind(use_flow_sigmas=True, **options))
    pixels = model.generate(64, steps=50, generator=seeded())
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert pixels.std().item() == pytest.approx(STD, abs=0.06)
    with pytest.raises(ValueError, match="has no prediction_type 'flow_prediction'"):
        perfect_model(kind(use_flow_sigmas=False, **options))


def nearly_zero():
    """A last alpha_bar of 1e-8, with which all three predictions can be learned."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    root = np.sqrt(alpha_bar)
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    rescaled[-1] = 1e-8
    return 1 - rescaled / np.concatenate([[1], rescaled[:-1]])


NO_SIGNAL = [
    dict(prediction_type="sample", rescale_betas_zero_snr=True),
    dict(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    dict(prediction_type="epsilon", trained_betas=nearly_zero()),
    dict(prediction_type="epsilon", terminal_alpha_bar=1e-8),
    dict(prediction_type="epsilon", terminal_alpha_bar=1e-10),
    dict(prediction_type="sample", trained_betas=nearly_zero()),
    dict(prediction_type="v_prediction", trained_betas=nearly_zero()),
]


@pytest.mark.parametrize("options", NO_SIGNAL)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_zero_terminal_snr_samples_at_every_eta(options, eta):
    model = perfect_model(ddim_scheduler(**options))
    for steps in (1, 2, 4):
        assert model.generate(2, steps=steps, eta=eta).isfinite().all()
    pixels = model.generate(64, steps=200, eta=eta, generator=seeded())
    assert pixels.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert pixels.std().item() == pytest.approx(STD, abs=0.03)


@pytest.mark.parametrize(
    "scheduler",
    [
        *(ddim_scheduler(**options) for options in NO_SIGNAL),
        *(make() for name, make in PREDICTING.items() if "flow" in name),
    ],
)
def test_zero_terminal_snr_teaches_finite_losses(scheduler):
    model = tiny(scheduler)
    weights = model.process.min_snr_weights(5.0)
    assert weights.isfinite().all()
    assert weights[-1].item() == pytest.approx(
        1.0 if model.process.prediction_type == "epsilon" else 0.0, abs=1e-7
    )
    loss = DenoisingLoss(min_snr_gamma=5.0, noise_scheduler=scheduler)
    assert loss(model(images(64))).isfinite()
    for name in SOURCES:
        with torch.no_grad():
            taught = SOURCES[name]().draw(request_of(model, images(16)))
        assert taught.x_t.isfinite().all() and taught.target.isfinite().all()


def test_a_terminal_alpha_bar_is_where_the_rescaled_schedule_ends():
    root = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
    plain = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    for terminal in (1e-8, 1e-6):
        alpha_bar = ddim_scheduler(terminal).alphas_cumprod.double().numpy()
        assert np.abs(alpha_bar / plain.clip(min=terminal) - 1).max() < 1e-4
    theirs = ddim_scheduler(rescale_betas_zero_snr=True).alphas_cumprod.numpy()
    ours = ddim_scheduler(1e-8).alphas_cumprod.numpy()
    assert np.abs(ours - theirs).max() < 1e-6
    same = ddim_scheduler(None, prediction_type="sample")
    assert torch.equal(same.alphas_cumprod, ddim_scheduler().alphas_cumprod)


@pytest.mark.parametrize("steps", [2, 10])
def test_a_terminal_alpha_bar_of_1e_8_gives_the_arithmetic_of_the_papers_code(steps):
    model = DiffusionModel(TinyDenoiser().double(), ddim_scheduler(1e-8), SHAPE).double()
    noise = torch.randn(8, *SHAPE, dtype=torch.float64)
    alpha_bar = ddim_scheduler(rescale_betas_zero_snr=True).alphas_cumprod.double()
    x_t, times = noise, [*model.sampling_timesteps(steps), -1]
    with torch.no_grad():
        for now, following in pairwise(times):
            eps = model.denoise(x_t, torch.full((8,), now))
            a = alpha_bar[now]
            a_next = alpha_bar[following] if following >= 0 else torch.tensor(1.0)
            x0 = (x_t - (1 - a).sqrt() * eps) / (a + 1e-8).sqrt()
            x_t = a_next.sqrt() * x0.clamp(-1, 1) + (1 - a_next).sqrt() * eps
    assert (model.reverse(noise, steps=steps) - x_t.clamp(-1, 1)).abs().max() < 1e-4


@pytest.mark.parametrize("terminal", [0, -1e-8, 1e-11, 1e-3, float("nan"), True])
def test_a_terminal_alpha_bar_out_of_its_range_is_refused(terminal):
    with pytest.raises(ValueError, match="terminal_alpha_bar must be"):
        ddim_scheduler(terminal)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_scheduler_that_is_changed_later_changes_no_sample(sampler):
    torch.manual_seed(0)
    changed, denoiser = ddim_scheduler(), TinyDenoiser()
    model = DiffusionModel(denoiser, changed, SHAPE)
    other = DiffusionModel(denoiser, ddim_scheduler(), SHAPE)
    noise = model.draw_noise(3, torch.Generator().manual_seed(0))
    expected = other.reverse(noise, steps=4, sampler=sampler)
    changed.set_timesteps(7)
    changed.register_to_config(prediction_type="v_prediction")
    changed.alphas_cumprod *= 0.5
    assert torch.equal(model.reverse(noise, steps=4, sampler=sampler), expected)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_eta_out_of_range_is_refused(tiny_model, eta):
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\]"):
        tiny_model.generate(1, steps=2, eta=eta)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_denoiser_that_diverged_is_an_error_and_no_image(tiny_model, value):
    with torch.no_grad():
        tiny_model.denoiser.convolution.bias.fill_(value)
    with pytest.raises(ValueError, match="the samples are not finite"):
        tiny_model.generate(2, steps=2)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("predicting", PREDICTING)
def test_a_trajectory_is_guided_and_its_targets_are_not(guidance, predicting):
    model = conditioned(0.1, guidance, scheduler=PREDICTING[predicting]())
    model.condition_dropout = 0.0
    with torch.no_grad():
        request = request_of(model, images(12), steps=3)
        x_t, t, target, condition = SOURCES["trajectory"]().draw(request)
        given = model.denoise(x_t, t, condition)
        without = model.denoise(x_t, t, torch.full_like(condition, 10))
        assert (target - given).abs().max() < 1e-6
        guided = without + guidance * (given - without)
        for now in (slice(0, 4), slice(4, 8)):
            after = slice(now.start + 4, now.stop + 4)
            expected = model.process.ddim_step(x_t[now], guided[now], t[now], t[after])
            assert (x_t[after] - expected).abs().max() < 1e-5


OTHER_ALGORITHMS = {
    "dpmsolver": lambda: diffusers.DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver", final_sigmas_type="sigma_min"
    ),
    "sde-dpmsolver++": lambda: diffusers.DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++"
    ),
    "third order": lambda: diffusers.DPMSolverMultistepScheduler(solver_order=3),
    "Karras": lambda: diffusers.EulerDiscreteScheduler(use_karras_sigmas=True),
    "kept by DDIM": lambda: diffusers.DDIMScheduler.from_config(
        OTHER_ALGORITHMS["dpmsolver"]().config
    ),
}


@pytest.mark.parametrize("kind", ["dpmsolver++", "unipc"])
@pytest.mark.parametrize("name", OTHER_ALGORITHMS)
def test_a_sampler_is_what_its_name_says_whatever_the_model_samples_with(name, kind):
    sampler, plain = (
        Sampler(one, kind) for one in (OTHER_ALGORITHMS[name](), diffusers.DDIMScheduler())
    )
    known = inspect.signature(type(plain.scheduler).__init__).parameters
    options = [{k: one.scheduler.config.get(k) for k in known} for one in (sampler, plain)]
    for own in options:
        del own["trained_betas"]
    assert options[0] == options[1] and not sampler.draws_noise


@pytest.mark.parametrize("kind", ["dpmsolver++", "unipc"])
def test_a_sampler_needs_the_noise_levels_only_however_they_were_made(kind):
    scheduler = diffusers.DDPMScheduler(beta_schedule="sigmoid")
    levels = Sampler(scheduler, kind).scheduler.alphas_cumprod
    torch.testing.assert_close(levels, scheduler.alphas_cumprod)
