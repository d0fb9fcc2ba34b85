"""The figures of a report."""

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
