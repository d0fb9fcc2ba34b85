"""The page: everything in one file, which loads nothing from a network."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from avalanche_gd.report.collect import Collection, shown
from avalanche_gd.report.figures import cost_drawings, curve_drawings
from avalanche_gd.report.images import image_drawing, strips
from avalanche_gd.report.matrix import matrices, matrix_drawing
from avalanche_gd.report.provenance import Provenance
from avalanche_gd.report.section import Section
from avalanche_gd.report.settings import of_method
from avalanche_gd.report.style import Style
from avalanche_gd.report.tables import caption_of, headings_of, lines_of
from avalanche_gd.runs.column import DASH
from avalanche_gd.runs.columns import COSTS

_SHOWN = 12  # characters of a commit or a digest


class SectionView:
    """The parts of the page for a section, drawn.

    :param section: a section of the report.
    :param styles: the styles of its labels.
    :raises ValueError: if a picture of a run is damaged.
    """

    def __init__(self, section: Section, styles: dict[str, Style]):
        self.section = section
        self.lines = lines_of(section)
        self.headings = headings_of(self.lines)
        self.caption = caption_of(section, self.lines)
        self.curves = curve_drawings(section, styles)
        self.costs = cost_drawings(section, styles)
        self.strips = strips(section)
        self.matrices = matrices(section)
        self.method_settings = _method_settings(section)
        self.versions = _versions(section)
        self.drawings = [*self.curves, *self.costs]
        """All figures, to be written as files."""
        if self.strips:
            self.drawings.append(image_drawing(section, self.strips))
        if self.matrices:
            self.drawings.append(matrix_drawing(section, self.matrices))


def render(
    collection: Collection,
    views: Sequence[SectionView],
    styles: dict[str, Style],
    out: Path,
) -> str:
    """Make the page's HTML.

    :param out: the folder of the page.
    """
    environment = Environment(
        loader=PackageLoader("avalanche_gd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        collection=collection,
        views=views,
        styles=styles,
        n_runs=len(collection.runs),
        shown=shown,
        provenance=partial(Provenance.of, length=_SHOWN),
        address=partial(address, out=out),
        costs=COSTS,
        dash=DASH,
    )


def address(path: Path, out: Path) -> str:
    """The relative URL of a file from a page; empty if the file is absent or not near.

    A file is near if it is below the folder that the page's folder is in. Other URLs would
    show paths of the machine, and be wrong after the two are copied.

    :param out: the folder of the page.
    """
    place = os.path.relpath(path.resolve(), out.resolve())
    if not path.exists() or place.startswith(os.path.join("..", "..")):
        return ""
    return quote(os.fsencode(place))


def _method_settings(section: Section) -> list[tuple[str, list[str]]]:
    """The settings of the methods, each with its values by method."""
    columns = [of_method(runs[0]) for runs in section.methods.values()]
    names = dict.fromkeys(name for column in columns for name in column)
    return [
        (name.removeprefix("method."), [str(column.get(name, DASH)) for column in columns])
        for name in names
    ]


def _versions(section: Section) -> list[tuple[str, list[str]]]:
    """The versions by package; if runs differ, several with their runs."""
    found: dict[str, dict[str, list[str]]] = {}
    lines = []
    for label, runs in section.methods.items():
        for run in runs:
            user = f"{label} seed {run.seed}"
            for time in run.times:
                for package, version in time["versions"].items():
                    users = found.setdefault(package, {}).setdefault(str(version), [])
                    users += [user] if user not in users else []
    for package, versions in found.items():
        texts = [f"{version} ({'; '.join(users)})" for version, users in versions.items()]
        lines.append((package, texts if len(texts) > 1 else list(versions)))
    return lines
