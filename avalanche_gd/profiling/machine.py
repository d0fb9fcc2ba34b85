"""What the machine does in a matrix product, and in a denoiser."""

import statistics
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from avalanche_gd.models import DiffusionModel
from avalanche_gd.profiling.bare_passes import clock

_SIDE = 2048
_REPEATS = 5


def product_gflops(device: torch.device) -> float:
    """The rate of a float32 product of two square matrices of 2,048, in GFLOP/s."""
    a = torch.randn(_SIDE, _SIDE, device=device)
    return 2 * _SIDE**3 / _median(lambda: a @ a, device) / 1e9


def denoiser_gflops(model: DiffusionModel, batch_size: int) -> float:
    """The rate of a forward pass of the denoiser over a batch, in GFLOP/s."""
    x_t = torch.randn(batch_size, *model.sample_shape, device=model.device)
    timesteps = torch.zeros(batch_size, dtype=torch.long, device=model.device)

    def forward() -> None:
        model.execution(model.denoiser, x_t, timesteps)

    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model.denoiser(x_t, timesteps)
        return counter.get_total_flops() / _median(forward, model.device) / 1e9


def _median(work: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(1 + _REPEATS):
        began = clock(device)
        work()
        times.append(clock(device) - began)
    return statistics.median(times[1:])
