"""The speed of the machine, in a matrix product and in a denoiser."""

from collections.abc import Callable

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from avalanche_gd.models import DiffusionModel
from avalanche_gd.profiling.bare_passes import clock

_SIDE = 2048


def product_gflops(device: torch.device) -> float:
    """The rate of a float32 product of two matrices of 2,048 x 2,048, in GFLOP/s."""
    a = torch.randn(_SIDE, _SIDE, device=device)
    return 2 * _SIDE**3 / _seconds(lambda: a @ a, device) / 1e9


def denoiser_gflops(model: DiffusionModel, batch_size: int) -> float:
    """The rate of a forward pass of the denoiser over a batch, in GFLOP/s."""
    x_t = torch.randn(batch_size, *model.sample_shape, device=model.device)
    timesteps = torch.zeros(batch_size, dtype=torch.long, device=model.device)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            model.denoiser(x_t, timesteps)
        seconds = _seconds(
            lambda: model.execution(model.denoiser, x_t, timesteps), model.device
        )
    return counter.get_total_flops() / seconds / 1e9


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    timer = Timer(
        "work()",
        timer=lambda: clock(device),
        globals={"work": work},
        num_threads=torch.get_num_threads(),
    )
    return timer.blocked_autorange(min_run_time=1.0).median
