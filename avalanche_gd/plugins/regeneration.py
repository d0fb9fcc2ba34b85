"""Let a diffusion model make given images again."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.models.evaluation_mode import in_evaluation_mode


@torch.no_grad()
def regenerate(
    model: Any,
    images: Tensor,
    condition: Tensor | None = None,
    *,
    timestep: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Noise images to a timestep, and denoise them by k DDIM steps.

    (SDEdit, arXiv 2108.01073, algorithm 1, by DDIM.) The steps are spaced evenly, ``t_j =
    t (1 - j / k)``, rounded, and the last one leads to the image. The lower t is, the more
    of the images is kept; at T - 1 nothing is, and the results are samples. Costs k F.

    :param model: a :class:`~avalanche_gd.DiffusionModel`, asked in evaluation mode.
    :param images: in model space, ``(N, C, H, W)``.
    :param condition: the classes of the images, ``(N,)``, for a conditioned model.
    :param timestep: t, from 0 to T - 1.
    :param steps: k, 1 or more.
    :param generator: the source of the noise.
    :return: images in model space, of the same shape.
    :raises ValueError: for a timestep or steps outside of these ranges, or for images that
        do not fit the model (:meth:`~avalanche_gd.DiffusionModel.check_images`).
    """
    check_integer("timestep", timestep, 0, model.num_timesteps - 1)
    check_integer("steps", steps)
    model.check_images(images)
    process, denoise = model.process, model.guided(condition)
    grid = [round(timestep * (1 - j / steps)) for j in range(steps)]
    times = [torch.full((len(images),), t, device=images.device) for t in grid]
    x_t = process.add_noise(images, model.draw_noise(len(images), generator), times[0])
    with in_evaluation_mode(model):
        for now, end in pairwise(times):
            x_t = process.ddim_step(x_t, denoise(x_t, now), now, end)
        last = denoise(x_t, times[-1])
    image, _ = process.image_and_noise(x_t, last, times[-1])
    return image.clamp(-1, 1)
