"""Checks of arguments: an error is one line that says what is wrong and what is allowed."""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

HIGHEST_SEED = 2**64 - 1
"""torch's limit."""

_HOLDS: dict[str, Callable[[float], bool]] = {
    "0 or more": lambda value: value >= 0,
    "above 0": lambda value: value > 0,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "in [0, 1]": lambda value: 0 <= value <= 1,
}


def check_full_precision(name: str, parameters: Iterable[Any]) -> None:
    """Raise ValueError for trained weights of 16 bits, whose sums round to nothing.

    :param name: of what computes averages or sums of them, as the user knows it.
    :param parameters: tensors; those that are frozen do not count.
    """
    for parameter in parameters:
        is_short = parameter.is_floating_point() and parameter.element_size() < 4
        if is_short and parameter.requires_grad:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ValueError(
                f"{name} cannot compute with weights in {kind}; keep them in float32, and "
                'have passes in bfloat16 by Execution("bfloat16")'
            )


def check_integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Return the value as an ``int``; raise ValueError if it is not allowed.

    :param name: the name of the argument, as the user knows it.
    :param value: True and False do not count as integers.
    :param low: the lowest value that is allowed.
    :param high: the highest value that is allowed; None for no limit.
    :raises ValueError: unless the value is an integer in that range.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        allowed = f"of {low} or more" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} must be an integer {allowed}, got {value!r}")
    return int(value)


def check_number(name: str, value: Any, allowed: str) -> float:
    """Return the value as a ``float``; raise ValueError if it is not allowed.

    :param name: the name of the argument, as the user knows it.
    :param value: True, False, NaN and infinity do not count as numbers.
    :param allowed: ``"0 or more"``, ``"above 0"``, ``"in [0, 1)"`` or ``"in [0, 1]"``.
    :raises ValueError: unless the value is a finite number in that range.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not _is_finite(value):
        raise ValueError(f"{name} must be {allowed}, a finite number, got {value!r}")
    if not _HOLDS[allowed](float(value)):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return float(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer above all float
        return False


def check_choice(what: str, value: Any, allowed: Iterable[str]) -> str:
    """Return the value; raise ValueError if it is not one of those that are allowed.

    :param what: what the value is the name of.
    """
    known = list(allowed)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"no {what} {value!r}; choose from {', '.join(known)}")
    return value


def check_sample_shape(sample_shape: Any) -> tuple[int, int, int]:
    """Return the shape of an image as a tuple; raise ValueError if it is not allowed.

    :raises ValueError: unless it is ``(C, H, W)``, three integers of 1 or more.
    """
    try:
        if isinstance(sample_shape, Sequence) and len(sample_shape) == 3:
            channels, height, width = (check_integer("", size) for size in sample_shape)
            return channels, height, width
    except ValueError:
        pass
    raise ValueError(
        f"sample_shape must be (C, H, W), three integers of 1 or more, got {sample_shape!r}"
    )
