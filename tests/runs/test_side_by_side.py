"""Runs of which none stops the others, in processes that end with their parent."""

import os
import signal
import subprocess
import sys

import pytest

from avalanche_gd.runs.side_by_side import run_all
from tests.helpers.processes import processes_of, wait_until
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
    from avalanche_gd.runs.learner import Learner

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
    assert ("the same command goes on" in output) == (number == signal.SIGINT)
    assert process.returncode == (130 if number == signal.SIGINT else -number)


def heed_interrupts():
    """As in a terminal: what runs in the background is started without."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
