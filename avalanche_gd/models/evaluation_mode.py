"""Modules in evaluation mode for the time of a computation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def module_of(function: Any) -> nn.Module | None:
    """The module that a function is, or that it is a method of; None without one."""
    owner = getattr(function, "__self__", function)
    return owner if isinstance(owner, nn.Module) else None


@contextmanager
def in_evaluation_mode(function: Any) -> Iterator[None]:
    """Have a function's module in evaluation mode in here, if it has one.

    After that its parts are in the modes that they were in: it may be in training.
    """
    module = module_of(function)
    parts = [] if module is None else [part for part in module.modules() if part.training]
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for part in parts:
            part.training = True
