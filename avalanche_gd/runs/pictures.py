"""The pictures of a run and of a comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

from avalanche_gd.runs.results import Row, RunResult, curve

_GRID = 64  # images in a grid, 8 by 8
_SMALLEST_PIXELS = 512  # a grid is enlarged to this height
_LABELS = {
    "FID": "FID (lower is better)",
    "KLD": "KLD of classes (lower is better)",
    "accuracy": "solver accuracy on classes so far",
}


def save_samples(images: Tensor, path: Path) -> None:
    """A PNG with the first 64 images in a grid of 8 by 8, white where there are fewer.

    :param images: in model space, ``(N, C, H, W)``.
    """
    shown = images[:_GRID].cpu()
    white = shown.new_ones(_GRID - len(shown), *shown.shape[1:])
    cells = (torch.cat([shown, white]) + 1) / 2
    grid = make_grid(cells, nrow=8, padding=1, pad_value=1.0)
    factor = max(1, round(_SMALLEST_PIXELS / grid.shape[1]))
    grid = F.interpolate(grid[None], scale_factor=factor, mode="nearest")[0]
    _to_image(grid).save(path)


def save_curves(rows: list[Row], path: Path) -> None:
    """A figure of a run: FID, KLD and accuracy over its experiences."""
    figure, axes = plt.subplots(1, len(_LABELS), figsize=(11, 3.2), layout="constrained")
    for axis, (name, label) in zip(axes, _LABELS.items(), strict=True):
        points = curve(rows, name)
        axis.plot([x + 1 for x in points], list(points.values()), marker="o")
        decorate(axis, label)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def save_comparison(groups: dict[str, list[RunResult]], path: Path) -> None:
    """A figure of methods: curves over experiences, and a row of images for each.

    Curves are means over seeds, in a band from the lowest to the highest seed; the
    images are the first of the lowest seed after the last experience, of the methods that
    have a generator.

    :param groups: complete runs by the label of their method.
    """
    pictured = {
        method: min(runs, key=lambda run: run.seed)
        for method, runs in groups.items()
        if (runs[0].folder / "samples").is_dir()
    }
    columns = 4 if max(map(len, groups)) < 30 else 2
    above = 3.6 + 0.2 * -(-len(groups) // columns)
    below = 0.75 * len(pictured) or 0.1
    figure = plt.figure(figsize=(11, above + below), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=[above, below])
    upper, lower = halves
    axes = upper.subplots(1, len(_LABELS))
    for axis, (name, label) in zip(axes, _LABELS.items(), strict=True):
        for method, runs in groups.items():
            plot_seeds(axis, method, [run.curve(name) for run in runs])
        decorate(axis, label)
    axes[0].set_yscale("log")
    upper.legend(
        *axes[-1].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        fontsize="small",
    )
    rows = lower.subplots(len(pictured), 1, squeeze=False)[:, 0] if pictured else []
    for axis, (method, run) in zip(rows, pictured.items(), strict=True):
        axis.imshow(_first_images(run), interpolation="nearest")
        axis.set_ylabel(method, rotation=0, ha="right", va="center")
        axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_seeds(
    axis: Axes,
    label: str,
    curves: Sequence[dict[int, float]],
    *,
    style: dict[str, Any] | None = None,
) -> None:
    """The mean over seeds, in a band from the lowest seed to the highest.

    :param curves: values by experience, of each seed.
    :param style: of the line, as matplotlib names it.
    """
    experiences = sorted(set.intersection(*(set(points) for points in curves)))
    values = np.array([[points[x] for x in experiences] for points in curves])
    positions = [x + 1 for x in experiences]
    look = {"marker": "o"} | (style or {})
    (line,) = axis.plot(positions, values.mean(axis=0), label=label, **look)
    axis.fill_between(
        positions,
        values.min(axis=0),
        values.max(axis=0),
        color=line.get_color(),
        alpha=0.2,
    )


def decorate(axis: Axes, label: str) -> None:
    """A title, and whole experiences along the bottom."""
    axis.set(xlabel="experience", title=label)
    axis.title.set_fontsize("medium")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def _first_images(run: RunResult) -> np.ndarray:
    """The first two rows of the last grid, side by side."""
    last = max((run.folder / "samples").glob("exp_*.png"))
    grid = torch.from_numpy(np.array(Image.open(last)))
    height = grid.shape[0] // 8
    return torch.cat([grid[:height], grid[height : 2 * height]], dim=1).numpy()


def _to_image(grid: Tensor) -> Image.Image:
    pixels = (grid * 255).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
