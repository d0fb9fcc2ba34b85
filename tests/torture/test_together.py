"""Processes that meet: on one folder, in one run, and with a user who ends them."""

import os
import runpy
import signal
from functools import partial
from pathlib import Path
from random import Random

import pytest
from avalanche.core import SupervisedPlugin

from avalanche_gd.report import report_command
from avalanche_gd.runs import suite, sweep
from avalanche_gd.runs.run_command import main
from tests.helpers.processes import Begun, command, wait_until
from tests.helpers.repository import ROOT
from tests.helpers.small_runs import SMALL, metrics, result_files, small_config
from tests.helpers.torchrun import forked
from tests.torture.numbered import numbered, sampled

pytestmark = pytest.mark.torture

QUICK = ("method=naive", "evaluation.images=16", "benchmark.n_experiences=2")


def run_in(out: Path, *arguments: str):
    return command(main, *SMALL, *QUICK, f"out={out}", *arguments)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The files of a run that met no other."""
    out = tmp_path_factory.mktemp("alone")
    assert Begun(run_in(out), out).ended() == 0
    return result_files(small_config(out, *QUICK).folder)


@numbered(10, sample=1)
def test_of_two_at_once_one_works_and_the_other_is_refused(tmp_path, alone, number):
    config = small_config(tmp_path / "runs", *QUICK)
    first = Begun(run_in(tmp_path / "runs"), tmp_path / "first")
    wait_until(lambda: (config.folder / "run.json").exists())
    first.runs_for(Random(number).uniform(0, 0.5))
    second = Begun(run_in(tmp_path / "runs"), tmp_path / "second")
    if second.ended():
        (line,) = second.errors.splitlines()
        assert line == (
            f"avalanche-gd: {config.folder} is in use by another process; wait for it"
        )
    else:
        # The first ended before, or while the second looked for what is missing.
        assert "complete: " in second.output or "experience 2/2" in second.output
    assert first.ended() == 0, first.errors
    assert result_files(config.folder) == alone


@numbered(10, sample=1)
def test_two_that_begin_together_leave_one_whole_run(tmp_path, number):
    config = small_config(tmp_path / "runs", *QUICK, f"seed={number}")
    begun = [
        Begun(run_in(tmp_path / "runs", f"seed={number}"), tmp_path / name)
        for name in ("first", "second")
    ]
    assert sorted(one.ended() for one in begun) in ([0, 2], [0, 0])
    assert "Traceback" not in "".join(one.errors for one in begun)
    again = Begun(run_in(tmp_path / "runs", f"seed={number}"), tmp_path / "again")
    assert again.ended() == 0 and "complete: " in again.output
    assert not [path for path in config.folder.rglob(".*") if path.name != ".lock"]


class KilledOnce(SupervisedPlugin, supports_distributed=True):
    """Has one of the processes killed, the first time that it gets to a step.

    :param rank: which.
    :param step: of the whole run, from 0.
    :param done: a file that is made when it has happened.
    """

    def __init__(self, rank: int, step: int, done: str):
        super().__init__()
        self.rank, self.step, self.done = rank, step, Path(done)

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass

    def before_backward(self, strategy, **kwargs):
        is_there = strategy.clock.train_iterations == self.step
        if int(os.environ["RANK"]) == self.rank and is_there and not self.done.exists():
            self.done.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def torchrun(folder: Path, rank: int, step: int):
    """Two processes of a run, of which one is killed unless that is done already."""
    own = f"rank: {rank}, step: {step}, done: {folder / 'done'}"
    plugin = f"method.plugins=[{{_target_: {__name__}.KilledOnce, {own}}}]"
    words = (*SMALL, *QUICK, plugin, f"out={folder}")
    return forked(folder / f"log-{len(list(folder.iterdir()))}", "avalanche_gd", *words)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The metrics of a run of two processes that were never killed."""
    folder = tmp_path_factory.mktemp("shared")
    assert not torchrun(folder, 0, -1).failure
    return metrics(next(folder.rglob("metrics.csv")).parent)


@numbered(8, sample=1)
def test_a_process_of_a_run_that_is_killed_ends_the_others(tmp_path, shared, number):
    """And the next call goes on to the numbers of a run that was never killed."""
    step, rank = divmod(number, 2)  # of four steps, two of each experience
    ended = torchrun(tmp_path, rank, step)
    # Its cause may be the other, which loses the connection and ends by itself.
    assert ended.failure and (tmp_path / "done").exists()
    assert not list(tmp_path.rglob("model_index.json"))
    again = torchrun(tmp_path, rank, step)
    assert not again.failure
    assert ("continuing after experience 1/2" in again.output) == (step >= 2)
    assert metrics(next(tmp_path.rglob("metrics.csv")).parent) == shared


def interrupting(module, name: str):
    """Have a function interrupted as by Ctrl-C, wherever it is called."""

    def call(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it was not interrupted")

    setattr(module, name, call)


def suite_in(out: Path):
    path = str(ROOT / "benchmarks" / "split_digits.py")
    words = ("--methods", "naive", "--jobs", "1", "--out", str(out))
    settings = (*SMALL, "benchmark.n_experiences=1", "evaluation.images=16")
    return command(partial(runpy.run_path, path, run_name="__main__"), *words, *settings)


def sweep_in(out: Path):
    return run_in(out, "-m", "benchmark.n_experiences=1")


def report_in(out: Path):
    return command(report_command.main, str(out))


PLACES = {
    "the settings of a suite": (suite, "compose_config", suite_in),
    "the runs of a suite": (suite, "run_all", suite_in),
    "the report of a suite": (suite, "write_report", suite_in),
    "the settings of a sweep": (sweep, "_compose_jobs", sweep_in),
    "the report of a sweep": (sweep, "write_report", sweep_in),
    "a report": (report_command, "collect", report_in),
}


@pytest.mark.usefixtures("sketched")
@sampled("place", list(PLACES), sample=2)
def test_who_interrupts_a_command_is_told_in_one_line(tmp_path, place):
    module, name, call_in = PLACES[place]

    def interrupted():
        interrupting(module, name)
        call_in(tmp_path / "runs")()

    begun = Begun(interrupted, tmp_path / "log")
    assert begun.ended() == 130
    assert "Traceback" not in begun.errors
    said = (begun.errors + begun.output).splitlines()
    assert sum("interrupted; " in line for line in said) == 1
