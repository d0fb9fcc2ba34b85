"""Fixtures of all tests.

They import when they are asked for. Where several processes test, the one that hands the
tests out imports this file too, and would keep the others waiting for torch.
"""

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that all processes of a session share; what one trains, others wait for."""
    from avalanche_gd.models import oracle
    from avalanche_gd.storage import cached

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent

    def in_turn(*arguments: Any) -> Any:
        with open(folder / "cache.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return cached(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_GD_CACHE", str(folder / "cache"))
        patch.setattr(oracle, "cached", in_turn)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture
def tiny_model() -> Any:
    """A diffusion model for 8x8 images that costs next to nothing."""
    from tests.helpers.small_models import tiny

    return tiny()


@pytest.fixture(scope="session")
def digits() -> Any:
    """Five experiences of two digits each."""
    from avalanche_gd import SplitDigits

    return SplitDigits(5)


@pytest.fixture(scope="session")
def digits_oracle(digits: Any) -> Any:
    """The oracle of the digits, which other processes find in the cache from now on."""
    from avalanche_gd import oracle_classifier
    from avalanche_gd.data import stream_tensors

    return oracle_classifier(*stream_tensors(digits.train_stream))


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``call(main, *arguments)`` in an empty folder gives status, output and errors."""
    monkeypatch.chdir(tmp_path)
    for name in ("HYDRA_FULL_ERROR", "AVALANCHE_GD_ONE_LINE"):
        monkeypatch.setenv(name, "0")  # so that it is restored, whatever main sets
        monkeypatch.delenv(name)

    def call(main: Callable[[], object], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["avalanche-gd", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        return status, *capfd.readouterr()

    return call
