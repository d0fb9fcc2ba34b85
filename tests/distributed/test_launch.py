"""A run in two processes that torchrun starts."""

import csv
import fcntl
import json
from pathlib import Path

import pytest

from avalanche_gd.runs.run import run
from avalanche_gd.runs.suite import main as suite
from tests.helpers.shared_commands import COMMANDS
from tests.helpers.small_runs import (
    FILES,
    SMALL,
    files_left,
    run_killed_after,
    small_config,
)
from tests.helpers.torchrun import forked, torchrun

TOLERANCE = 1e-4  # relative: sums are rounded in another order, and FID adds to it


def rows(folder: Path) -> dict[tuple[str, str], float]:
    with open(folder / "metrics.csv", newline="") as file:
        return {
            (r["experience"], r["metric"]): float(r["value"]) for r in csv.DictReader(file)
        }


def test_two_processes_go_on_to_the_numbers_and_the_folder_of_one(tmp_path):
    small = ["benchmark.n_experiences=2", "benchmark.horizontal_flips=true"]
    one = [run(small_config(tmp_path / "one", *small, f"seed={seed}")) for seed in (0, 1)]
    run_killed_after(1, small_config(tmp_path / "two", *small))
    options = [*SMALL, *small, "seed=0,1", f"out={tmp_path / 'two'}"]
    ended = forked(tmp_path / "logs", "avalanche_gd", "-m", *options)
    assert not ended.failure, ended.errors
    lines = ended.output.splitlines()
    assert sum("continuing after experience 1/2" in line for line in lines) == 1
    assert sum("experience 2/2: FID" in line for line in lines) == 2
    assert sum(line.split()[:2] == ["generative_distillation", "2"] for line in lines) == 1
    for folder in one:
        other = tmp_path / "two" / folder.relative_to(tmp_path / "one")
        assert rows(other) == pytest.approx(rows(folder), rel=TOLERANCE, nan_ok=True)
        assert files_left(other) == FILES
        infos = [json.loads((path / "run.json").read_text()) for path in (folder, other)]
        assert infos[1]["completed"] and infos[1]["cost"] == infos[0]["cost"]
        last = [info["times"][-1]["machine"]["processes"] for info in infos]
        assert last == [1, 2]
    events = [len(list(path.rglob("events.out*"))) for path in (tmp_path / "two", one[0])]
    assert events == [6, 2]  # of a run that was killed, of two that ended, and of one


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each of two processes says to the commands."""
    folder = tmp_path_factory.mktemp("said")
    used = small_config(folder / "runs", *COMMANDS["a folder in use"]).folder
    used.mkdir(parents=True)
    with open(used / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = forked(folder / "logs", "tests.helpers.shared_commands", str(folder))
    assert not ended.failure, ended.errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


MESSAGES = {
    "a batch of the generator": "generator.batch_size must be a multiple of 2",
    "a batch of the solver": "solver.batch_size must be a multiple of 2",
    "a replay ratio": "replay_ratio 0.2 times the batch size 64 must be a multiple of 2",
    "a trajectory": "replay_ratio 1 times the batch size 64 must be a multiple of 6",
    "a plugin for one process": "method=ewc cannot be trained by several processes",
    "a memory": "method=experience_replay cannot be trained by several processes",
    "a solver's memory": "method=solver_replay cannot be trained by several processes",
    "a VAE": "method=naive cannot be trained by several processes",
    "a VAE's plugin": "method=vae_replay cannot be trained by several processes",
    "a sweep": "method=mir cannot be trained by several processes",
    "a launcher": "hydra/launcher=Launcher starts its own processes",
    "a folder in use": "is in use by another process; wait for it",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_processes_cannot_share_ends_all_of_them_with_one_line(said, name):
    for answers in said:
        status, output, errors, _ = answers[name]
        (line,) = errors.splitlines()
        assert status == 2 and not output
        assert line.startswith("avalanche-gd: ") and MESSAGES[name] in line


def test_a_dry_run_is_answered_by_the_main_process(said):
    (_, output, _, _), (_, silence, _, _) = (answers["a dry run"] for answers in said)
    assert "joint on split_digits, seed 0: works" in output and not silence


def test_the_main_process_alone_speaks_and_writes_and_both_train_on_shares(said):
    (first, output, _, written), (second, silence, _, nothing) = (
        answers["a run"] for answers in said
    )
    assert (first, second) == (0, 0)
    assert silence == "a share of 32\n" * 2 and "a share of 32" in output
    assert "experience 1/1: FID" in output
    assert {"metrics.csv", "run.json", "exp_000.pt", "curves.png"} <= set(written)
    assert not nothing


@pytest.mark.parametrize(
    "rank, error, status, line",
    [
        (0, "ValueError", 2, "avalanche-gd: a process died"),
        pytest.param(
            *(1, "ValueError", 2, "avalanche-gd: a process died"),
            marks=pytest.mark.torture,  # its rank and its error are in the others
        ),
        (1, "RuntimeError", 1, "RuntimeError: a process died"),
    ],
)
@pytest.mark.usefixtures("digits_oracle")  # which the processes find in the cache
def test_a_process_that_fails_ends_all_with_its_line(tmp_path, rank, error, status, line):
    dying = (
        f"{{_target_: tests.helpers.shared_commands.Dying, rank: {rank}, error: {error}}}"
    )
    options = [*SMALL, "method=naive", f"method.plugins=[{dying}]", f"out={tmp_path}"]
    ended = torchrun("avalanche_gd", "-m", *options, "seed=0,1")
    lines = ended.errors.splitlines()
    assert [said for said in lines if said.endswith("a process died")] == [line]
    assert "]: Traceback" not in ended.errors  # as torch would print one more
    root_cause = ended.failure.split("Root Cause")[1]
    assert f"rank      : {rank} " in root_cause and f"exitcode  : {status} " in root_cause
    assert [path.name for path in tmp_path.rglob("*.pt")] == ["exp_000.pt"]


def test_a_suite_is_refused_under_torchrun(call, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    status, _, errors = call(lambda: suite("", {"small": []}))
    assert status == 2 and "a suite starts its own processes" in errors
