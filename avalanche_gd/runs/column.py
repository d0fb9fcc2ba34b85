"""How tables and figures show a metric or a cost."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DASH = "\N{EN DASH}"
"""Shown instead of a value that was not measured."""

_ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}


@dataclass(frozen=True)
class Column:
    """A metric or a cost: where it is read, and how it is shown."""

    name: str
    """Its name in the CSV files."""
    word: str
    """Its name in tables."""
    digits: int
    """Digits after the point."""
    better: str
    """Which values are better: ``lower``, ``higher``, or neither, which is empty."""
    key: str
    """A metric's name in ``metrics.csv``; a cost's name in ``run.json``, with dots."""
    title: str = ""
    """Its title in figures; without one, it is in no figure."""
    scale: str = "linear"
    """``linear``; ``log``, if values are far apart; or ``share``, from 0 to 1."""
    is_quality: bool = False
    """True if figures show the metric against costs."""
    unit: str = ""
    """The unit of a cost that figures show metrics against."""
    left_out_of: tuple[str, ...] = ()
    """Narrow tables without it: ``paper`` (and the README), ``terminal``."""
    lowest: float = -math.inf
    """The lowest possible value of the metric."""
    highest: float = math.inf
    """The highest possible value of the metric."""
    measure: Callable[..., Any] | None = None
    """Makes the generator's plugin metric from ``sampling``; once if it gives two."""
    in_features: bool = False
    """True if it depends on ``features``, which ``measure`` then takes too."""
    is_labelled: bool = False
    """True if it depends on what labels generated images, ``measure``'s ``classifier``."""
    asked_as: str = ""
    """Its name in ``evaluation.measures``; empty if it is always measured."""
    of_some_methods: bool = False
    """True if runs of some methods do not have it."""
    of_training: bool = False
    """True if it compares a model with what it was earlier, which a saved one forgot."""
    of_several: bool = False
    """True if it compares experiences: a run that trained on one has nothing to compare."""
    of_generator: bool = False
    """True for a cost without the solver's, which figures show no solver against."""

    @property
    def heading(self) -> str:
        """Its name at the top of a table, with an arrow towards the better values."""
        return self.word + _ARROWS[self.better]

    @property
    def label(self) -> str:
        """Its name in a figure: the title, and which values are better."""
        return f"{self.title} ({self.better} is better)" if self.better else self.title

    @property
    def possible(self) -> str:
        """The metric's range in words."""
        if math.isfinite(self.highest):
            return f"from {self.lowest:g} to {self.highest:g}"
        return f"{self.lowest:g} or more"

    def is_possible(self, value: float) -> bool:
        """True if the metric can have this value, or if the value is NaN.

        The value is rounded as it is shown, as single precision has rounding errors.

        >>> fid = Column("FID", "FID", 1, "lower", "FID_Stream", lowest=0)
        >>> fid.is_possible(-1e-5), fid.is_possible(-1)
        (True, False)
        """
        shown = round(value, self.digits) if math.isfinite(value) else value
        return math.isnan(value) or self.lowest <= shown <= self.highest

    def measures(self, key: str) -> bool:
        """True if a line of ``metrics.csv`` is this metric, for any experiences.

        >>> fid = Column("FID", "FID", 1, "lower", "FID_Stream/test_stream")
        >>> fid.measures("FID_Exp/test_stream/Exp001")
        True
        """
        of_stream = re.sub(r"_(Exp|Final|Mean)/", "_Stream/", key, count=1)
        return f"{of_stream}/".startswith(f"{self.key}/")

    def text(self, value: float | None) -> str:
        """A value as it is shown.

        >>> fid = Column("FID", "FID", 1, "lower", "FID_Stream")
        >>> fid.text(1234.56), fid.text(-0.01)
        ('1234.6', '0.0')
        """
        if value is None:
            return DASH
        if not math.isfinite(value):
            return "not finite"
        text = f"{value:.{self.digits}f}"
        is_zero = not text.strip("-0.")
        return text.lstrip("-") if is_zero else text
