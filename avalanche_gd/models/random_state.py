"""torch's own random state, from which training draws."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def default_generator(device: torch.device) -> torch.Generator:
    """torch's own random state on a device."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    return torch.default_generator


def same_draws(*devices: torch.device) -> AbstractContextManager[None]:
    """Restore the random state at the end, so that the same numbers are drawn again.

    That of the CPU, and of these devices.
    """
    cuda = [device for device in devices if device.type == "cuda"]
    return torch.random.fork_rng(devices=cuda)


@contextmanager
def seeded(seed: int, *devices: torch.device) -> Iterator[None]:
    """Draw from a seed in here, on the CPU and on these devices; then restore the state.

    ``torch.manual_seed`` would also seed all other devices.
    """
    with same_draws(*devices):
        for device in (torch.device("cpu"), *devices):
            default_generator(device).manual_seed(seed)
        yield
