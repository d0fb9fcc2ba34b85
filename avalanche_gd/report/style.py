"""How a method is drawn, the same in all figures."""

from collections.abc import Iterable, Sequence
from typing import Any

from avalanche_gd.report.section import Section

# Okabe and Ito's palette for colour-blind readers, without yellow and black, which are hard
# to see on white and on black.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES = ("-", "--", ":", "-.")

Style = dict[str, Any]
"""A method's ``color``, marker and line, for matplotlib's ``plot``."""


def styles_of(sections: Sequence[Section]) -> dict[str, Style]:
    """A style for each label of a report."""
    return styles_for(label for section in sections for label in section.methods)


def styles_for(labels: Iterable[str]) -> dict[str, Style]:
    """A style for each label; for up to 28 labels all are different."""
    return {
        label: {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i % len(_MARKERS)],
            "linestyle": _LINES[i // len(_COLOURS) % len(_LINES)],
            "markeredgecolor": "white",
            "markeredgewidth": 0.8,
            "markersize": 8,
        }
        for i, label in enumerate(dict.fromkeys(labels))
    }
