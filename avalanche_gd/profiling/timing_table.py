"""The measured times, as rows of a table."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from avalanche_gd.report.tables import aligned
from avalanche_gd.runs.results import csv_text


@dataclass(frozen=True)
class Measurement:
    """The times of a piece of work and, if it has any, of its passes alone.

    Each has a median and two quartiles, in milliseconds.
    """

    part: str
    """``step``, ``sampling``, ``evaluation``, or ``step by ...`` with what grows."""
    name: str
    """The method; the preset in ``step by model``; otherwise what is measured."""
    at: float
    """Where it was measured: the experience, the batch size, the thousands of weights."""
    ms: float
    ms_low: float
    ms_high: float
    passes_ms: float | None = None
    """The time of its own passes."""
    passes_low: float | None = None
    passes_high: float | None = None
    separate_ms: float | None = None
    """The time of a step's passes if plugins make their own, without looking ahead."""
    separate_low: float | None = None
    separate_high: float | None = None
    cost: float | None = None
    """The cost of its own passes in F, one forward pass over the batch."""
    images_per_second: float | None = None
    memory_mb: float | None = None
    """The highest memory use; of the device if it is a GPU, else of the process."""

    @property
    def ratio(self) -> float | None:
        """The time of the work, divided by that of its own passes."""
        return self.ms / self.passes_ms if self.passes_ms else None

    @property
    def gain(self) -> float | None:
        """The time of the work, divided by that of the separate passes."""
        return self.ms / self.separate_ms if self.separate_ms else None


def measured(
    part: str,
    name: str,
    at: float,
    *times: Sequence[float],
    images: int | None = None,
    cost: float | None = None,
    memory_mb: float | None = None,
) -> Measurement:
    """Make a row from times.

    :param times: in seconds, repeated: of the work, of its own passes and of the separate
        passes, if it has them.
    :param images: how many images the work is for.
    """
    quartiles: list[float | None] = [
        float(seconds) * 1000
        for repeated in times
        for seconds in np.quantile(repeated, (0.5, 0.25, 0.75))
    ]
    quartiles += [None] * (9 - len(quartiles))
    rate = None if images is None else images / float(np.median(times[0]))
    return Measurement(part, name, at, *quartiles, cost, rate, memory_mb)  # type: ignore


def as_csv(rows: Sequence[Measurement]) -> str:
    """The rows as CSV, with all fields, the ratio and the gain."""
    names = [*(field.name for field in fields(Measurement)), "ratio", "gain"]
    values = ([*astuple(row), row.ratio, row.gain] for row in rows)
    return csv_text(
        names, ([f"{v:.6g}" if isinstance(v, float) else v for v in own] for own in values)
    )


def as_table(rows: Sequence[Measurement]) -> str:
    """The rows as a table to read: medians, the quartiles of the work, and the rest."""
    names = [
        *("part", "name", "at", "ms", "ms_low", "ms_high", "passes_ms", "ratio"),
        *("separate_ms", "gain", "cost", "images_per_second", "memory_mb"),
    ]
    return aligned(
        [names, *([_cell(getattr(row, name)) for name in names] for row in rows)]
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{3 if value < 10 else 1}f}"
    return "" if value is None else str(value)
