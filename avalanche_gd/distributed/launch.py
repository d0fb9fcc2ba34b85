"""One run in several processes, as torchrun starts them.

All of them do the same, on their shares of each batch. Only the main one speaks, writes
files and holds the lock.
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

_GRACE = 5.0  # seconds until torchrun has surely ended the others after an error


def process_count() -> int:
    """How many processes share this run."""
    return int(os.environ["WORLD_SIZE"]) if _joins_later() else DistributedHelper.world_size


def is_main() -> bool:
    """Whether this is the process that speaks for all."""
    if _joins_later():
        return os.environ["RANK"] == "0"
    return DistributedHelper.is_main_process


def local_rank() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if process_count() > 1 else 0


def join_processes(device: torch.device) -> None:
    """Meet the other processes, if there are any.

    :param device: where this one trains.
    """
    if process_count() == 1 or DistributedHelper.is_distributed:
        return
    use_cuda = device.type == "cuda"
    # Any seed: a run seeds each of its stages.
    DistributedHelper.init_distributed(0, "nccl" if use_cuda else "gloo", use_cuda)
    if not is_main():
        warnings.simplefilter("ignore")


def leave_processes() -> None:
    """Part from the other processes after all is done."""
    if DistributedHelper.is_distributed:
        DistributedHelper.barrier()  # or one breaks the connection of the others
        torch.distributed.destroy_process_group()


def say(text: str) -> None:
    """Print, in the main process."""
    if is_main():
        print(f"{text}\n", end="", flush=True)  # in one piece, beside other processes


def on_main(function: Callable[[], T]) -> T:
    """What a function returns in the main process, for all of them.

    :raises ValueError: in all of them, if it does in the main one.
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
    """Let the main process say what is wrong, before this one does.

    Most errors end all processes, and torchrun ends the others as soon as one has ended.
    """
    if not is_main():
        time.sleep(_GRACE)


@contextmanager
def ending_all() -> Iterator[None]:
    """End this process at an error that nobody expected, and so, by torchrun, the others.

    Hydra would go on with the next run of a sweep, and the others would wait forever.
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
    """Whether torchrun has started this process, and it has not met the others yet."""
    started = torch.distributed.is_torchelastic_launched()
    return started and not DistributedHelper.is_distributed
