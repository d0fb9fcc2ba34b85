"""Make runs one after another, or several at a time; a failed one does not stop others."""

import gc
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from avalanche_gd.distributed.launch import say
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.errors import (
    INTERRUPTED,
    PIPE_CLOSED,
    USER_ERRORS,
    one_line,
    quiet,
)
from avalanche_gd.runs.progress import duration
from avalanche_gd.runs.results import says_complete
from avalanche_gd.runs.run import run, run_name


class Countdown:
    """Prints after each run how many are done, and about how long the rest takes.

    The estimate uses the average time of the runs that trained here, and ``jobs``. For a
    check, after which nothing is left to train, it prints nothing.

    :param configs: the settings of the runs.
    :param jobs: how many runs at a time.
    """

    def __init__(self, configs: Sequence[RunConfig], jobs: int = 1):
        self.total, self.done, self.jobs = len(configs), 0, jobs
        self._waiting = {config.folder for config in configs if not _is_complete(config)}
        self._began: dict[Path, float] = {}
        self._took: list[float] = []

    def begin(self, config: RunConfig) -> None:
        """Note that a run starts."""
        self._began[config.folder] = time.perf_counter()

    def end(self, config: RunConfig, failure: str | None) -> None:
        """Note that a run has ended, and print what is left."""
        now, folder = time.perf_counter(), config.folder
        took = now - self._began.pop(folder, now)  # if two are the same, only once
        self.done += 1
        if folder in self._waiting:
            self._waiting.remove(folder)
            self._took += [] if failure else [took]
        text = f"{self.done} of {self.total} runs done"
        if self._waiting and self._took:
            each = sum(self._took) / len(self._took)
            taken = sum(min(now - began, each) for began in self._began.values())
            seconds = len(self._waiting) * each - taken
            left = duration(seconds / min(self.jobs, len(self._waiting)))
            text += f", about {left} left"
        if not config.check:
            say(text)


def _is_complete(config: RunConfig) -> bool:
    """True if nothing is left to do, also if the run is damaged."""
    try:
        return says_complete(config.folder)
    except ValueError:
        return True


def run_all(configs: Sequence[RunConfig], jobs: int) -> dict[Path, str]:
    """Make the missing runs, ``jobs`` at a time, each in its own process.

    If a run fails, or its process is killed, a message is printed at once, and the others
    continue. The processes end with this one. A run that is given twice is made once.

    :param configs: the settings of the runs, in the order to start them.
    :param jobs: how many at a time; with one, the runs are made in this process.
    :return: error messages by the folder of the run.
    """
    configs = list({config.folder: config for config in configs}.values())
    countdown = Countdown(configs, jobs)
    failures: dict[Path, str | None] = {}
    if jobs == 1:
        for config in configs:
            countdown.begin(config)
            failures[config.folder] = attempt(config)
            countdown.end(config, failures[config.folder])
    else:
        failures = _attempt_side_by_side(configs, jobs, countdown)
    return {folder: failure for folder, failure in failures.items() if failure}


def end_with_failures(failures: dict[Path, str]) -> None:
    """Print the error messages, and exit with status 1 if there are any."""
    if failures:
        print(f"\n{len(failures)} failed:", file=sys.stderr)
        for folder, failure in failures.items():
            print(f"  {folder}: {failure}", file=sys.stderr)
        sys.exit(1)


def attempt(config: RunConfig) -> str | None:
    """Make a run, and return its error message; None if it worked.

    After an unexpected error there is a traceback too.
    """
    try:
        run(config)
        return None
    except BrokenPipeError:  # the other runs could not print either
        raise
    except Exception as error:
        if not isinstance(error, USER_ERRORS):
            traceback.print_exception(error)
        failure = one_line(error)
        print(f"{run_name(config)}: {failure}", file=sys.stderr, flush=True)
        return failure


def _attempt_side_by_side(
    waiting: list[RunConfig], jobs: int, countdown: Countdown
) -> dict[Path, str | None]:
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
            countdown.begin(config)
            process.start()
            sender.close()
            running[process.sentinel] = process, config, receiver
        for sentinel in wait(list(running)):
            process, config, receiver = running.pop(sentinel)
            process.join()
            try:
                failures[config.folder] = receiver.recv()
            except EOFError:
                if process.exitcode == PIPE_CLOSED:
                    raise BrokenPipeError from None
                failure = f"its process was ended (status {process.exitcode})"
                print(f"{run_name(config)}: {failure}", file=sys.stderr, flush=True)
                failures[config.folder] = failure
            countdown.end(config, failures[config.folder])
    return failures


def _attempt_here(config: RunConfig, sender: Connection) -> None:
    """Make a run in this process, which ends with its parent or by SIGINT."""
    gc.freeze()  # objects of the parent may have threads, which a copy does not have
    threading.Thread(target=_end_with_parent, daemon=True).start()
    quiet()
    try:
        sender.send(attempt(config))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    except BrokenPipeError:
        os._exit(PIPE_CLOSED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _context() -> Any:
    """How to start processes: as copies of this one, if that is safe.

    A copy has imported all modules already, which takes some seconds otherwise. It must
    not inherit a GPU that is in use, nor OpenMP's threads if there are more than one.
    """
    copies = sys.platform == "linux" and not torch.cuda.is_available()
    return multiprocessing.get_context("fork" if copies else "spawn")
