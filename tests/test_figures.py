"""The figures of experiments: what is drawn of a CSV, where and in which order."""

import csv
import itertools
import math

import numpy as np
import pytest
from PIL import Image

import figures
from fid_by_cost import fid_by_cost
from figures import forgetting, overview
from measured import FAMILIES
from methods import EXPERIMENTS

COLUMNS = ["settings", "method", "seed", "experience", "FID", "accuracy", "F_per_step"]
EVERY = [name for names in FAMILIES.values() for name in names]


def write(path, methods, settings="", seeds=2, mode="w"):
    """Make a ``runs.csv`` up: method, cost, and FID after the first and last experience."""
    with open(path, mode, newline="") as file:
        lines = csv.writer(file)
        lines.writerows([COLUMNS] if mode == "w" else [])
        for method, cost, first, last in methods:
            for seed, x in itertools.product(range(seeds), range(3)):
                fid = (first + (last - first) * x / 2) * (1 + 0.1 * seed)
                row = settings, method, seed, x + 1, fid, 1 - 0.3 * x
                lines.writerow([*row, cost if x == 2 else ""])
    return path.parent


def labels(figure):
    """The key's, but for empty ones."""
    return [t.get_text() for t in figure.legends[0].get_texts() if t.get_text()]


def test_each_method_that_trains_a_generator_has_a_family():
    methods = {
        m.settings[0].removeprefix("method=")
        for e in EXPERIMENTS.values()
        for m in e.methods
    }
    assert {name for name in methods if not name.startswith("solver_")} <= set(EVERY)


def test_a_method_is_a_point_of_its_cost_and_fid_with_its_seeds_in_a_bar(tmp_path):
    few = [("naive", 3, 50, 200), ("ewc", 3.5, 50, 100), ("vae_replay", 0, 50, 90)]
    folder = write(tmp_path / "runs.csv", [*few, ("joint", 3, 40, 20)])
    write(tmp_path / "runs.csv", [("ewc", 3.5, 50, 80)], "model.process = flow", mode="a")
    figure, alt = fid_by_cost(folder)
    assert labels(figure) == [
        *("References", "1 joint", "2 naive", "Penalties", "3 ewc, flow", "4 ewc"),
    ]
    axis = figure.axes[0]
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines]
    assert points == [(3, pytest.approx(21)), (3, 210), (3.5, 84), (3.5, 105)]
    bars = [segments.get_segments()[0][:, 1] for segments in axis.collections]
    np.testing.assert_allclose(bars, [(20, 22), (200, 220), (80, 88), (100, 110)])
    assert [line.get_fillstyle() for line in axis.lines] == ["full", "full", "none", "full"]
    assert axis.get_yscale() == "log" and "oracle" in axis.get_title()
    assert "ewc, flow 84.0 at 3.5 F" in alt and "vae" not in alt


@pytest.mark.parametrize("crowd", [0.02, 1.0])
def test_of_33_methods_no_number_covers_another_or_a_point(tmp_path, crowd):
    draw = np.random.default_rng(0)
    cost, last = draw.choice([3, 3.2, 6, 9], 33), 40 * 10 ** (crowd * draw.random(33))
    names = list(itertools.islice(itertools.cycle(EVERY), 33))
    for part, mode in ((slice(0, 28), "w"), (slice(28, 33), "a")):
        own = zip(names[part], cost[part], last[part], last[part], strict=True)
        settings = "" if mode == "w" else "model.process = flow"
        folder = write(tmp_path / "runs.csv", list(own), settings, mode=mode)
    figure, _ = fid_by_cost(folder)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    numbers = sorted(axis.texts, key=lambda text: int(text.get_text()))
    assert [text.get_text() for text in numbers] == [str(i + 1) for i in range(33)]
    boxes = [super(type(t), t).get_window_extent() for t in numbers]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    spots = axis.transData.transform([line.get_xydata()[0] for line in axis.lines])
    assert not any(box.contains(*spot) for box in boxes for spot in spots)
    inside = axis.get_window_extent()
    assert all(inside.contains(*corner) for box in boxes for corner in box.get_points())
    for box, spot in zip(boxes, spots, strict=True):  # what is not near has a line
        number = numbers[boxes.index(box)]
        away = math.dist((box.get_points()[0] + box.get_points()[1]) / 2, spot)
        assert number.arrow_patch or away < 12 / 72 * figure.dpi
    keys = [t.get_window_extent() for t in figure.legends[0].get_texts() if t.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(keys, 2))
    assert min(box.x0 for box in keys) >= 0 and max(b.x1 for b in keys) <= figure.bbox.x1


def test_forgetting_is_a_panel_a_method_beside_the_references_the_best_first(tmp_path):
    few = [("naive", 3, 50, 200), ("ewc", 3.2, 50, 100), ("joint", 3, 40, 20)]
    folder = write(tmp_path / "runs.csv", [*few, ("gem", 9, 50, 60)])
    flow = [("ewc", 3.2, 50, 70), ("naive", 3, 50, 90)]
    write(tmp_path / "runs.csv", flow, "model.process = flow", mode="a")
    with open(tmp_path / "runs.csv", "a") as file:
        file.write(",iid,0,3,20,1,3\n")  # is trained on no stream
    figure, alt = forgetting(folder)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == ["gem", "ewc, flow", "ewc"]
    assert alt.endswith("After the last: gem 63.0, ewc, flow 73.5, ewc 105.0.")
    lines = [[list(line.get_ydata()) for line in axis.lines] for axis in figure.axes]
    naive, joint, *seeds, mean = lines[2]
    np.testing.assert_allclose(naive, [52.5, 131.25, 210])
    np.testing.assert_allclose(joint, [42, 31.5, 21])
    np.testing.assert_allclose(seeds, [(50, 75, 100), (55, 82.5, 110)])
    np.testing.assert_allclose(mean, np.mean(seeds, axis=0))
    np.testing.assert_allclose(lines[1][0], [52.5, 73.5, 94.5])  # naive, flow
    assert len(lines[1]) == 4 and len({axis.get_ylim() for axis in figure.axes}) == 1
    assert labels(figure)[:2] == ["naive", "joint"]


def test_an_overview_has_both_metrics_and_the_first_two_rows_of_samples(tmp_path):
    few = [("naive", 3, 50, 200), ("joint", 3, 40, 20)]
    folder = write(tmp_path / "runs.csv", few)
    (tmp_path / "samples").mkdir()
    with pytest.raises(ValueError, match=r"samples has no naive\.png"):
        overview(folder)
    cell = np.pad(
        np.arange(64, dtype=np.uint8)[:, None, None] * np.ones((3, 3), np.uint8),
        ((0, 0), (1, 0), (1, 0)),
    )
    grid = np.pad(cell.reshape(8, 8, 4, 4).swapaxes(1, 2).reshape(32, 32), ((0, 1), (0, 1)))
    for name in ("naive", "joint"):
        Image.fromarray(grid).save(tmp_path / "samples" / f"{name}.png")
    figure, alt = overview(folder)
    fid, accuracy, *rows = figure.axes
    np.testing.assert_allclose(fid.lines[1].get_ydata(), [42, 31.5, 21])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [1, 0.7, 0.4])
    assert [axis.get_title(loc="left") for axis in rows] == ["naive", "joint"]
    pixels = np.asarray(rows[0].images[0].get_array())[..., 0]
    assert pixels[2, 2::4].tolist() == list(range(16)) and pixels.shape == (5, 65)
    assert alt.endswith("At the end: naive 210.0 and 0.40, joint 21.0 and 0.40.")


def test_what_can_be_drawn_is_written_the_same_each_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "HERE", tmp_path)
    for name in figures.FIGURES:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "runs.csv", [("naive", 3, 50, 200), ("ewc", "", 50, 100)])
    contents = []
    for _ in range(2):
        figures.main()
        found = sorted(tmp_path.glob("*/*.[sp][vn]g"))
        contents.append([path.read_bytes() for path in found])
    names = ["split_cifar10_small", "split_fmnist_small"]
    drawn = ["fid-by-cost.svg", "forgetting.svg"]
    assert [(p.parent.name, p.name) for p in found] == list(itertools.product(names, drawn))
    assert contents[0] == contents[1]
    output = capsys.readouterr().out
    assert "![FID over experiences. After the last: ewc 105.0.](split_fmnist" in output
    assert "overview.png is left out: " in output and "has no naive.png" in output


def test_a_csv_without_costs_or_a_method_without_a_family_is_said(tmp_path):
    folder = write(tmp_path / "runs.csv", [("naive", "", 50, 200)])
    with pytest.raises(ValueError, match=r"runs\.csv has no F_per_step"):
        fid_by_cost(folder)
    folder = write(tmp_path / "runs.csv", [("mine", 3, 50, 200)])
    with pytest.raises(ValueError, match="no family for mine; add it to FAMILIES"):
        fid_by_cost(folder)
