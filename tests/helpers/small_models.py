"""Models of 8x8 images that cost next to nothing, and what goes into them."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from avalanche_gd import DiffusionModel, ddim_scheduler, flow_scheduler

SHAPE = (1, 8, 8)
CLASSES = 10

PREDICTING = {
    f"{kind} of {scheduler.__name__}": partial(scheduler, prediction_type=kind)
    for scheduler, usual in (
        (ddim_scheduler, "epsilon"),
        (flow_scheduler, "flow_prediction"),
    )
    for kind in (usual, "sample", "v_prediction")
}
"""Every process, and all that a denoiser may predict in it."""


class TinyDenoiser(nn.Module):
    """A denoiser of one convolution that knows the timestep: fast, and not diffusers'."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(channels + 1, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(len(x), 1, *x.shape[2:])
        return self.convolution(torch.cat([x, time], dim=1))


class ClassDenoiser(nn.Module):
    """Knows the image a little, and adds a number of each class's own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.shift = nn.Embedding(CLASSES + 1, 1)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Tensor:
        return self.scale * x + self.shift(class_labels).view(-1, 1, 1, 1)


def tiny(scheduler: Any = None) -> DiffusionModel:
    """A model that knows no classes."""
    return DiffusionModel(TinyDenoiser(), scheduler or ddim_scheduler(), SHAPE)


def conditioned(
    dropout: float = 0.0,
    guidance: float = 1.0,
    seen: Iterable[int] = range(CLASSES),
    scheduler: Any = None,
) -> DiffusionModel:
    """A model conditioned on the class.

    :param seen: the classes that it was trained on.
    """
    model = DiffusionModel(
        ClassDenoiser(),
        scheduler or ddim_scheduler(),
        SHAPE,
        num_classes=CLASSES,
        condition_dropout=dropout,
        guidance=guidance,
    )
    model.see_classes(torch.tensor(list(seen), dtype=torch.long))
    return model


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Random images in model space."""
    return torch.rand(count, *shape) * 2 - 1


def seeded(seed: int = 0) -> torch.Generator:
    """A random state of its own."""
    return torch.Generator().manual_seed(seed)
