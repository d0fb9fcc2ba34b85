"""Processes that tests begin and end: quick ones, as they have imported everything."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANGS = 300  # seconds; no process of a test takes as long


class Begun:
    """A function in a process of its own, the first of a session.

    :param function: called without arguments.
    :param folder: for what it says; made, and where it works.
    """

    def __init__(self, function: Callable[[], object], folder: Path):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        context: Any = multiprocessing.get_context("fork")
        self.process = context.Process(target=_alone, args=(function, folder))
        self.process.start()

    @property
    def pid(self) -> int:
        """Of the process, and of its session and its group."""
        return self.process.pid

    @property
    def output(self) -> str:
        """What it has said so far."""
        return (self.folder / "output").read_text()

    @property
    def errors(self) -> str:
        """The same on the standard error."""
        return (self.folder / "errors").read_text()

    def runs_for(self, seconds: float) -> bool:
        """True if it is still there after so long."""
        self.process.join(seconds)
        return self.process.is_alive()

    def ended(self) -> int:
        """Its status: below 0 if a signal has ended it."""
        if self.runs_for(HANGS):
            self.process.kill()
            raise TimeoutError(f"it hangs; {self.output} {self.errors}")
        return self.process.exitcode


def _alone(function: Callable[[], object], folder: Path) -> None:
    gc.freeze()  # what earlier tests left may have threads, which a copy does not have
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name, number in (("output", 1), ("errors", 2)):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
    sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
    # As outside of pytest, which keeps them.
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", UserWarning)
    os.chdir(folder)
    function()


def _show_warning(message: Any, category: Any, filename: Any, line: Any, *_: Any) -> None:
    print(warnings.formatwarning(message, category, filename, line), file=sys.stderr)


def command(main: Callable[[], object], *arguments: str) -> Callable[[], None]:
    """A function that calls a command with arguments, for a process of its own."""

    def call() -> None:
        sys.argv = ["avalanche-gd", *arguments]
        main()

    return call


def processes_of(session: int) -> list[str]:
    """What still runs of a session."""
    listed = subprocess.run(
        ["ps", "-s", str(session), "-o", "pid="], capture_output=True, text=True
    )
    return listed.stdout.split()


def wait_until(reached: Callable[[], object]) -> None:
    """Wait for what comes after a while, however long that is on a busy machine."""
    for _ in range(600):
        if reached():
            return
        time.sleep(0.1)
    raise AssertionError("it was never reached")
