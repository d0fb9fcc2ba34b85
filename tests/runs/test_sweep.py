"""The runs of a sweep, as Hydra itself would begin them."""

import pickle
from types import SimpleNamespace

import pytest
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import RunMode

from avalanche_gd.runs.composition import compose_config
from avalanche_gd.runs.run_command import main
from avalanche_gd.runs.side_by_side import Countdown
from avalanche_gd.runs.sweep import SweepCallback, _compose_jobs, split_sweep

METHODS = ["method=joint", "method=naive"]
SWEEPS = {
    "nothing": ([], [[]]),
    "one value each": (["method=naive", "seed=3"], [["method=naive", "seed=3"]]),
    "a product, the last turning fastest": (
        ["method=joint,naive", "seed=0,1"],
        [[method, seed] for method in METHODS for seed in ("seed=0", "seed=1")],
    ),
    "a choice": (["method=choice(joint,naive)"], [[method] for method in METHODS]),
    "a range": (["seed=range(1,6,2)"], [["seed=1"], ["seed=3"], ["seed=5"]]),
    "a range of fractions": (
        ["method.lambd=range(0.5,2,0.5)"],
        [["method.lambd=0.5"], ["method.lambd=1.0"], ["method.lambd=1.5"]],
    ),
    "a shuffled choice of one": (["seed=shuffle(choice(4))"], [["seed=4"]]),
    "a sorted choice": (["seed=sort(2,1)"], [["seed=1"], ["seed=2"]]),
    "a glob": (
        ["method=glob(solver_*,exclude=[solver_e*,solver_l*,solver_r*,solver_s*])"],
        [["method=solver_cumulative"], ["method=solver_naive"]],
    ),
    "a value given twice, which the later holds": (
        ["method=joint,naive", "seed=0", "method=ewc"],
        [["method=ewc", "seed=0"]],
    ),
    "quoted values": (
        ["out='a, b'", 'device="cpu","cuda"'],
        [["out='a, b'", 'device="cpu"'], ["out='a, b'", 'device="cuda"']],
    ),
    "lists and a table": (
        ["method.plugins=[],[{_target_: a.B}]", "benchmark.options={root: c}"],
        [
            ["method.plugins=[]", "benchmark.options={root:c}"],
            ["method.plugins=[{_target_:a.B}]", "benchmark.options={root:c}"],
        ],
    ),
    "what is added and left out": (
        ["+method.generator=vae,none", "~experiment"],
        [
            ["+method.generator=vae", "~experiment=null"],
            ["+method.generator=none", "~experiment=null"],
        ],
    ),
    "null": (
        ["method.pool_size=null,20"],
        [["method.pool_size=null"], ["method.pool_size=20"]],
    ),
}


@pytest.fixture
def parse():
    """Overrides as Hydra reads them, which knows the groups."""
    with initialize_config_module("avalanche_gd.conf", version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        yield OverridesParser.create(config_loader=loader).parse_overrides


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_split_into_these_runs(parse, name):
    overrides, runs = SWEEPS[name]
    assert split_sweep(parse(overrides)) == runs


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_split_as_hydra_splits_it(parse, name):
    basic = pytest.importorskip("hydra._internal.core_plugins.basic_sweeper")
    overrides = parse(SWEEPS[name][0])
    (runs,) = basic.BasicSweeper.split_arguments(overrides, None)
    assert split_sweep(overrides) == runs


def test_an_interval_has_no_values(parse):
    with pytest.raises(HydraException, match="INTERVAL"):
        split_sweep(parse(["method.lambd=interval(0,1)"]))


LOST = {
    "experiments": (
        "experiment=paper_fmnist,paper_cifar10",
        "experiment=paper_fmnist has its own sweep over method and seed, which",
    ),
    "experiments over other settings": (
        "experiment=paper_fmnist_lambda,paper_cifar10_lambda",
        "experiment=paper_fmnist_lambda has its own sweep over method and method.lambd and",
    ),
    "protocols": (
        "protocol=paper,rank1",
        "protocol=paper has its own sweep over method and seed, which Hydra does not make "
        "among others; use one command for each, or give method and seed too",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_sweeps_of_several_experiments_end_with_one_line_instead_of_being_lost(call, name):
    swept, message = LOST[name]
    status, output, errors = call(main, "-m", swept)
    (line,) = errors.splitlines()
    assert status == 2 and not output and message in line


def test_several_experiments_can_be_swept_beside_values_for_all_that_they_sweep(parse):
    parse([])  # begin Hydra
    given = ["experiment=paper_fmnist,paper_cifar10", "method=naive", "seed=0,1"]
    loader = GlobalHydra.instance().config_loader()
    config = loader.load_configuration("config", given, RunMode.MULTIRUN)
    jobs = [(job.benchmark.name, job.seed) for job in _compose_jobs(config)]
    assert jobs == [(name, n) for name in ("split_fmnist", "split_cifar10") for n in (0, 1)]


@pytest.mark.parametrize("group", ["experiment", "protocol"])
def test_the_error_for_several_experiments_in_one_run_does_not_suggest_a_sweep(call, group):
    choice = {"experiment": "paper_fmnist", "protocol": "paper"}[group]
    _, _, errors = call(main, f"{group}=[{choice},{choice}]")
    line = f"avalanche-gd: {group} must be one choice; use one command for each\n"
    assert errors == line


def test_a_copy_in_a_launchers_process_does_not_count_the_runs_of_others(capsys, tmp_path):
    callback = SweepCallback()
    callback.configs = [compose_config([f"out={tmp_path}", f"seed={n}"]) for n in (0, 1)]
    callback.countdown = Countdown(callback.configs)
    job = SimpleNamespace(hydra=SimpleNamespace(job=SimpleNamespace(num=0)))
    said = []
    for own in (callback, pickle.loads(pickle.dumps(callback))):
        own.on_job_start(job)
        own.on_job_end(job, JobReturn(_return_value=None, status=JobStatus.COMPLETED))
        said.append(capsys.readouterr().out)
    assert said[0].startswith("1 of 2 runs done") and said[1] == ""


LAUNCHERS = {
    "SlurmLauncher": "hydra/launcher=submitit_slurm finds no srun here; "
    "use a machine with Slurm",
    "RayLauncher": "with hydra/launcher=ray, out=here differs from machine to machine; "
    "give the absolute path of a folder that all machines see",
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_a_launcher_cannot_run_here_ends_with_one_line(call, monkeypatch, name):
    monkeypatch.setenv("PATH", "")
    launcher = f"hydra.launcher._target_=elsewhere.{name}"
    status, output, errors = call(main, "-m", launcher, "out=here", "seed=0,1")
    assert status == 2 and not output
    assert errors == f"avalanche-gd: {LAUNCHERS[name]}\n"
