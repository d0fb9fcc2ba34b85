"""The reverse process of a diffusion model, by a diffusers scheduler."""

import copy
import inspect
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from avalanche_gd.checks import check_choice, check_integer, check_number
from avalanche_gd.models.prediction import NoiseProcess, flow_shift, is_flow

SAMPLERS: dict[str, Any] = {
    "own": None,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
"""diffusers' samplers by name; ``"own"``, the model's own scheduler, is the first."""

FITTING = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
)
"""Names of diffusers' schedulers that fit a model; others may fit too."""

_DDIM: tuple[Any, ...] = (DDIMScheduler, DDIMParallelScheduler, CogVideoXDDIMScheduler)
_DDPM: tuple[Any, ...] = (DDPMScheduler, DDPMParallelScheduler)
_KDPM2: tuple[Any, ...] = (KDPM2DiscreteScheduler, KDPM2AncestralDiscreteScheduler)
_PNDM: tuple[Any, ...] = (PNDMScheduler,)

_MEAN, _STD = 0.3, 0.2  # of the pixels in the test of a sampler
_TRIAL_STEPS = 100  # more of them are shorter, and are not tried
_TOLERANCE = 0.06  # of their mean and standard deviation after these steps
_NO_SIGNAL = 1e-6  # below this alpha_bar, x_t is noise

Denoise = Callable[[Tensor, Tensor], Tensor]
"""A function from noisy images ``(N, C, H, W)`` and timesteps ``(N,)`` to a prediction."""

Guide = Callable[[Denoise], Denoise]
"""A function that changes the predictions that a sampler uses."""


class Sampler:
    """Samples with its own scheduler, as ``set_timesteps`` would change the model's.

    The timesteps are spaced ``"trailing"``, whatever the model's scheduler says: for each k
    they start at T - 1, where the model was trained on pure noise. (diffusers' default,
    ``"leading"``, starts k = 2 at T / 2. DPM-Solver++ of flow matching starts at T - 2.)
    Where k does not divide T, DDIM differs from diffusers' pipelines: its steps end at the
    noise level of the next timestep, theirs at that of ``t - T // k``. A predicted image is
    clipped to model space, also by schedulers without ``clip_sample`` or ``thresholding``:
    where little signal is left, a small error of a predicted noise is a large one of the
    image. (In flow matching it is not.) DDPM with
    ``variance_type="fixed_large"`` adds no noise in the last step, after which none would
    be removed.

    :param noise_scheduler: the model's scheduler.
    :param name: a name in :data:`SAMPLERS`: DPM-Solver++ (arXiv 2211.01095) and UniPC
        (arXiv 2302.04867) use the model's noise levels, and else diffusers' defaults.
    :raises ValueError: if there is no such sampler, for a ``clip_sample_range`` other than
        1, or if it does not sample from the noise that the model is trained with (tested on
        images whose distribution is known).
    """

    def __init__(self, noise_scheduler: Any, name: str = "own"):
        kind = SAMPLERS[check_sampler(name)]
        self.process = NoiseProcess(noise_scheduler)
        self._is_flow = is_flow(noise_scheduler)
        if kind is None:
            self.scheduler = copy.deepcopy(noise_scheduler)
        elif self._is_flow:
            self.scheduler = kind(
                num_train_timesteps=self.process.num_timesteps,
                use_flow_sigmas=True,
                flow_shift=flow_shift(noise_scheduler.config),
            )
        else:
            self.scheduler = self._with_levels(kind)
        if "timestep_spacing" in self.scheduler.config:
            self.scheduler.register_to_config(timestep_spacing="trailing")
        if self._is_flow:
            self.scheduler.register_to_config(prediction_type="flow_prediction")
        accepted = inspect.signature(self.scheduler.step).parameters
        self._takes = {"eta", "generator"} & set(accepted)
        self._ends_in_noise = isinstance(self.scheduler, _DDPM) and (
            self.scheduler.config.variance_type == "fixed_large"
        )
        self._clips = self._has("clip_sample") or self._has("thresholding")
        reach = self.scheduler.config.get("clip_sample_range", 1)
        if self._has("clip_sample") and reach != 1:
            raise ValueError(
                f"clip_sample_range must be 1, as images are in [-1, 1], got {reach}"
            )
        self._accepted: set[int] = set()  # numbers of steps
        self.draws_noise = False
        """True if steps draw noise, even with an eta of 0."""
        self._try()

    def reverse(
        self,
        denoise: Denoise,
        noise: Tensor,
        steps: int,
        eta: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Go from noise to images in model space.

        :raises ValueError: for an eta outside of ``[0, 1]``, or above 0 if the scheduler
            does not have it; for steps as in :meth:`check_steps`; if the images are not
            finite.
        """
        self.check_eta(eta)
        self.check_steps(steps)
        x_0 = self._reverse(denoise, noise, eta, generator)
        if not x_0.isfinite().all():
            self._try_steps(steps)  # it may be the scheduler
            raise ValueError(
                "the samples are not finite: the denoiser has diverged; use weights from "
                "before that, and lower the learning rate"
            )
        return x_0.clamp(-1, 1)

    def _reverse(
        self,
        denoise: Denoise,
        noise: Tensor,
        eta: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Go from noise to images by the timesteps that are set."""
        x_t = noise * getattr(self.scheduler, "init_noise_sigma", 1.0)
        scaled = getattr(self.scheduler, "scale_model_input", lambda x_t, t: x_t)
        visited = self._nearest()
        ends = [*visited[1:], -1]
        for t, nearest, end in zip(self.scheduler.timesteps, visited, ends, strict=True):
            timesteps = torch.full((len(x_t),), nearest, device=x_t.device)
            noisy = scaled(x_t, t)
            prediction = denoise(noisy, timesteps)
            if not self._clips:
                prediction = self.process.clipped(noisy, prediction, timesteps)
            if self._is_flow:
                prediction = self.process.velocity(x_t, prediction, timesteps)
            options = self._options(nearest, eta, generator)
            self._end_at(end, nearest)
            step = self.scheduler.step(prediction, t, x_t, **options)
            x_t = step.prev_sample
            if end == -1 and self._ends_in_noise:
                x_t = step.pred_original_sample
        return x_t

    def is_that_of(self, noise_scheduler: Any) -> bool:
        """True if a model with this scheduler would learn and sample the same."""
        other = Sampler(noise_scheduler)
        one, two = self.process, other.process
        return (
            one.prediction_type == two.prediction_type
            and torch.equal(one.alpha_bar, two.alpha_bar)
            and torch.equal(self._trial(self._most), other._trial(other._most))
        )

    def check_steps(self, steps: int) -> int:
        """Return the steps, or raise ValueError if the scheduler cannot make so many.

        PNDM, whose steps have one length, can make those that divide T. Others diverge if
        their steps are too long.
        """
        steps = check_integer("sampling steps", steps, 1, self.process.num_timesteps)
        self._set_steps(steps)
        if steps < _TRIAL_STEPS and steps not in self._accepted:
            self._try_steps(steps)
            self._accepted.add(steps)
            self._set_steps(steps)  # without what the trial left there
        return steps

    def _set_steps(self, steps: int) -> None:
        """Set the timesteps, or raise ValueError if the scheduler does not have them."""
        name = type(self.scheduler).__name__
        if not self._makes(steps):
            raise ValueError(
                f"{name} cannot sample in {steps} steps; the nearest number that it can "
                f"make is {self._makeable(steps)}"
            )
        if self._is_flow:  # else the last of k steps would be from sigma = 1 / T
            self.scheduler.sigma_min, self.scheduler.sigma_max = 1 / steps, 1.0
        try:
            self.scheduler.set_timesteps(steps)
            if self._is_flow:  # else UniPC would look for it, and take the second of two
                self.scheduler.set_begin_index(0)
            self._drop_surplus()
        except (ValueError, ZeroDivisionError, IndexError) as error:
            raise ValueError(f"{name} cannot sample in {steps} steps: {error}") from error

    def _makes(self, steps: int) -> bool:
        """True if the scheduler visits the right timesteps in so many steps."""
        count, scheduler = self.process.num_timesteps, self.scheduler
        if isinstance(scheduler, _PNDM):
            enough = 1 if scheduler.config.skip_prk_steps else scheduler.pndm_order
            return count % steps == 0 and steps >= enough
        if isinstance(scheduler, _KDPM2):  # -1 would be in between other timesteps too
            return len(np.arange(count, 0, -count / steps)) == steps
        return True

    def _makeable(self, steps: int) -> int:
        """The number nearest to these steps that the scheduler can make."""
        numbers = filter(self._makes, range(1, self.process.num_timesteps + 1))
        return min(numbers, key=lambda number: abs(number - steps))

    def _drop_surplus(self) -> None:
        """Drop the timestep -1 in which diffusers' ``"trailing"`` ends for some k."""
        scheduler = self.scheduler
        kept = ~(scheduler.timesteps < 0)  # those that are NaN fail the trial
        if kept.all():
            return
        scheduler.timesteps = scheduler.timesteps[kept]
        sigmas = getattr(scheduler, "sigmas", None)
        if sigmas is not None:  # of the timesteps, and a last one
            scheduler.sigmas = torch.cat([sigmas[:-1][kept], sigmas[-1:]])

    def _end_at(self, end: int, timestep: int) -> None:
        """Let DDIM's step from this timestep end at that one, or at the image for -1.

        diffusers' step ends at ``timestep - T // num_inference_steps``.
        """
        if isinstance(self.scheduler, _DDIM):
            count = self.process.num_timesteps
            self.scheduler.num_inference_steps = Fraction(count, timestep - end)

    def _nearest(self) -> list[int]:
        """The model's timestep that is nearest to each of the scheduler's.

        Those of some schedulers of second order and of flow matching lie in between.
        """
        if not self._is_flow:
            return [round(float(t)) for t in self.scheduler.timesteps]
        levels, sigmas = self.process.beta_bar.sqrt(), self.scheduler.sigmas[:-1]
        return [int((levels - sigma).abs().argmin()) for sigma in sigmas]

    def check_eta(self, eta: float) -> None:
        """Raise ValueError if the scheduler does not have this eta."""
        check_number("eta", eta, "in [0, 1]")
        if eta and "eta" not in self._takes:
            raise ValueError(
                f"{type(self.scheduler).__name__} does not have eta; leave it at 0"
            )

    def _with_levels(self, kind: Any) -> Any:
        """Make a scheduler with the model's noise levels, and its own kind's defaults.

        Not by ``from_config``: that also takes what the two kinds call by the same name,
        such as another algorithm, and keeps what this kind does not have.
        """
        levels = self.process.alpha_bar.cpu()
        if levels[-1] == 0:  # these schedulers would take its logarithm
            levels = torch.cat([levels[:-1], levels[-2:-1] / 2])
        betas = 1 - levels / torch.cat([levels.new_ones(1), levels[:-1]])
        return kind(
            num_train_timesteps=len(betas),
            trained_betas=betas.tolist(),
            prediction_type=self.process.prediction_type,
        )

    def _has(self, option: str) -> bool:
        """True if the scheduler's kind has this option, and it is on.

        A configuration may have options of other kinds, which do nothing.
        """
        known = inspect.signature(type(self.scheduler).__init__).parameters
        return option in known and bool(self.scheduler.config[option])

    def _options(
        self, timestep: int, eta: float, generator: torch.Generator | None
    ) -> dict[str, Any]:
        """The arguments of a step in addition to the prediction.

        Where no signal is left, new noise has the same distribution as ``x_t``, while
        diffusers' step with eta = 1 may end in the root of a number just below 0.
        """
        if self.process.alpha_bar[timestep] < _NO_SIGNAL:
            eta = 0.0
        options: dict[str, Any] = {"eta": eta, "generator": generator}
        return {name: options[name] for name in self._takes}

    def _try(self) -> None:
        """Raise ValueError unless a perfect denoiser leads to the right images.

        For pixels ``x_0 ~ N(mean, std^2)``, the expectation of ``x_0`` given ``x_t`` is
        known, and so is what a perfect denoiser predicts.
        """
        problem = self._problem(self._most, least=_STD - _TOLERANCE)
        if problem is not None:
            raise ValueError(
                f"{type(self.scheduler).__name__} does not sample from the noise that a "
                f"model learns: {problem}; choose from {', '.join(FITTING)}, with betas "
                "that end in noise"
            )

    def _try_steps(self, steps: int) -> None:
        """Raise ValueError if a perfect denoiser leads elsewhere in so many steps.

        Few steps may make the images more alike, but not less.
        """
        problem = self._problem(steps, least=0.0)
        if problem is not None:
            raise ValueError(
                f"{type(self.scheduler).__name__} cannot sample in {steps} steps: "
                f"{problem}; choose another number, or another scheduler"
            )

    def _problem(self, steps: int, *, least: float) -> str | None:
        """What is wrong with the images of a perfect denoiser; None if nothing is.

        :param least: the lowest standard deviation that is not wrong.
        """
        given = f"pixels of mean and standard deviation {_MEAN} and {_STD}"
        try:
            pixels = self._trial(steps)
        except Exception as error:  # of any kind, as the scheduler may be anybody's
            return f"{given} end in {type(error).__name__}"
        mean, std = pixels.mean().item(), pixels.std().item()
        if abs(mean - _MEAN) < _TOLERANCE and least <= std < _STD + _TOLERANCE:
            return None
        return f"{given} come out as {mean:.2f} and {std:.2f}"

    @property
    def _most(self) -> int:
        """The most steps of a trial."""
        return self._makeable(min(_TRIAL_STEPS, self.process.num_timesteps))

    def _trial(self, steps: int) -> Tensor:
        """Images by a perfect denoiser, from the same noise each time."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(16, 1, 8, 8, generator=generator)
        before = generator.get_state()
        self._set_steps(steps)
        pixels = self._reverse(self._perfect, noise, 0.0, generator).clamp(-1, 1)
        self.draws_noise = not torch.equal(generator.get_state(), before)
        return pixels

    def _perfect(self, x_t: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect denoiser predicts for images ``N(mean, std^2)``."""
        a, b = self.process.coefficients(timesteps, x_t)
        x0 = (_MEAN * b**2 + _STD**2 * a * x_t) / (_STD**2 * a**2 + b**2)
        return self.process.target(x0, (x_t - a * x0) / b, timesteps)


def check_sampler(name: str) -> str:
    """Return the name, or raise ValueError if there is no such sampler."""
    return check_choice("sampler", name, SAMPLERS)
