"""Tests of which the ordinary pytest runs some."""

from collections.abc import Sequence
from typing import Any

import pytest


def sampled(names: str, values: Sequence[Any], *, sample: int) -> pytest.MarkDecorator:
    """Call a test with each of some values.

    :param names: of the test's arguments, as ``pytest.mark.parametrize`` takes them.
    :param sample: how many of them belong to the ordinary tests, spread evenly.
    """
    step = len(values) / sample
    places = {int(step * i) + i for i in range(sample)}  # of each remainder
    return pytest.mark.parametrize(
        names,
        [
            pytest.param(
                *(value if isinstance(value, tuple) else (value,)),
                marks=[pytest.mark.sample] if place in places else [],
            )
            for place, value in enumerate(values)
        ],
    )


def numbered(count: int, *, sample: int) -> pytest.MarkDecorator:
    """Call a test with each ``number`` below a count, which is also its seed."""
    return sampled("number", range(count), sample=sample)
