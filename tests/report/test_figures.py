"""The figures of a report."""

import math

import pytest
from matplotlib.figure import Figure

from avalanche_gd.report import figures
from avalanche_gd.report.collect import collect
from avalanche_gd.report.style import styles_of
from tests.helpers.fake_runs import write_run


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn."""
    kept = []

    def draw(figure: Figure, *_):
        figure.draw_without_rendering()
        kept.append(figure)

    monkeypatch.setattr(figures, "draw", draw)
    return kept


@pytest.mark.parametrize("length", [8, 40, 78])
@pytest.mark.parametrize("count", [1, 4, 40])
def test_the_legend_takes_no_room_from_the_curves(tmp_path, drawn, count, length):
    for number in range(count):
        write_run(tmp_path, f"m{number:02d}".ljust(length, "a"), cost={"F_per_step": 3})
    collection = collect([tmp_path])
    (section,) = collection.sections
    styles = styles_of(collection.sections)
    figures.curve_drawings(section, styles)
    figures.cost_drawings(section, styles)
    assert len(drawn) > 4
    for figure in drawn:
        (axis,), (legend,) = figure.axes, figure.legends
        plot, below = (part.get_window_extent() for part in (axis, legend))
        assert below.y1 < plot.y0 and below.y0 >= 0  # one below the other
        assert plot.height > 1.8 * figure.dpi and plot.width > 2.5 * figure.dpi


def test_a_method_whose_name_begins_with_an_underscore_is_in_the_legend(tmp_path, drawn):
    for name in ("_mine", "naive"):
        write_run(tmp_path, name, cost={"F_per_step": 3})
    collection = collect([tmp_path])
    (section,) = collection.sections
    styles = styles_of(collection.sections)
    figures.curve_drawings(section, styles)
    figures.cost_drawings(section, styles)
    for figure in drawn:
        texts = [text.get_text().strip() for text in figure.legends[0].get_texts()]
        assert sorted(texts) == ["_mine", "naive"]


def test_the_solvers_quality_is_not_drawn_against_a_cost_of_the_generator(tmp_path):
    cost = {"F_per_step": 3.0, "F_total": 6000.0, "F_total_solver": 4000.0}
    write_run(tmp_path, "naive", cost=cost)
    collection = collect([tmp_path])
    styles = styles_of(collection.sections)
    names = [d.name for d in figures.cost_drawings(collection.sections[0], styles)]
    assert names == [
        *("split_digits-fid-by-seconds", "split_digits-accuracy-by-seconds"),
        "split_digits-fid-by-f",
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_method_with_a_seed_that_is_not_finite_is_in_no_cost_figure(tmp_path, value):
    for seed, fid in enumerate((5.0, value)):
        write_run(tmp_path, "ewc", seed, values={"FID": fid})
    for method, fid in (("naive", 9.0), ("joint", 4.0)):
        write_run(tmp_path, method, values={"FID": fid})
    collection = collect([tmp_path])
    section, styles = collection.sections[0], styles_of(collection.sections)
    (alt,) = (d.alt for d in figures.cost_drawings(section, styles) if "FID" in d.alt)
    assert "naive 9.0" in alt and "joint 4.0" in alt and "ewc" not in alt
    (alt,) = (d.alt for d in figures.curve_drawings(section, styles) if "FID" in d.alt)
    ranking = "joint 4.0 (1 seed), naive 9.0 (1 seed), ewc not finite (2 seeds)."
    assert alt.endswith(ranking)
