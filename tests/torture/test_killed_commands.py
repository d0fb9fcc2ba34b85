"""A suite and a sweep that are killed leave no process, and go on to the same files."""

import os
import runpy
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from avalanche_gd.runs.run_command import main
from tests.helpers.processes import Begun, command, processes_of, wait_until
from tests.helpers.repository import ROOT
from tests.helpers.small_runs import SMALL, result_files
from tests.torture.numbered import numbered

pytestmark = [pytest.mark.torture, pytest.mark.usefixtures("sketched")]

SUITE = str(ROOT / "benchmarks" / "split_digits.py")
RUNS = (*SMALL, "benchmark.n_experiences=2", "evaluation.images=16")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
COMMANDS: dict[str, Callable[[], None]] = {
    "suite": command(
        partial(runpy.run_path, SUITE, run_name="__main__"),
        *("--jobs", "2", "--methods", "naive,generative_replay,joint", *RUNS),
    ),
    "sweep": command(main, "-m", "method=naive,generative_replay", *RUNS),
}
"""Each writes into ``runs`` where it is called."""


class Whole(NamedTuple):
    """A command that was never killed."""

    files: dict[str, bytes]
    seconds: float


def files_of(folder: Path) -> dict[str, bytes]:
    """Those of a command, without the content of those that tell times."""
    files = result_files(folder / "runs")
    told = ("multirun.yaml", "report.html", "runs.csv", "table")
    return {
        name: b"" if Path(name).name.startswith(told) else content
        for name, content in files.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A command that was never killed, called once."""
    made: dict[str, Whole] = {}

    def of(name: str) -> Whole:
        if name not in made:
            started = time.monotonic()
            begun = Begun(COMMANDS[name], tmp_path_factory.mktemp(name))
            assert begun.ended() == 0, begun.errors
            seconds = time.monotonic() - started
            made[name] = Whole(files_of(begun.folder), seconds)
        return made[name]

    return of


@numbered(22, sample=1)
def test_a_command_that_is_killed_leaves_no_process_and_goes_on(whole, tmp_path, number):
    name = list(COMMANDS)[number // 11]
    sent = SIGNALS[number % len(SIGNALS)]
    random = Random(number)
    begun = Begun(COMMANDS[name], tmp_path)
    begun.runs_for(random.uniform(0.1, whole(name).seconds))
    if begun.process.is_alive():
        # A terminal sends to the whole group.
        random.choice([os.kill, os.killpg])(begun.pid, sent)
    status = begun.ended()
    wait_until(lambda: not processes_of(begun.pid))
    assert status in (130 if sent is signal.SIGINT else -sent, 0)
    assert "Traceback" not in begun.errors
    again = Begun(COMMANDS[name], tmp_path)
    assert again.ended() == 0, again.errors
    assert not processes_of(again.pid)
    assert files_of(tmp_path) == whole(name).files
