"""Draw a figure as bytes, the same bytes each time."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from avalanche_gd.report.printable import printable

_REPRODUCIBLE: Any = {
    "svg.hashsalt": "avalanche-gd",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}


_LENGTH = 200  # characters of a label in a figure


@dataclass
class Drawing:
    """A figure in two formats."""

    name: str
    """The name of its file, without the suffix."""
    alt: str
    svg: bytes
    pdf: bytes

    @property
    def files(self) -> dict[str, bytes]:
        """The figure in both formats, by the names of files in a folder of results."""
        return {f"figures/{self.name}.pdf": self.pdf, f"figures/{self.name}.svg": self.svg}

    @property
    def uri(self) -> str:
        """The figure as a data URI."""
        return data_uri(self.svg, "image/svg+xml")


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """An empty figure, its size in inches, and its axes by row and column."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw(figure: Figure, name: str, alt: str) -> Drawing:
    """Draw the figure in both formats."""
    svg, pdf = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(_REPRODUCIBLE):
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return Drawing(name, alt, svg.getvalue(), pdf.getvalue())


def data_uri(content: bytes, kind: str) -> str:
    """A data URI of some content."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def plain(label: str) -> str:
    r"""A label of limited length that starts no mathematics and is in the legend.

    >>> print(plain("naive, cost=5$"))
    naive, cost=5\$
    >>> plain("_mine")  # matplotlib leaves labels that begin with "_" out
    ' _mine'
    """
    text = printable(label, length=_LENGTH).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
