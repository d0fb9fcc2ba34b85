"""A value with its confidence interval over seeds."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy.stats import t as student

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Half the width of the 95% confidence interval; None for one seed."""
    seeds: int
    """The number of seeds."""


def estimate(values: Sequence[float | None]) -> Estimate | None:
    """The mean, and its confidence interval by Student's t distribution.

    The interval is ``t(0.975, n - 1) s / sqrt(n)`` to either side, with ``s`` the standard
    deviation of the sample of ``n``. The mean is NaN, without an interval, if a value is
    not finite.

    :param values: one for each seed, None if it is not known; the result is None if no
        value is known.

    >>> mean, half_width, seeds = estimate([1.0, 2.0, 3.0])
    >>> print(f"{mean} ± {half_width:.3f} over {seeds}")
    2.0 ± 2.484 over 3
    """
    known = [value for value in values if value is not None]
    count = len(known)
    if count == 0:
        return None
    if not all(map(math.isfinite, known)):
        return Estimate(math.nan, None, count)
    mean = statistics.fmean(known)
    if count == 1:
        return Estimate(mean, None, count)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, count - 1))
    half_width = quantile * statistics.stdev(known, mean) / math.sqrt(count)
    return Estimate(mean, half_width, count)
