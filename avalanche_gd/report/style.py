"""How a method is drawn: the same in all figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avalanche_gd.report.collect import Section

# Okabe and Ito's palette for colour-blind readers, without its yellow and black, which
# do not show on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Style:
    """A method's colour, marker and line."""

    colour: str
    marker: str
    line: str

    @property
    def of_line(self) -> dict[str, Any]:
        """As matplotlib's ``plot`` takes it."""
        return {"linestyle": self.line, **self.of_marker}

    @property
    def of_marker(self) -> dict[str, Any]:
        """The same without the line."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markeredgecolor": "white",
            "markeredgewidth": 0.8,
            "markersize": 8,
        }


def styles_of(sections: Sequence[Section]) -> dict[str, Style]:
    """A style for each label of a report; one that no other has, for up to 28."""
    labels = dict.fromkeys(label for section in sections for label in section.methods)
    colours = len(_COLOURS)
    return {
        label: Style(
            _COLOURS[i % colours],
            _MARKERS[i % len(_MARKERS)],
            _LINES[i // colours % len(_LINES)],
        )
        for i, label in enumerate(labels)
    }
