"""One run in several processes, as torchrun starts them.

All of them do the same, on their shares of each batch. Only the main one prints, writes
files and has the lock.
"""

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from avalanche.distributed import DistributedHelper

T = TypeVar("T")

_GRACE = 5.0  # seconds in which torchrun ends the other processes after an error


def process_count() -> int:
    """How many processes share this run."""
    return int(os.environ["WORLD_SIZE"]) if _joins_later() else DistributedHelper.world_size


def is_main() -> bool:
    """Whether this is the main process, which prints for all."""
    if _joins_later():
        return os.environ["RANK"] == "0"
    return DistributedHelper.is_main_process


def local_rank() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if process_count() > 1 else 0


def join_processes(device: torch.device) -> None:
    """Connect to the other processes, if there are any.

    :param device: where this process trains.
    """
    if process_count() == 1 or DistributedHelper.is_distributed:
        return
    use_cuda = device.type == "cuda"
    # Any seed will do: a run seeds each of its stages.
    DistributedHelper.init_distributed(0, "nccl" if use_cuda else "gloo", use_cuda)
    if not is_main():
        warnings.simplefilter("ignore")


def leave_processes() -> None:
    """Disconnect from the other processes at the end."""
    if DistributedHelper.is_distributed:
        DistributedHelper.barrier()  # else one breaks the connection of the others
        torch.distributed.destroy_process_group()


def say(text: str) -> None:
    """Print, in the main process."""
    if is_main():
        print(f"{text}\n", end="", flush=True)  # one write, as other processes print too


def on_main(function: Callable[[], T]) -> T:
    """Call a function in the main process, and return its result in all of them.

    :raises ValueError: in all processes, if the function raises it in the main one.
    """
    outcome: tuple[Any, ValueError | None] = None, None
    if is_main():
        try:
            outcome = function(), None
        except ValueError as error:
            outcome = None, error
    result, refusal = DistributedHelper.broadcast_object(outcome)
    if refusal is not None:
        raise refusal
    return result


def give_way() -> None:
    """Wait until the main process has printed an error, before this one does.

    Most errors end all processes, and torchrun ends the others as soon as one has ended.
    """
    if not is_main():
        time.sleep(_GRACE)


@contextmanager
def ending_all() -> Iterator[None]:
    """End this process on an unexpected error, so that torchrun ends the others too.

    Hydra would continue with the next run of a sweep, and the others would wait forever.
    """
    try:
        yield
    except Exception as error:
        if process_count() == 1:
            raise
        give_way()
        traceback.print_exception(error)
        sys.exit(1)


def _joins_later() -> bool:
    """Whether torchrun has started this process, but it is not connected yet."""
    started = torch.distributed.is_torchelastic_launched()
    return started and not DistributedHelper.is_distributed
