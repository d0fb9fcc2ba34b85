"""The share of a batch of one process, if several processes train one model together.

All of them have the same random state. Each draws what a single process would draw for the
whole batch, and keeps its share. The shares are equally large, in the order of the ranks.
So together the processes see what one process would see.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

import torch
from avalanche.distributed import DistributedHelper
from torch import Tensor

_sharing: ContextVar[tuple[int, int]] = ContextVar("sharing", default=(0, 1))


@contextmanager
def sharing(rank: int, processes: int) -> Iterator[None]:
    """Share batches inside.

    :param rank: the rank of this process, from 0.
    :param processes: how many there are.
    """
    token = _sharing.set((rank, processes))
    try:
        yield
    finally:
        _sharing.reset(token)


def unshared() -> AbstractContextManager[None]:
    """Let every process work on the whole inside."""
    return sharing(0, 1)


def sharing_processes() -> int:
    """How many processes share a batch here; 1 if it is not shared."""
    return _sharing.get()[1]


def draw_share(count: int, draw: Callable[[int], Tensor]) -> Tensor:
    """This process's share of what all processes draw.

    :param count: how many samples are this process's.
    :param draw: draws the given number of samples, ``(N, ...)``.
    :return: ``(count, ...)``.
    """
    rank, processes = _sharing.get()
    return draw(processes * count)[rank * count : (rank + 1) * count]


def own_share(whole: Tensor) -> Tensor:
    """This process's share of a batch that every process has.

    :raises ValueError: if it cannot be shared.
    """
    return draw_share(share_of(len(whole)), lambda count: whole)


def share_of(count: int) -> int:
    """How many of ``count`` samples are this process's.

    :raises ValueError: if they cannot be shared.
    """
    check_shares("a batch", count, sharing_processes())
    return count // sharing_processes()


def gathered(share: Tensor) -> Tensor:
    """The whole batch from the shares; all processes must call this."""
    if sharing_processes() == 1:
        return share
    return torch.cat(DistributedHelper.gather_all(share.contiguous(), same_shape=True))


def check_shares(name: str, count: int, processes: int, *, each: int = 1) -> None:
    """Raise ValueError unless processes can share ``count`` samples.

    :param name: the name of the count, as the user knows it.
    :param each: each share must be a multiple of this.
    """
    if count % (processes * each):
        raise ValueError(
            f"{name} must be a multiple of {processes * each} to be shared by "
            f"{processes} processes, got {count}"
        )
