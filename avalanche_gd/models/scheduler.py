"""Noise schedulers: the paper's, and the one of flow matching."""

from typing import Any

from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from avalanche_gd.checks import check_choice, check_number

PROCESSES = ("ddpm", "flow")
"""The noise processes by name, of :func:`ddim_scheduler` and :func:`flow_scheduler`."""

_LEAST = 1e-10  # below this, the last betas are 1 in single precision


def ddim_scheduler(terminal_alpha_bar: float | None = None, **config: Any) -> DDIMScheduler:
    """Make the noise scheduler of the paper, for training and for sampling.

    Linear betas from 1e-4 to 0.02 over T = 1000 timesteps, and DDIM sampling
    (arXiv 2010.02502) with timesteps spaced ``"trailing"``: with k = 2 it visits
    999 and 499. (diffusers' default, ``"leading"``, would start from pure noise at 500,
    where the model is trained on images with less noise.)

    With ``terminal_alpha_bar``, the betas are rescaled so that the last timestep has almost
    no signal left (arXiv 2305.08891, algorithm 1): this ``alpha_bar``, and no timestep has
    a lower one. So the noise can still be predicted, as nothing is divided by 0. The betas
    are in the scheduler's configuration, and are saved with it.

    :param terminal_alpha_bar: the ``alpha_bar`` of the last timestep, from 1e-10 to its
        value without rescaling (4.04e-5); the authors' code adds 1e-8. None for no
        rescaling.
    :param config: what should differ, by the names of :class:`diffusers.DDIMScheduler`.
    :raises ValueError: for a ``terminal_alpha_bar`` out of its range.

    >>> ddim_scheduler().config.timestep_spacing
    'trailing'
    """
    defaults = dict(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        clip_sample=True,
        set_alpha_to_one=True,
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )
    scheduler: Any = DDIMScheduler(**{**defaults, **config})
    if terminal_alpha_bar is None:
        return scheduler
    lowest = check_number("terminal_alpha_bar", terminal_alpha_bar, "above 0")
    highest = float(scheduler.alphas_cumprod[-1])
    if not _LEAST <= lowest <= highest:
        raise ValueError(
            f"terminal_alpha_bar must be from {_LEAST:g} to {highest:.3g}, its value "
            f"without rescaling, got {lowest:g}"
        )
    rescaled = 1 - rescale_zero_terminal_snr(scheduler.betas.double())
    alpha_bar = rescaled.cumprod(0).clamp(min=lowest)
    before = alpha_bar.roll(1)
    before[0] = 1
    betas = 1 - alpha_bar / before
    return DDIMScheduler(**{**defaults, **config, "trained_betas": betas.tolist()})


def flow_scheduler(
    *, prediction_type: str = "flow_prediction", **config: Any
) -> FlowMatchEulerDiscreteScheduler:
    """Make the noise scheduler of flow matching, for training and for sampling.

    Noisy images lie on the line from image to noise (rectified flow, arXiv 2209.03003), and
    the denoiser predicts its direction, ``eps - x_0``. Sampling is Euler's method.

    :param prediction_type: ``"flow_prediction"`` for that velocity, ``"sample"`` for the
        image, or ``"v_prediction"``. (diffusers' own pipelines need the velocity.)
    :param config: what should differ, by the names of
        :class:`diffusers.FlowMatchEulerDiscreteScheduler`, such as ``shift``.

    >>> flow_scheduler(shift=3.0).config.shift
    3.0
    """
    scheduler: Any = FlowMatchEulerDiscreteScheduler(**config)
    if prediction_type != "flow_prediction":
        scheduler.register_to_config(prediction_type=prediction_type)
    return scheduler


def scheduler_of(process: str, terminal_alpha_bar: float | None = None) -> Any:
    """Make the noise scheduler of a process.

    :param process: a name in :data:`PROCESSES`.
    :param terminal_alpha_bar: as in :func:`ddim_scheduler`.
    :raises ValueError: if there is no such process, or for a ``terminal_alpha_bar`` that is
        out of its range, or given for flow matching.
    """
    check_choice("process", process, PROCESSES)
    if process == "ddpm":
        return ddim_scheduler(terminal_alpha_bar)
    if terminal_alpha_bar is not None:
        raise ValueError(
            "terminal_alpha_bar is for process=ddpm; flow matching ends in pure noise"
        )
    return flow_scheduler()
