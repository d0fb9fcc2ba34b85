"""The noise scheduler of the paper."""

from typing import Any

from diffusers import DDIMScheduler


def ddim_scheduler(**config: Any) -> DDIMScheduler:
    """The noise scheduler of the paper, for training and for sampling.

    Linear betas from 1e-4 to 0.02 over T = 1000 timesteps, and DDIM sampling
    (arXiv 2010.02502) whose timesteps are spaced ``"trailing"``: with k = 2 it visits
    999 and 499. (diffusers' default, ``"leading"``, would start from pure noise at 500,
    where the model is trained on images with less noise.)

    :param config: what should differ, by the names of :class:`diffusers.DDIMScheduler`.

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
    return DDIMScheduler(**{**defaults, **config})
