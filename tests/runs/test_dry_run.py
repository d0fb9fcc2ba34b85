import json
import re
import time

import pytest
from avalanche.core import SupervisedPlugin

from avalanche_gd import DiffusionModel
from avalanche_gd.models import SmallCNN
from avalanche_gd.plugins import SoftGenerativeReplayPlugin
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import make_benchmark, run
from avalanche_gd.runs.run_command import main
from tests.helpers.fake_data import folder_of_images
from tests.helpers.own_denoisers import OWN
from tests.helpers.small_runs import SMALL, small_config

UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}


@pytest.mark.parametrize("method", ["generative_distillation", "rwalk", "solver_ewc"])
def test_a_check_says_that_a_method_works_and_leaves_nothing(call, tmp_path, method):
    options = [*SMALL, f"method={method}", "generator.steps=20"]
    _, output, _ = call(main, "--check", *options)
    pattern = rf"{method} on split_digits, seed 0: works; about \d+ ({'|'.join(UNITS)}) on"
    assert re.match(pattern, output)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("out", ["here", "not/yet/here"])
@pytest.mark.parametrize("before", [None, b"of a sweep"], ids=["nothing", "a file"])
def test_a_check_of_several_runs_leaves_nothing_either(call, tmp_path, before, out):
    file = tmp_path / out / "multirun.yaml"
    if before is not None:
        file.parent.mkdir(parents=True)
        file.write_bytes(before)
    options = [*SMALL, "method=naive,solver_naive", f"out={out}"]
    status, output, errors = call(main, "-m", "--check", *options)
    assert status == 0 and output.count(": works; about") == 2, errors
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == (
        [] if before is None else [before]
    )
    assert (tmp_path / out.split("/")[0]).exists() == (before is not None)


def test_a_check_takes_the_data_that_a_run_takes(call, tmp_path):
    root = folder_of_images(tmp_path / "images", 10)
    for path in root.glob("test/*/[1-9].png"):
        path.unlink()  # one test image is left in each experience
    data = ["benchmark=image_folder", f"benchmark.options.root={root}", "model=digits"]
    data += ["benchmark.options.channels=1", "benchmark.n_classes=2"]
    data += ["benchmark.n_experiences=2", "method=naive"]
    status, output, errors = call(main, "--check", *SMALL, *data)
    assert (status, errors) == (0, "") and ": works; about" in output


class Machine:
    """A machine of our own, whose clock only goes on when a model works.

    At times something else keeps it busy: the steps of the numbers ``busy`` take ten
    times as long.
    """

    def __init__(self, monkeypatch, busy):
        self.now, self.busy, self.step = 0.0, busy, None
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        self._slow_down(monkeypatch, DiffusionModel, "denoise", 1e-3)
        self._slow_down(monkeypatch, SmallCNN, "forward", 1e-4)

    def _slow_down(self, monkeypatch, kind, method, seconds):
        work = getattr(kind, method)

        def slow(model, images, *args):
            factor = 10 if self.step in self.busy else 1
            self.now += len(images) * seconds * factor
            return work(model, images, *args)

        monkeypatch.setattr(kind, method, slow)


class Steps(SupervisedPlugin):
    """Tells the machine the number of the step in its experience."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine

    def before_training_iteration(self, strategy, **kwargs):
        self.machine.step = strategy.clock.train_exp_iterations

    def after_training_exp(self, strategy, **kwargs):
        self.machine.step = None


def estimated(config, benchmark):
    """In seconds."""
    number, unit = re.search(r"about (\d+) (\w+) on", dry_run(config, benchmark)).groups()
    return int(number) * UNITS[unit]


@pytest.fixture
def told(monkeypatch):
    """Have strategies tell a machine their steps."""

    def tell(machine):
        make = Learner.__init__

        def telling(self, *arguments):
            make(self, *arguments)
            for strategy in self.strategies.values():
                strategy.plugins.insert(0, Steps(machine))

        monkeypatch.setattr(Learner, "__init__", telling)
        return machine

    return tell


@pytest.mark.parametrize(
    "options",
    [
        ["method=generative_distillation"],
        # a pool for each experience
        ["method=pooled_distillation", "method.pool_size=200"],
        # all data once more after each
        ["method=ewc", "method.lambd=1"],
    ],
    ids=lambda options: options[0],
)
def test_the_estimate_is_right_even_if_the_machine_is_busy_at_times(
    monkeypatch, tmp_path, digits, told, options
):
    steps = ["generator.steps=20", "solver.steps=20", "generator.batch_size=8"]
    config = small_config(tmp_path, *OWN, *steps, *options)
    with monkeypatch.context() as patch:
        told(Machine(patch, busy={}))
        folder = run(config)
    took = sum(json.loads((folder / "run.json").read_text())["seconds"].values())
    told(Machine(monkeypatch, busy={1, 3}))
    assert estimated(config, digits) == pytest.approx(took, rel=1 / 3)


def test_the_estimate_has_the_data_that_grow_under_epochs(
    monkeypatch, tmp_path, digits, told
):
    epochs = ["generator.steps=null", "generator.epochs=20", "generator.batch_size=16"]
    config = small_config(tmp_path, *OWN, "method=joint", *epochs)
    told(Machine(monkeypatch, busy={}))
    sizes = [len(experience.dataset) for experience in digits.train_stream]
    passed = 20 * sum(sum(sizes[: number + 1]) for number in range(5))
    assert estimated(config, digits) == pytest.approx(passed * 1e-3, rel=0.1)


def test_the_estimate_has_the_replay_that_increases(monkeypatch, tmp_path, digits, told):
    method = ["method=gaussian_distillation", "method.increasing_replay_size=true"]
    config = small_config(tmp_path, *OWN, *method, "generator.steps=60")
    told(Machine(monkeypatch, busy={}))
    # the student's pass over n batches, and the teacher's over n - 1
    passed = 60 * 64 * sum(2 * n - 1 for n in range(1, 6))
    assert estimated(config, digits) == pytest.approx(passed * 1e-3, rel=0.1)


class LookingAhead(SupervisedPlugin):
    """Of a teacher that samples for five steps at once."""

    look_ahead = 5

    def before_backward(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations % self.look_ahead == 0:
            strategy.model.generate(self.look_ahead * 64, steps=20)


def test_the_estimate_has_the_work_of_a_teacher_that_looks_ahead(
    monkeypatch, tmp_path, digits, told
):
    plugin = f"method.plugins=[{{_target_: {__name__}.LookingAhead}}]"
    options = [*OWN, "method=naive", plugin, "generator.steps=100"]
    config = small_config(tmp_path, *options)
    told(Machine(monkeypatch, busy={1}))
    # five experiences of a hundred steps, each of 1 + 20 passes over 64 images
    assert estimated(config, digits) == pytest.approx(5 * 100 * 21 * 64e-3, rel=1 / 3)


def test_a_slow_model_takes_no_more_than_three_steps_of_an_experience(
    monkeypatch, tmp_path, digits, told
):
    taken = []
    told(Machine(monkeypatch, busy=[None]))
    monkeypatch.setattr(
        Steps, "before_training_iteration", lambda self, strategy: taken.append(strategy)
    )
    config = small_config(tmp_path, "method=naive", "generator.steps=1000")
    dry_run(config, digits)
    assert len([by for by in taken if isinstance(by.model, DiffusionModel)]) == 2 * 3


@pytest.mark.parametrize(
    "budget",
    [["generator.steps=60"], ["generator.steps=null", "generator.epochs=13"]],
    ids=["steps", "epochs"],
)
def test_a_slow_model_is_timed_on_a_part_of_its_batches(
    monkeypatch, tmp_path, digits, told, budget
):
    sizes = set()
    told(Machine(monkeypatch, busy=[None]))  # a pass over a batch takes 0.64 s
    monkeypatch.setattr(
        Steps,
        "before_training_iteration",
        lambda self, by: sizes.add((type(by.model).__name__, len(by.mb_x))),
    )
    config = small_config(tmp_path, *OWN, "method=naive", *budget)
    count = sum(len(experience.dataset) for experience in digits.train_stream)
    passed = 5 * 60 * 64 if len(budget) == 1 else 13 * count
    assert estimated(config, digits) == pytest.approx(passed * 1e-2, rel=0.25)
    assert sizes == {("DiffusionModel", 32), ("SmallCNN", 64)}


def test_a_method_that_needs_more_steps_is_refused_by_its_check(tmp_path, digits):
    config = small_config(tmp_path, "method=rwalk", "generator.steps=9")
    with pytest.raises(ValueError, match="needs experiences of delta_t = 10 iterations"):
        dry_run(config, digits)


def test_a_check_makes_current_images_again_from_the_first_step_on(monkeypatch, tmp_path):
    steps = []
    made = SoftGenerativeReplayPlugin.regenerate

    def noting(plugin, images, labels):
        steps.append(plugin.samples_only_from)
        return made(plugin, images, labels)

    monkeypatch.setattr(SoftGenerativeReplayPlugin, "regenerate", noting)
    overrides = ["solver.samples_only_from=150", "solver.steps=180"]
    config = small_config(tmp_path, *overrides)
    assert "works; about" in dry_run(config, make_benchmark(config))
    assert steps and set(steps) == {0}
