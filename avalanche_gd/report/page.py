"""The page: everything in one file, which asks for nothing from a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from avalanche_gd.report.collect import Collection, Section, shown
from avalanche_gd.report.drawing import Drawing
from avalanche_gd.report.figures import cost_drawings, curve_drawings
from avalanche_gd.report.images import Strip, image_drawing, strips
from avalanche_gd.report.matrix import Matrix, matrices, matrix_drawing
from avalanche_gd.report.settings import flatten, of_method
from avalanche_gd.report.style import Style, styles_of
from avalanche_gd.report.tables import COLUMNS, DASH, Line, lines_of
from avalanche_gd.runs.results import RunResult


@dataclass
class SectionView:
    """What the page shows of a section."""

    section: Section
    lines: list[Line]
    curves: list[Drawing]
    costs: list[Drawing]
    strips: list[Strip]
    matrices: list[Matrix]

    @property
    def title(self) -> str:
        """The benchmark, and what tells it from its other sections."""
        extra = self.section.difference
        return f"{self.section.benchmark}: {extra}" if extra else self.section.benchmark

    @property
    def method_settings(self) -> list[tuple[str, list[str]]]:
        """Each setting of the methods, with its value for each."""
        columns = [
            of_method(flatten(runs[0].config)) for runs in self.section.methods.values()
        ]
        names = dict.fromkeys(name for column in columns for name in column)
        return [
            (name.removeprefix("method."), [_text(column, name) for column in columns])
            for name in names
        ]

    @property
    def versions(self) -> list[tuple[str, list[str]]]:
        """Of each package: one, or where runs differ several with their runs."""
        return versions_of(self.section)

    def drawings(self) -> list[Drawing]:
        """All figures, for files."""
        extra = []
        if self.strips:
            extra.append(image_drawing(self.section, self.strips))
        if self.matrices:
            extra.append(matrix_drawing(self.section, self.matrices))
        return [*self.curves, *self.costs, *extra]


def view(section: Section, styles: dict[str, Style]) -> SectionView:
    """Draw what the page shows of a section.

    :raises ValueError: if a picture of a run is cut short.
    """
    return SectionView(
        section=section,
        lines=lines_of(section),
        curves=curve_drawings(section, styles),
        costs=cost_drawings(section, styles),
        strips=strips(section),
        matrices=matrices(section),
    )


def render(collection: Collection, views: Sequence[SectionView]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("avalanche_gd.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        shown=shown, breakable=_breakable, columns=COLUMNS, dash=DASH, cost=_cost
    )
    return environment.get_template("page.html").render(
        collection=collection,
        views=views,
        styles=styles_of(collection.sections),
        split=_split_benchmarks(views),
        n_runs=sum(len(section.runs) for section in collection.sections),
    )


def versions_of(section: Section) -> list[tuple[str, list[str]]]:
    """The versions that a section's runs were made with, by package."""
    found: dict[str, dict[str, list[str]]] = {}
    for label, runs in section.methods.items():
        for run in runs:
            versions = run.info.get("versions") or {}
            for package, version in versions.items():
                users = found.setdefault(package, {}).setdefault(str(version), [])
                users.append(f"{label} seed {run.seed}")
    return [
        (
            package,
            list(versions)
            if len(versions) == 1
            else [f"{version} ({'; '.join(users)})" for version, users in versions.items()],
        )
        for package, versions in found.items()
    ]


def _split_benchmarks(views: Sequence[SectionView]) -> list[tuple[str, str]]:
    """Benchmarks with several sections, and the settings that differ."""
    return [
        (view.section.benchmark, ", ".join(view.section.differs))
        for view in views
        if view.section.number == 2
    ]


def _breakable(label: str) -> Markup:
    """A label that a narrow column may break after an underscore."""
    return Markup("_<wbr>").join(label.split("_"))


def _text(settings: dict[str, Any], name: str) -> str:
    return str(settings[name]) if name in settings else DASH


def _cost(run: RunResult, name: str) -> str:
    value = run.final(name)
    return DASH if value is None else f"{value:,.0f}"
