"""Draws the figures of experiments from their CSVs, in the style of a report.

python experiments/figures.py

Prints each figure as Markdown, with its alternative text. A figure whose CSV lacks
something is left out, and why is said.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from avalanche_gd.report.drawing import draw, panels, plain
from avalanche_gd.report.style import styles_for
from avalanche_gd.runs.pictures import decorate
from avalanche_gd.storage import write_bytes
from fid_by_cost import fid_by_cost
from measured import (
    ACCURACY,
    FID,
    INK,
    LONGEST_BESIDE,
    ON_ANY_PAGE,
    WIDTH,
    in_log,
    mean_curve,
    read,
)

HERE = Path(__file__).parent
GRID = 8  # images to a side of a run's picture of samples


@matplotlib.rc_context(ON_ANY_PAGE)
def forgetting(folder: Path) -> tuple[Figure, str]:
    """FID over experiences, a panel a method, the best at the end first.

    A thin line for each seed and a thick one for their mean; in grey the means of naive
    and joint with the same settings. A method that is not trained on a stream has none.

    :param folder: of the experiment.
    """
    measured = read(folder / "runs.csv", FID)
    streams = [m for m in measured if len(m.curves(FID)[0]) > 1]
    lines = {"naive": "--", "joint": ":"}
    shown = [m for m in streams if m.method not in lines]
    shown.sort(key=lambda m: m.mean(FID))
    rows = math.ceil(len(shown) / 2)
    figure, axes = panels(rows, 2, (WIDTH, 0.9 + 1.05 * rows))
    values = [v for m in streams for points in m.curves(FID) for v in points.values()]
    for place, axis in enumerate(axes.flat):
        if place >= len(shown):
            axis.remove()
            continue
        m = shown[place]
        for other in streams:
            if other.method in lines and other.settings == m.settings:
                axis.plot(*mean_curve(other, FID), color=INK, ls=lines[other.method], lw=1)
        color = m.style["color"]
        for points in m.curves(FID):
            axis.plot(list(points), list(points.values()), color=color, lw=0.7, alpha=0.6)
        axis.plot(*mean_curve(m, FID), color=color, lw=2)
        decorate(axis, "")
        title = plain(m.label)
        if len(title) > LONGEST_BESIDE:
            title = title.replace(", ", ",\n", 1)
        axis.set_title(title, fontsize=7.5, loc="left")
        # LogLocator puts many ticks where it finds fewer than two of these.
        in_log(axis.yaxis, (1, 3) if max(values) > 10 * min(values) else (1, 2, 5))
        axis.set(ylim=(0.85 * min(values), 1.15 * max(values)))
        axis.label_outer()
        if place + 2 < len(shown):
            axis.set_xlabel("")
            axis.tick_params(labelbottom=False)
        else:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("experience")
    drawn = [Line2D([], [], color=INK, ls=ls, lw=1, label=n) for n, ls in lines.items()]
    drawn += [
        Line2D([], [], color=INK, lw=0.7, label="a seed"),
        Line2D([], [], color=INK, lw=2, label="mean over seeds"),
    ]
    title = f"{FID.label}, in the oracle's features"
    figure.legend(
        handles=drawn, loc="outside upper center", ncols=4, frameon=False, title=title
    )
    ranking = (f"{m.label} {FID.text(m.mean(FID))}" for m in shown)
    return figure, f"FID over experiences. After the last: {', '.join(ranking)}."


@matplotlib.rc_context(ON_ANY_PAGE | {"font.size": 10})
def overview(folder: Path) -> tuple[Figure, str]:
    """FID and accuracy over experiences, and a row of images that each method generated.

    Means, in bands from the lowest seed to the highest; the images are of seed 0.

    :param folder: of the experiment, with ``samples/METHOD.png``.
    :raises ValueError: if there are no samples of a method.
    """
    measured = read(folder / "runs.csv", FID, ACCURACY)
    for m in measured:
        if not (folder / "samples" / f"{m.method}.png").is_file():
            raise ValueError(f"{folder / 'samples'} has no {m.method}.png")
    styles = styles_for(m.label for m in measured)
    heights = [1, *[0.21] * len(measured)]
    figure = Figure(figsize=(5, 2.6 + 0.54 * len(measured)), layout="constrained")
    grid = figure.add_gridspec(1 + len(measured), 2, height_ratios=heights)
    for place, column in enumerate((FID, ACCURACY)):
        axis: Axes = figure.add_subplot(grid[0, place])
        for m in measured:
            x, y = mean_curve(m, column)
            own = [[points[i] for i in x] for points in m.curves(column)]
            axis.plot(x, y, **styles[m.label] | {"markersize": 5})
            bounds = np.min(own, axis=0), np.max(own, axis=0)
            axis.fill_between(x, *bounds, color=styles[m.label]["color"], alpha=0.2)
        decorate(axis, column.heading)
    in_log(figure.axes[0].yaxis, (1, 2, 5))
    for place, m in enumerate(measured, start=1):
        axis = figure.add_subplot(grid[place, :])
        axis.imshow(first_images(folder / "samples" / f"{m.method}.png"))
        axis.set_axis_off()
        color = styles[m.label]["color"]
        axis.set_title(plain(m.label), loc="left", fontsize=9.5, pad=2, color=color)
    told = (
        f"{m.label} {FID.text(m.mean(FID))} and {m.mean(ACCURACY):.2f}" for m in measured
    )
    alt = "FID and accuracy of the solver over experiences, and generated images. "
    return figure, f"{alt}At the end: {', '.join(told)}."


def first_images(path: Path) -> np.ndarray:
    """The first two rows of a grid of 8 by 8 images, as one."""
    with Image.open(path, formats=["PNG"]) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    cell, line = divmod(len(pixels), GRID)  # a line of pixels is around each image
    first, second = (pixels[i * cell : (i + 1) * cell + line] for i in range(2))
    return np.concatenate([first, second[:, line:]], axis=1)


Figures = dict[str, Callable[[Path], tuple[Figure, str]]]
OF_METHODS: Figures = {"fid-by-cost.svg": fid_by_cost, "forgetting.svg": forgetting}
FIGURES: dict[str, Figures] = {
    "split_fmnist_small": OF_METHODS,
    "split_cifar10_small": OF_METHODS,
    "split_digits": {"overview.png": overview},
}


def content(figure: Figure, name: str, alt: str) -> bytes:
    """A figure as a file, the same bytes each time."""
    if name.endswith(".svg"):
        return draw(figure, name, alt).svg
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    return png.getvalue()


def main() -> None:
    """Draw all."""
    for experiment, figures in FIGURES.items():
        for name, make in figures.items():
            path = HERE / experiment / name
            try:
                figure, alt = make(path.parent)
            except ValueError as error:
                print(f"{path} is left out: {error}\n")
                continue
            write_bytes(path, content(figure, name, alt))
            print(f"![{alt}]({experiment}/{name})\n")


if __name__ == "__main__":
    main()
