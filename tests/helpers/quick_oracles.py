"""Oracles that cost little, for tests that need one and do not ask how good it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from avalanche_gd import oracle_classifier

QUICK = 50


@contextmanager
def quick_oracles() -> Iterator[int]:
    """Have oracles trained in few steps in here; gives how many they take elsewhere.

    There is an oracle for each order of the classes, so that tests need many.
    """
    defaults = oracle_classifier.__kwdefaults__
    steps = defaults["steps"]
    with mock.patch.dict(defaults, steps=QUICK):
        yield steps
