"""The global random states, from which training draws."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_NUMPY_SEEDS = 2**32


def default_generator(device: torch.device) -> torch.Generator:
    """torch's own random state on a device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


@contextmanager
def same_draws(*devices: torch.device) -> Iterator[None]:
    """Restore the random state at the end, so that the same numbers are drawn again.

    torch's on the CPU and on these devices, and those of Python and NumPy, from which
    transforms and modules of users may draw.
    """
    cuda = [device for device in devices if device.type == "cuda"]
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


@contextmanager
def seeded(seed: int, *devices: torch.device) -> Iterator[None]:
    """Draw from a seed in here, as in :func:`same_draws`; then restore the state.

    ``torch.manual_seed`` would also seed all other devices.
    """
    with same_draws(*devices):
        for device in (torch.device("cpu"), *devices):
            default_generator(device).manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % _NUMPY_SEEDS)
        yield
