"""Fixtures of all tests.

They import when they are asked for. Where several processes test, the one that hands the
tests out imports this file too, and would keep the others waiting for torch.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but those of -m gpu: the others hold the bits of a CPU."""
    if config.option.markexpr == "gpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for fixed sums
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that all processes of a session share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVALANCHE_GD_CACHE", str(folder / "cache"))
        yield


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def steps_of_an_oracle() -> Iterator[int]:
    """As many as a user's oracle is trained in; those of the tests are trained in few."""
    from tests.helpers.quick_oracles import quick_oracles

    with quick_oracles() as steps:
        yield steps


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
def digits_oracle(digits: Any, steps_of_an_oracle: int) -> Any:
    """The oracle of the digits, trained as a user's."""
    from avalanche_gd import oracle_classifier
    from avalanche_gd.data import stream_tensors

    training = stream_tensors(digits.train_stream)
    return oracle_classifier(*training, steps=steps_of_an_oracle)


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``call(main, *arguments)`` in an empty folder gives status, output and errors."""
    monkeypatch.setattr(sys, "path", sys.path[:])  # main appends to it
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


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay figures out and do not draw them, which takes most of a report's time."""
    from matplotlib.figure import Figure

    def sketch(figure: Figure, file: Any, *, format: str = "png", **_: Any) -> None:
        if format != "pdf":  # which is laid out like the other
            figure.draw_without_rendering()
        if isinstance(file, Path):
            file.touch()

    monkeypatch.setattr(Figure, "savefig", sketch)
