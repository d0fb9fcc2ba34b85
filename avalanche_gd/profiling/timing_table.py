"""What was measured, as rows of a table."""

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """The times of a piece of work and, where it has any, of its own passes alone."""

    part: str
    """``step``, ``sampling``, ``evaluation``, or what grows in ``step by ...``."""
    name: str
    """The method; the preset in ``step by model``; otherwise what is measured."""
    at: float
    """Where it was measured: the experience, the batch size, the thousands of weights."""
    ms: float
    """The median of its times, in milliseconds."""
    ms_low: float
    """Their lower quartile."""
    ms_high: float
    """Their upper quartile."""
    passes_ms: float | None = None
    passes_low: float | None = None
    passes_high: float | None = None
    cost: float | None = None
    """Of its passes in F, one forward pass over the batch."""
    images_per_second: float | None = None
    memory_mb: float | None = None
    """The most that was held; of the device where it is a GPU, else of the process."""

    @property
    def ratio(self) -> float | None:
        """The work's time over that of its passes."""
        return None if not self.passes_ms else self.ms / self.passes_ms


def measured(
    part: str,
    name: str,
    at: float,
    seconds: Sequence[float],
    passes: Sequence[float] = (),
    **more: Any,
) -> Measurement:
    """A row of times.

    :param seconds: of the work, repeated.
    :param passes: of its passes alone, in turns with it; empty if it has none.
    :param more: the other fields.
    """
    low, middle, high = _quartiles_ms(seconds)
    if passes:
        names = ("passes_low", "passes_ms", "passes_high")
        more |= dict(zip(names, _quartiles_ms(passes), strict=True))
    return Measurement(part, name, at, middle, low, high, **more)


def as_csv(rows: Sequence[Measurement]) -> str:
    """All fields, and the ratio."""
    text = io.StringIO()
    names = [field.name for field in fields(Measurement)]
    writer = csv.DictWriter(text, [*names, "ratio"], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = asdict(row) | {"ratio": row.ratio}
        writer.writerow({key: _rounded(value) for key, value in values.items()})
    return text.getvalue()


def as_table(rows: Sequence[Measurement]) -> str:
    """For reading, a block for each part."""
    blocks = []
    for part in dict.fromkeys(row.part for row in rows):
        lines = [_HEADER.format(part=part)]
        lines += [_line(row) for row in rows if row.part == part]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


_HEADER = (
    "{part:34}    at      ms      (quartiles)  passes   ratio      F  images/s  memory MB"
)


def _line(row: Measurement) -> str:
    spread = f"({row.ms_low:.1f} to {row.ms_high:.1f})"
    return (
        f"{row.name:34}{row.at:6g}{row.ms:8.1f} {spread:>16}"
        f"{_cell(row.passes_ms, 8, 1)}{_cell(row.ratio, 8, 3)}{_cell(row.cost, 7, 1)}"
        f"{_cell(row.images_per_second, 10, 0)}{_cell(row.memory_mb, 11, 0)}"
    ).rstrip()


def _cell(value: float | None, width: int, digits: int) -> str:
    return " " * width if value is None else f"{value:{width}.{digits}f}"


def _quartiles_ms(seconds: Sequence[float]) -> list[float]:
    if len(seconds) == 1:
        return [seconds[0] * 1000] * 3
    quartiles = statistics.quantiles(seconds, n=4, method="inclusive")
    return [quartile * 1000 for quartile in quartiles]


def _rounded(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
