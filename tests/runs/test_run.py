"""A run from configuration to folder: its files, going on, and the same bits."""

import csv
import json
import re

import diffusers
import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from PIL import Image

import avalanche_gd.runs.run as runs
from avalanche_gd import SmallCNN, SplitDigits
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import run
from avalanche_gd.runs.seeds import seed_everything
from avalanche_gd.storage import content_digest
from tests.helpers.bits import same_bits, truncate, weights
from tests.helpers.small_runs import (
    FILES,
    Killed,
    files_left,
    metrics,
    run_killed_after,
    small_config,
)


def test_a_run_leaves_what_the_design_says(tmp_path):
    config = small_config(tmp_path)
    folder = run(config)
    assert files_left(folder) == FILES
    assert len(list(folder.glob("events.out*"))) == 2
    info = json.loads((folder / "run.json").read_text())
    assert info["completed"] and info["seed"] == 0
    assert len(info["oracles"]) == 1 and len(info["oracles"][0]) == 64
    (time,) = info["times"]
    assert time["versions"]["torch"] == torch.__version__ and time["after_experience"] == 0
    assert set(info["seconds"]) == {"generator", "solver", "evaluation"}
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {row["metric"].split("/")[1] for row in rows if row["experience"] == "4"}
    assert {
        "FID_Stream",
        "KLD_Stream",
        "ARD_Stream",
        "Loss_Stream",
        "Top1_Acc_Stream",
        "Top1_Acc_Exp",
        "StreamForgetting",
        "ExperienceForgetting",
    } <= names
    samples = sorted((folder / "samples").iterdir())
    assert [path.name for path in samples] == [f"exp_{i:03d}.png" for i in range(5)]
    assert Image.open(samples[-1]).size == (511, 511)
    pipeline = diffusers.DDIMPipeline.from_pretrained(folder / "model")
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    assert len(list((folder / "checkpoints").iterdir())) == 2


def test_a_solver_alone_leaves_no_images_and_no_generator(tmp_path):
    folder = run(small_config(tmp_path, "method=solver_replay"))
    info = json.loads((folder / "run.json").read_text())
    assert info["completed"] and set(info["seconds"]) == {"solver", "evaluation"}
    assert not (folder / "samples").exists() and not (folder / "model").exists()
    assert "solver/Top1_Acc_Stream" in metrics(folder)
    assert "generator/" not in metrics(folder)


def test_passes_are_counted_in_f(tmp_path):
    costs = {}
    for method in ("naive", "generative_replay", "generative_distillation", "ewc"):
        options = [f"method={method}", "generator.steps=4", "benchmark.n_experiences=2"]
        folder = run(small_config(tmp_path, *options))
        costs[method] = json.loads((folder / "run.json").read_text())["cost"]
    assert costs["naive"] == {"F_per_step": 3, "F_total": 24, "F_total_solver": 0}
    assert costs["generative_replay"]["F_per_step"] == 8
    assert costs["generative_distillation"]["F_per_step"] == 9
    # two solver steps replay from two sampling steps each
    assert costs["generative_distillation"]["F_total_solver"] == 4
    assert costs["generative_distillation"]["F_total"] == 4 * 3 + 4 * 9
    assert costs["ewc"]["F_total"] > 24


def test_what_a_metric_generates_in_training_is_no_cost(tmp_path):
    measures = "evaluation.measures=[transfer]"
    folder = run(small_config(tmp_path, "method=naive", "generator.steps=4", measures))
    cost = json.loads((folder / "run.json").read_text())["cost"]
    assert cost["F_per_step"] == 3
    assert metrics(folder)


def test_a_solver_with_a_pool_costs_its_generation_once_an_experience(tmp_path):
    options = ["solver.pool_size=32", "solver.steps=10"]
    folder = run(small_config(tmp_path, *options))
    cost = json.loads((folder / "run.json").read_text())["cost"]
    assert cost["F_total_solver"] == 4 * 2 * 32 / 64  # four experiences of k = 2


def test_a_teacher_and_a_solvers_generator_look_as_far_ahead_as_set(tmp_path):
    ahead = ["method.look_ahead=3", "solver.look_ahead=2"]
    config = small_config(tmp_path, *ahead, "generator.steps=6", "solver.steps=4")
    learner = Learner(config)
    for experience in SplitDigits(5).train_stream[:2]:
        learner.train(experience)
    learner.close()
    passes = learner.counter.passes
    largest = {name: max(images for images, _ in passes[name][1]) for name in passes}
    assert largest == {"generator": 3 * 64, "solver": 2 * 64}


class Counting(SupervisedPlugin):
    """Remembers how many experiences it has seen, and no checkpoint of it is known."""

    def after_training_exp(self, strategy, **kwargs):
        print("seen", strategy.experience.current_experience)


class Remembering(Counting):
    """The same, with a state."""

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        assert state == {}


class Keeping(ReplayPlugin):
    """A known plugin that remembers more."""

    def after_training_exp(self, strategy, **kwargs):
        super().after_training_exp(strategy, **kwargs)
        print("seen", strategy.experience.current_experience)


@pytest.mark.parametrize(
    ("plugin", "first"), [("Counting", 0), ("Remembering", 1), ("Keeping", 0)]
)
def test_a_plugin_of_ones_own_goes_on_only_if_it_has_a_state(
    tmp_path, capsys, plugin, first
):
    target = f"{{_target_: {__name__}.{plugin}}}"
    config = small_config(tmp_path, "method=naive", f"method.plugins=[{target}]")
    run_killed_after(1, config)
    capsys.readouterr()
    run(config)
    output = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"seen (\d)", output)] == list(range(first, 5))
    assert ("starting again" in output) == (first == 0)


def test_the_seed_alone_decides_the_initial_weights(tmp_path, monkeypatch):
    config = small_config(tmp_path, "seed=3")
    seed_everything(3)
    expected = Learner(config)
    begun = []

    def train(self, experience):
        begun.append(self)
        raise Killed

    monkeypatch.setattr(Learner, "train", train)
    with pytest.raises(Killed):
        run(config)
    for name, strategy in begun[0].strategies.items():
        assert same_bits(weights(strategy.model), weights(expected.strategies[name].model))


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(tmp_path):
    first, again = (metrics(run(small_config(tmp_path / name))) for name in "ab")
    assert first == again
    assert metrics(run(small_config(tmp_path / "a", "seed=1"))) != first


def test_the_solver_does_not_change_what_the_generator_draws(tmp_path):
    folders = [
        run(small_config(tmp_path, "method=generative_distillation", f"solver.steps={n}"))
        for n in (2, 3)
    ]
    rows = [
        [line for line in metrics(folder).splitlines() if "generator/" in line]
        for folder in folders
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "method", ["naive", "joint", "generative_replay", "generative_distillation"]
)
def test_a_killed_run_goes_on_to_the_numbers_of_one_that_was_not(
    tmp_path, method, monkeypatch
):
    options = [f"method={method}", "generator.decay_steps=1"]
    whole = run(small_config(tmp_path / "whole", *options))
    config = small_config(tmp_path / "killed", *options)
    run_killed_after(2, config)
    trained = []
    train = Learner.train
    monkeypatch.setattr(
        Learner,
        "train",
        lambda self, exp: (trained.append(exp.current_experience), train(self, exp)),
    )
    folder = run(config)
    assert trained == [2, 3, 4]
    assert metrics(folder) == metrics(whole)
    assert (folder / "curves.png").read_bytes() == (whole / "curves.png").read_bytes()
    weights = [
        (f / "model/unet/diffusion_pytorch_model.safetensors").read_bytes()
        for f in (folder, whole)
    ]
    assert weights[0] == weights[1]


def test_the_learning_rate_falls_to_zero_at_the_end_of_each_experience(
    tmp_path, monkeypatch
):
    rates = []
    step = torch.optim.Adam.step

    def noting(self, *args):
        group = self.param_groups[0]
        if len(group["params"]) > 50:  # the diffusion model's
            rates.append(group["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", noting)
    options = [
        "generator.steps=6",
        "generator.decay_steps=4",
        "generator.learning_rate=2e-3",
    ]
    run(small_config(tmp_path, "method=naive", "benchmark.n_experiences=2", *options))
    expected = [2e-3 * factor for factor in (1, 1, 1, 0.75, 0.5, 0.25)]
    assert rates == pytest.approx(expected * 2)


def test_each_time_that_a_run_goes_on_is_told(tmp_path):
    config = small_config(tmp_path, "method=naive")
    for index in (1, 3):
        run_killed_after(index, config)
    times = json.loads((run(config) / "run.json").read_text())["times"]
    assert [time["after_experience"] for time in times] == [0, 1, 3]
    assert all(time["machine"]["threads"] == 1 for time in times)


def test_the_oracles_and_labellers_of_all_times_are_told(tmp_path, monkeypatch):
    config = small_config(tmp_path, "method=naive")
    run_killed_after(1, config)
    (first,) = json.loads((config.folder / "run.json").read_text())["oracles"]
    with monkeypatch.context() as elsewhere:
        judges = {"oracles": ["another"], "labellers": ["a labeller"]}
        elsewhere.setattr(Learner, "judges", lambda self: judges)
        run_killed_after(3, config)
    info = json.loads((run(config) / "run.json").read_text())
    assert info["oracles"] == [first, "another"] and info["labellers"] == ["a labeller"]


def test_what_labels_the_images_instead_of_the_oracle_is_told(tmp_path):
    labeller = SmallCNN((1, 8, 8), 10)
    learner = Learner(small_config(tmp_path, "method=naive"), labeller)
    assert learner.judges()["labellers"] == [content_digest(labeller.state_dict())]
    learner = Learner(small_config(tmp_path, "method=solver_naive"), labeller)
    assert learner.judges() == {"oracles": [], "labellers": []}


def test_a_finished_run_is_not_run_twice(tmp_path, capsys, monkeypatch):
    config = small_config(tmp_path, "method=naive")
    folder = run(config)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr(Learner, "train", None)
    assert run(config) == folder
    assert "complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_setting_is_another_folder_and_the_place_is_not(tmp_path):
    folders = {
        small_config(tmp_path, *options).folder
        for options in (
            *([], ["seed=1"], ["method.lambd=2"], ["generator.steps=3"]),
            *(["method.look_ahead=2"], ["solver.look_ahead=2"]),
        )
    }
    assert len(folders) == 6
    elsewhere = small_config(tmp_path / "other", "threads=2", "device=cpu").folder
    assert elsewhere.relative_to(tmp_path / "other") in {
        folder.relative_to(tmp_path) for folder in folders
    }


def test_a_folder_in_use_is_refused(tmp_path, monkeypatch):
    config = small_config(tmp_path, "method=naive")

    def train(self, experience):
        monkeypatch.undo()
        run(config)  # a second time, while the first goes on

    monkeypatch.setattr(Learner, "train", train)
    with pytest.raises(ValueError, match="in use"):
        run(config)


def test_what_a_killed_run_left_is_removed_also_where_it_is_a_folder(tmp_path):
    config = small_config(tmp_path, "method=naive", "benchmark.n_experiences=1")
    name = f".x.avalanche-gd-{'0' * 16}"
    left = [config.folder / name, config.folder / "samples" / name]
    for path in left:
        (path / "below").mkdir(parents=True)
    run(config)
    assert not any(path.exists() for path in left)


def test_a_run_that_is_not_complete_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="no complete run"):
        read_run(tmp_path)
    folder = run(small_config(tmp_path, "method=naive"))
    truncate(folder / "run.json")
    with pytest.raises(ValueError, match="cut short"):
        read_run(folder)


@pytest.mark.parametrize(("device", "moved"), [("cpu", []), ("cuda", ["cuda"])])
def test_the_images_are_kept_on_the_device_of_the_run(tmp_path, monkeypatch, device, moved):
    seen = []
    config = small_config(tmp_path)

    def training(*_):
        raise Killed  # the images are where they stay

    monkeypatch.setattr(RunConfig, "torch_device", torch.device(device))
    monkeypatch.setattr(
        runs, "on_device", lambda benchmark, place: seen.append(place.type) or benchmark
    )
    monkeypatch.setattr(runs, "Learner", training)
    with pytest.raises(Killed):
        run(config)
    assert seen == moved
