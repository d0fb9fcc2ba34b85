"""Runs of which none stops the others, in processes that end with their parent."""

import os
import re
import runpy
import signal
import subprocess
import sys

import pytest

from avalanche_gd.evaluation.evaluate_command import main as evaluate
from avalanche_gd.report.report_command import main as report
from avalanche_gd.runs import side_by_side
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_command import main as command
from avalanche_gd.runs.side_by_side import Countdown, run_all
from tests.helpers.processes import Begun, processes_of, wait_until
from tests.helpers.repository import ROOT
from tests.helpers.small_runs import SMALL, small_config

pytestmark = pytest.mark.usefixtures("digits_oracle")  # found in the cache


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_is_said_and_does_not_stop_the_others(tmp_path, capfd, jobs):
    small = ["method=naive", "benchmark.n_experiences=1", "generator.steps=3"]
    rates = ("1e30", "1e-3", "1e-2")
    configs = [
        small_config(tmp_path, *small, f"generator.learning_rate={rate}") for rate in rates
    ]
    ((folder, failure),) = run_all(configs, jobs).items()
    assert folder == configs[0].folder
    assert "the loss of the DiffusionModel is nan" in failure
    assert f"naive, seed 0: {failure}" in capfd.readouterr().err
    assert all((config.folder / "model").exists() for config in configs[1:])


def test_a_process_that_is_killed_does_not_stop_the_others(tmp_path, monkeypatch):
    train = Learner.train

    def killed(self, experience):
        if self.config.seed == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        train(self, experience)

    monkeypatch.setattr(Learner, "train", killed)
    small = ["method=naive", "benchmark.n_experiences=1"]
    configs = [small_config(tmp_path, *small, f"seed={seed}") for seed in (0, 1, 2)]
    failures = run_all(configs, 2)
    assert failures == {configs[0].folder: "its process was ended (status -9)"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_processes_of_a_suite_end_with_it(tmp_path, number):
    suite = [sys.executable, ROOT / "benchmarks" / "split_digits.py", "--jobs", "2"]
    options = [*SMALL, "generator.steps=100000", "--methods", "naive,joint"]
    with subprocess.Popen(
        [*suite, *options, "--out", tmp_path / "runs"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=heed_interrupts,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            wait_until(lambda: len(list(tmp_path.rglob("run.json"))) == 2)
            process.send_signal(number)
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    wait_until(lambda: not processes_of(process.pid))
    assert ("run the same command again" in output) == (number == signal.SIGINT)
    assert process.returncode == (130 if number == signal.SIGINT else -number)


def heed_interrupts():
    """As in a terminal: what runs in the background is started without."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_what_is_left_is_told_from_the_runs_that_trained(tmp_path, capsys, monkeypatch):
    seeds = range(6)
    configs = [small_config(tmp_path, "method=naive", f"seed={seed}") for seed in seeds]
    monkeypatch.setattr(side_by_side, "_is_complete", lambda config: config.seed == 0)
    now = 0.0
    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: now)
    countdown = Countdown(configs, jobs=2)
    for seed, begins, ends, failure, said in (
        (0, 0, 0, None, "1 of 6 runs done"),  # it was done before: nothing to go by
        (1, 0, 1, "it failed", "2 of 6 runs done"),
        (2, 1, 41, None, "3 of 6 runs done, about 60 seconds left"),  # 3 of 40, 2 at a time
        (3, 41, 101, None, "4 of 6 runs done, about 50 seconds left"),  # 2 of 50
        (4, 101, 111, None, "5 of 6 runs done, about 37 seconds left"),  # 1 of 36.7
    ):
        now = begins
        countdown.begin(configs[seed])
        now = ends
        countdown.end(configs[seed], failure)
        assert capsys.readouterr().out == f"{said}\n"
    countdown.begin(configs[5])
    now += 20
    countdown.end(configs[5], None)
    assert capsys.readouterr().out == "6 of 6 runs done\n"


def test_runs_that_go_on_are_left_for_the_shorter(tmp_path, capsys, monkeypatch):
    configs = [small_config(tmp_path, "method=naive", f"seed={seed}") for seed in (0, 1)]
    now = 0.0
    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: now)
    countdown = Countdown(configs, jobs=2)
    countdown.begin(configs[0])
    countdown.begin(configs[1])
    now = 30.0
    countdown.end(configs[0], None)
    assert capsys.readouterr().out == "1 of 2 runs done, about 0 seconds left\n"


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_run_that_is_done_is_counted(tmp_path, capfd, jobs):
    small = ["method=naive", "benchmark.n_experiences=1"]
    configs = [small_config(tmp_path, *small, f"seed={seed}") for seed in (0, 1)]
    assert not run_all([*configs, configs[0]], jobs)  # which is one of the two
    lines = [line for line in capfd.readouterr().out.splitlines() if "runs done" in line]
    assert re.fullmatch("1 of 2 runs done, about [0-9]+ seconds left", lines[0])
    assert lines[1:] == ["2 of 2 runs done"]


SUITE = str(ROOT / "benchmarks" / "split_digits.py")
ONE = ("benchmark.n_experiences=1", *SMALL)
INTO_A_PIPE = {
    "help": (command, "--help"),
    "a run": (command, "method=naive", *ONE),
    "a sweep that has said something": (command, "-m", "method=naive", "seed=0,1", *ONE),
    "a report": (report, "runs"),
    "help of evaluations": (evaluate, "--help"),
    "a suite": (SUITE, "--jobs", "1", "--methods", "naive", *ONE),
    "a suite in processes": (SUITE, "--jobs", "2", "--methods", "naive,joint", *ONE),
}


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize("name", INTO_A_PIPE)
def test_a_closed_pipe_ends_a_command_quietly(tmp_path, monkeypatch, name):
    main, *arguments = INTO_A_PIPE[name]
    if name == "a report":
        folder = run(small_config(tmp_path, "method=naive", "benchmark.n_experiences=1"))
        folder.rename(tmp_path / "runs")

    def into_a_closed_pipe():
        readable, writable = os.pipe()
        if "has said" in name:
            judge = Learner.evaluate
            monkeypatch.setattr(
                Learner, "evaluate", lambda *own: (os.close(readable), judge(*own))[1]
            )
        else:
            os.close(readable)
        os.dup2(writable, 1)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.argv = [main if isinstance(main, str) else "avalanche-gd", *arguments]
        runpy.run_path(main, run_name="__main__") if isinstance(main, str) else main()

    begun = Begun(into_a_closed_pipe, tmp_path)
    assert (begun.ended(), begun.errors) == (141, "")
