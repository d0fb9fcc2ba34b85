"""Runs one after another, or several at a time, of which none stops the others."""

import gc
import multiprocessing
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import INTERRUPTED, USER_ERRORS, one_line, quiet
from avalanche_gd.runs.run import run, run_name


def run_all(configs: Sequence[RunConfig], jobs: int) -> dict[Path, str]:
    """Run what is missing, so many at a time, each in a process of its own.

    A run that fails, or whose process is killed, is said at once and does not stop the
    others. The processes end with this one.

    :param configs: of the runs, in the order to begin them.
    :param jobs: how many at a time; of one, the runs are made in this process.
    :return: what went wrong, by the folder of the run.
    """
    if jobs == 1:
        failures = {config.folder: attempt(config) for config in configs}
    else:
        failures = _attempt_side_by_side(list(configs), jobs)
    return {folder: failure for folder, failure in failures.items() if failure}


def end_with_failures(failures: dict[Path, str]) -> None:
    """List what went wrong, and end with status 1 if anything did."""
    if failures:
        print(f"\n{len(failures)} failed:", file=sys.stderr)
        for folder, failure in failures.items():
            print(f"  {folder}: {failure}", file=sys.stderr)
        sys.exit(1)


def attempt(config: RunConfig) -> str | None:
    """Run, and say what went wrong in a line; None if nothing did.

    Of an error that nobody expected, there is a traceback too.
    """
    try:
        run(config)
        return None
    except Exception as error:
        if not isinstance(error, USER_ERRORS):
            traceback.print_exception(error)
        failure = one_line(error)
        print(f"{run_name(config)}: {failure}", file=sys.stderr, flush=True)
        return failure


def _attempt_side_by_side(waiting: list[RunConfig], jobs: int) -> dict[Path, str | None]:
    context: Any = _context()
    running: dict[Any, tuple[Any, RunConfig, Connection]] = {}
    failures: dict[Path, str | None] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            config = waiting.pop(0)
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_attempt_here, args=(config, sender), daemon=True
            )
            process.start()
            sender.close()
            running[process.sentinel] = process, config, receiver
        for sentinel in wait(list(running)):
            process, config, receiver = running.pop(sentinel)
            process.join()
            try:
                failures[config.folder] = receiver.recv()
            except EOFError:
                failure = f"its process was ended (status {process.exitcode})"
                print(f"{run_name(config)}: {failure}", file=sys.stderr, flush=True)
                failures[config.folder] = failure
    return failures


def _attempt_here(config: RunConfig, sender: Connection) -> None:
    """Attempt a run in this process, which ends with its parent or by SIGINT."""
    gc.freeze()  # what the parent left may have threads, which a copy does not have
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet()
    try:
        sender.send(attempt(config))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _context() -> Any:
    """How processes start: as copies of this one, where that is safe.

    A copy has imported everything, which else takes each process some seconds. It must
    not inherit a GPU that is in use, nor, with more than one thread, OpenMP's threads.
    """
    copies = sys.platform == "linux" and not torch.cuda.is_available()
    return multiprocessing.get_context("fork" if copies else "spawn")
