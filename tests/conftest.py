"""Small models and streams that the tests share."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

warnings.filterwarnings("ignore", message="no QP solver")

from avalanche_gd import DiffusionModel, SplitDigits, ddim_scheduler  # noqa: E402

SHAPE = (1, 8, 8)


class TinyDenoiser(nn.Module):
    """A denoiser of one convolution that knows the timestep: fast, and not diffusers'."""

    def __init__(self, channels: int = 1):
        super().__init__()
        self.convolution = nn.Conv2d(channels + 1, channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(len(x), 1, *x.shape[2:])
        return self.convolution(torch.cat([x, time], dim=1))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AVALANCHE_GD_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_model() -> DiffusionModel:
    """A diffusion model for 8x8 images that costs next to nothing."""
    return DiffusionModel(TinyDenoiser(), ddim_scheduler(), SHAPE)


@pytest.fixture(scope="session")
def digits() -> object:
    """Five experiences of two digits each."""
    return SplitDigits(5)


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Random images in model space."""
    return torch.rand(count, *shape) * 2 - 1


def fake_strategy(model: nn.Module, n: int = 1, **attributes: object) -> SimpleNamespace:
    """Just enough of a strategy for one hook, in experience n."""
    clock = SimpleNamespace(train_exp_counter=n - 1)
    return SimpleNamespace(
        model=model, clock=clock, device=torch.device("cpu"), **attributes
    )


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of weights are the same to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A module in two processes, which end if it hangs."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*command, "--nproc_per_node", "2", "-m", *arguments],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=300)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends those that it has started
        process.communicate()
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def truncate(path: Path) -> None:
    """Cut a file to half its length."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
