"""The pictures of a run: generated images, and curves of metrics."""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image

from avalanche_gd.runs.columns import METRICS
from avalanche_gd.runs.results import Row, curve

_GRID = 64  # images in a grid, 8 by 8
_SMALLEST_PIXELS = 512  # a grid is enlarged to this height


def save_samples(images: Tensor, path: Path) -> None:
    """Save a PNG with the first 64 images in a grid of 8 by 8, filled up with white.

    :param images: in model space, ``(N, C, H, W)``.
    """
    shown = images[:_GRID].cpu()
    white = shown.new_ones(_GRID - len(shown), *shown.shape[1:])
    cells = (torch.cat([shown, white]) + 1) / 2
    grid = make_grid(cells, nrow=8, padding=1, pad_value=1.0)
    factor = max(1, round(_SMALLEST_PIXELS / grid.shape[1]))
    grid = F.interpolate(grid[None], scale_factor=factor, mode="nearest")[0]
    save_image(grid, path)


def save_curves(rows: list[Row], path: Path, *, features: str) -> None:
    """Save a figure of the metrics of a run over its experiences.

    :param features: the name of the features of FID.
    """
    points = [(metric, curve(rows, metric)) for metric in METRICS if metric.title]
    shown = [(metric, own) for metric, own in points if own or not metric.asked_as]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axis, (metric, own) in zip(figure.subplots(1, len(shown)), shown, strict=True):
        axis.plot([x + 1 for x in own], list(own.values()), marker="o")
        decorate(axis, metric.label)
        if metric.in_features:
            axis.set_ylabel(f"in the features of {features}")
    figure.savefig(path, dpi=150)


def decorate(axis: Axes, label: str) -> None:
    """Add a title, and whole numbers of experiences along the bottom."""
    axis.set(xlabel="experience", title=label)
    axis.title.set_fontsize("medium")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
