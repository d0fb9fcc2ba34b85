"""The suites of benchmarks/, and the check."""

import re
import runpy
import sys

import pytest

from avalanche_gd import oracle_classifier
from avalanche_gd.data.fashion_mnist import DEBIAN_ROOT
from avalanche_gd.runs.column import DASH
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run_command import main
from avalanche_gd.runs.side_by_side import run_all
from tests.helpers.bits import truncate
from tests.helpers.repository import ROOT
from tests.helpers.small_runs import SMALL, Killed, metrics, small_config

pytestmark = pytest.mark.usefixtures("sketched")

SUITES = sorted((ROOT / "benchmarks").glob("*_*.py"))


@pytest.fixture
def suite(call):
    """Call a suite by its name."""

    def by_name(name, *arguments):
        path = next(path for path in SUITES if path.stem == name)

        def script():
            sys.argv[0] = str(path)
            runpy.run_path(str(path), run_name="__main__")

        return call(script, *arguments)

    return by_name


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_says_what_it_compares_and_how_long_it_takes(suite, path):
    status, output, _ = suite(path.stem, "--help")
    assert status == 0
    assert re.search(r"minutes|--check estimates", output.split("positional")[0])
    assert "generative_distillation,generative_replay,joint,naive" in output


def test_a_suite_compares_reports_and_does_not_run_twice(suite, tmp_path):
    arguments = (
        "--methods", "naive,solver_naive", "--seeds", "0,1", "--jobs", "1",
        "benchmark.n_experiences=2", *SMALL,
    )  # fmt: skip
    status, output, errors = suite("split_digits", *arguments)
    assert status == 0, errors
    table = [line.split() for line in output.splitlines() if " 2  " in line]
    assert [line[:2] for line in table] == [["naive", "2"], ["solver_naive", "2"]]
    assert table[1][2] == DASH  # a solver alone has no FID
    report = tmp_path / "runs" / "split_digits-report"
    assert {"report.html", "runs.csv", "table.csv", "table.tex"} <= {
        path.name for path in report.iterdir()
    }
    assert "3 of 4 runs done, about" in output and "4 of 4 runs done\n" in output
    assert output.splitlines()[-1] == "runs/split_digits-report/report.html"
    _, again, _ = suite("split_digits", *arguments)
    assert again.count("complete:") == 4
    assert [line.split() for line in again.splitlines() if " 2  " in line] == table


def test_a_suite_writes_its_runs_and_its_report_to_the_folder_that_was_typed(
    suite, tmp_path
):
    methods = ("--methods", "solver_naive", "--jobs", "1", "benchmark.n_experiences=1")
    out = "1e3, it's (v2) ü"
    status, _, errors = suite("split_digits", *methods, "--out", out, *SMALL)
    assert status == 0, errors
    (folder,) = tmp_path.iterdir()
    assert folder.name == out
    assert {path.name for path in folder.iterdir()} == {
        "split_digits",
        "split_digits-report",
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_is_named_twice_is_made_once_and_reported(suite, jobs):
    twice = ("--methods", "solver_naive,solver_naive", "--seeds", "0,0")
    arguments = (*twice, "--jobs", jobs, "benchmark.n_experiences=1", *SMALL)
    status, output, errors = suite("split_digits", *arguments)
    assert status == 0, errors
    assert "\n1 of 1 runs done\n" in output
    (line,) = (line for line in output.splitlines() if line.startswith("solver_naive  "))
    assert line.split()[1] == "1"


def test_a_killed_suite_runs_only_what_is_missing_to_the_same_numbers(
    tmp_path, monkeypatch
):
    def configs(out):
        return [
            small_config(tmp_path / out, f"method={method}", "benchmark.n_experiences=2")
            for method in ("naive", "generative_distillation")
        ]

    assert not run_all(configs("whole"), 1)
    whole = [metrics(config.folder) for config in configs("whole")]
    train, trained = Learner.train, []

    def dying(self, experience):
        trained.append((self.config.method.name, experience.current_experience))
        if len(trained) == 4:
            raise Killed
        train(self, experience)

    monkeypatch.setattr(Learner, "train", dying)
    with pytest.raises(Killed):
        run_all(configs("killed"), 1)
    assert not run_all(configs("killed"), 1)
    assert trained[3:] == [("generative_distillation", 1)] * 2
    assert [metrics(config.folder) for config in configs("killed")] == whole


def test_runs_in_processes_reach_the_numbers_of_runs_in_one_and_outlive_a_failure(
    tmp_path, capfd, monkeypatch, steps_of_an_oracle
):
    # The processes know nothing of quicker oracles.
    monkeypatch.setitem(oracle_classifier.__kwdefaults__, "steps", steps_of_an_oracle)
    names = ("naive", "joint", "generative_replay")
    alone, broken, beside = (
        [
            small_config(tmp_path / out, f"method={name}", "benchmark.n_experiences=1")
            for name in names
        ]
        for out in ("alone", "broken", "broken")
    )
    assert not run_all(alone, 1) and not run_all(broken[:1], 1)
    expected = [metrics(config.folder) for config in alone]
    damaged = broken[0].folder
    truncate(damaged / "run.json")
    ((folder, failure),) = run_all(beside, 2).items()
    assert folder == damaged and "run.json is cut short" in failure
    assert f"naive, seed 0: {failure}" in capfd.readouterr().err
    assert [metrics(config.folder) for config in beside[1:]] == expected[1:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "a"], "seeds are integers separated by commas, got 'a'"),
        (["--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["--scale", "huge"], "invalid choice: 'huge'"),
        (["--methods", "magic"], "no method 'magic'; choose from"),
        (["generator.steps=0"], "generator.steps must be 1 or more"),
        (["--see", "0"], "unrecognized arguments: --see; see"),
        (["method=joint"], "method=joint: for a suite, use --methods"),
        (["solver.steps=5,6"], "solver.steps=5,6: a suite takes several --methods and"),
        (["a=b=c=["], "mismatched input '=' expecting"),
        (["seed=3"], "seed=3: for a suite, use --seeds"),
        (["++seed=3"], "++seed=3: for a suite, use --seeds"),
        (["+out=x"], "+out=x: for a suite, use --out"),
    ],
)
def test_a_wrong_argument_ends_with_one_line(suite, tmp_path, arguments, message):
    status, _, errors = suite("split_digits", *arguments)
    (line,) = errors.splitlines()
    assert status == 2 and message in line
    assert not list(tmp_path.iterdir())


def test_a_sweep_may_be_an_experiments_own(call):
    small = ["benchmark=split_digits", "model=digits", "benchmark.n_experiences=1", *SMALL]
    small += ["generator.epochs=null", "solver.epochs=null", "solver.architecture=mlp"]
    small += ["evaluation.features=oracle", "evaluation.labeller=oracle"]
    _, output, _ = call(main, "-m", "experiment=paper_fmnist", "method=naive", *small)
    *_, line, _, _ = output.splitlines()
    # the experiment's seeds, the command line's method
    assert line.split()[:2] == ["naive", "3"]


@pytest.mark.skipif(
    not DEBIAN_ROOT.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_the_check_of_a_sweep_checks_each_run(call):
    sweep = ["--check", "-m", "benchmark=split_fmnist", "method=naive,joint", *SMALL]
    _, output, errors = call(main, *sweep)
    assert output.count("works; about") == 2, errors


def test_what_was_set_beside_distillation_is_a_suite(call, tmp_path, monkeypatch):
    beyond = runpy.run_path(str(ROOT / "experiments" / "beyond" / "beyond.py"))
    small = [*beyond["VARIANTS"][0], *SMALL, "benchmark.n_experiences=1"]
    monkeypatch.setitem(beyond["main"].__globals__, "VARIANTS", [small])
    status, output, errors = call(beyond["main"], "--seeds", "0,1", "--jobs", "1")
    assert status == 0, errors
    assert "1 of 2 runs done, about" in output and "2 of 2 runs done\n" in output
    assert output.splitlines()[-1] == "runs/beyond-report/report.html"


def test_a_suite_can_be_checked(suite, tmp_path):
    arguments = ("--check", "--methods", "naive,joint", "--jobs", "1", *SMALL)
    status, output, errors = suite("split_digits", *arguments)
    assert status == 0, errors
    assert output.count("works; about") == 2 and "runs done" not in output
    assert not list(tmp_path.rglob("run.json"))
