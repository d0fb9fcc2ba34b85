"""Two processes that torchrun starts."""

import multiprocessing
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tests.helpers.quick_oracles import quick_oracles
from tests.helpers.repository import ROOT

HANGS = 300  # seconds; no test takes as long


class Ended(NamedTuple):
    """What two processes said, and how torchrun reported the failure of one."""

    output: str
    errors: str
    failure: str = ""


def torchrun(*arguments: str) -> Ended:
    """Run a module by the command, as a user does.

    :param arguments: the module and its own.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    process = subprocess.Popen(
        [*command, "--nproc_per_node", "2", "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=HANGS)
    except subprocess.TimeoutExpired:
        process.terminate()  # it ends those that it has started
        process.communicate()
        raise
    return Ended(output, errors, errors if process.returncode else "")


def forked(folder: Path, *arguments: str) -> Ended:
    """Run a module by what the command calls, without an import for each process.

    The processes are forked from one that has imported what they need.

    :param folder: an empty one, for what they say.
    :param arguments: the module and its own.
    """
    multiprocessing.set_forkserver_preload(
        ["tests.helpers.shared_cases", "tests.helpers.shared_commands"]
    )
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="forkserver",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder), redirects=Std.ALL),
    )
    failures: list[ChildFailedError] = []

    def launch() -> None:
        try:
            with mock.patch("signal.signal"):  # torch 2.4 sets some, which a thread may not
                elastic_launch(config, run_module)(*arguments)
        except ChildFailedError as error:
            failures.append(error)

    # In a thread, so that it leaves the signals to pytest.
    thread = threading.Thread(target=launch, daemon=True)
    thread.start()
    thread.join(HANGS)
    if thread.is_alive():
        for process in multiprocessing.active_children():
            process.kill()
        raise TimeoutError(f"{arguments} hangs")
    output, errors = (
        "".join(path.read_text() for path in sorted(folder.rglob(f"std{name}.log")))
        for name in ("out", "err")
    )
    return Ended(output, errors, "".join(map(str, failures)))


def run_module(*arguments: Any) -> None:
    """Run a module as Python's ``-m`` does, with the oracles of the tests."""
    sys.argv = list(arguments)
    with quick_oracles():
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
