"""One model on all data at once, and a new one that it teaches."""

import csv
import json
import shutil
from collections import defaultdict

import pytest
import torch

from avalanche_gd import DiffusionModel, DistillFromPlugin
from avalanche_gd.report.collect import collect
from avalanche_gd.report.tables import as_text, runs_as_csv
from avalanche_gd.runs.composition import compose_config, method_names
from avalanche_gd.runs.dry_run import dry_run
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import run
from avalanche_gd.storage import folder_digest
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.bits import same_bits, weights
from tests.helpers.small_runs import metrics, run_killed_after, small_config

IMAGES = 1437  # of the digits, in training


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The folder of a saved model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher") / "model"
    DiffusionModel.from_preset("digits").save_pretrained(folder)
    return folder


def distillation(out, teacher, *overrides):
    method = ["method=iid_distillation", f"method.teacher={teacher}"]
    return small_config(out, *method, *overrides)


@pytest.fixture
def trained(monkeypatch):
    """Notes of each step how many images there are to train on, by the model's type."""
    sizes, check = defaultdict(list), BudgetedTemplate._check_loss

    def noting(self):
        check(self)
        sizes[type(self.model).__name__].append(len(self.adapted_dataset))

    monkeypatch.setattr(BudgetedTemplate, "_check_loss", noting)
    return sizes


@pytest.mark.usefixtures("sketched")
def test_a_model_is_trained_on_all_data_in_the_steps_of_all_experiences(
    tmp_path, trained, capsys
):
    folder = run(small_config(tmp_path, "method=iid", "solver.steps=3"))
    assert trained == {"DiffusionModel": [IMAGES] * 10, "SmallCNN": [IMAGES] * 15}
    result = read_run(folder)
    assert {row.experience for row in result.rows} == {4}
    names = {row.metric for row in result.rows}
    for place in range(5):
        assert f"generator/FID_Exp/eval_phase/test_stream/Exp{place:03d}" in names
    assert result.info["cost"]["F_per_step"] == 3.0
    card = (folder / "model" / "README.md").read_text()
    for text in (card, capsys.readouterr().out):  # nothing was learned before
        assert "FID" in text and "orgetting" not in text and "F_of_FID" not in text


def test_the_learning_rate_falls_for_as_large_a_part(tmp_path):
    decay = ["generator.steps=4", "generator.decay_steps=2"]
    budget = small_config(tmp_path, "method=iid", *decay).budget("generator")
    assert (budget.steps, budget.decay_steps) == (20, 10)
    budget = small_config(tmp_path, "method=joint", *decay).budget("generator")
    assert (budget.steps, budget.decay_steps) == (4, 2)


@pytest.mark.usefixtures("sketched")
def test_epochs_are_as_many(tmp_path, trained):
    epochs = ["generator.steps=null", "generator.epochs=1", "generator.batch_size=128"]
    run(small_config(tmp_path, "method=iid", *epochs))
    assert len(trained["DiffusionModel"]) == -(-IMAGES // 128)


@pytest.mark.usefixtures("sketched")
def test_it_stands_beside_the_last_experience_of_other_methods(tmp_path, teacher):
    for method in ("iid", "joint"):
        run(small_config(tmp_path, f"method={method}"))
    folder = run(distillation(tmp_path, teacher))
    assert not any(row.metric.startswith("solver/") for row in read_run(folder).rows)
    (section,) = collect([tmp_path]).sections
    rows = list(csv.DictReader(runs_as_csv([section]).splitlines()))
    known = {
        name: [row["experience"] for row in rows if row["method"] == name and row["FID"]]
        for name in section.methods
    }
    assert known == {"iid": ["5"], "joint": list("12345"), "iid_distillation": ["5"]}
    assert {"iid", "joint", "iid_distillation"} <= set(as_text([section]).split())
    oracles = {tuple(one.info["oracles"]) for one in section.runs}
    assert len(oracles) == 1  # so FID is in the same features


@pytest.mark.usefixtures("sketched")
def test_a_killed_run_reaches_the_same_numbers(tmp_path, teacher):
    folder = run(distillation(tmp_path / "whole", teacher))
    config = distillation(tmp_path / "killed", teacher)
    run_killed_after(4, config)
    assert metrics(run(config)) == metrics(folder)
    (config.folder / "run.json").unlink()  # and from its checkpoint
    assert metrics(run(config)) == metrics(folder)


def test_a_check_works(tmp_path, digits, teacher):
    for config in (small_config(tmp_path, "method=iid"), distillation(tmp_path, teacher)):
        assert "works; about" in dry_run(config, digits)


def test_the_name_of_a_run_holds_what_its_teacher_is_and_not_where(tmp_path, teacher):
    def name(folder):
        return distillation(tmp_path, folder).folder.name

    moved = tmp_path / "moved"
    shutil.copytree(teacher, moved)
    before = name(teacher)
    assert name(moved) == before
    state = json.loads((moved / "avalanche_gd.json").read_text())
    (moved / "avalanche_gd.json").write_text(json.dumps(state | {"sampling_seed": 7}))
    assert name(moved) != before


def test_a_teacher_may_be_below_the_home_folder(tmp_path, teacher, monkeypatch):
    monkeypatch.setenv("HOME", str(teacher.parent))
    name = distillation(tmp_path, teacher).folder.name
    assert distillation(tmp_path, "~/model").folder.name == name
    expected = weights(DiffusionModel.from_pretrained(teacher))
    assert same_bits(weights(DistillFromPlugin("~/model").teacher), expected)


@pytest.mark.usefixtures("sketched")
def test_seeds_with_one_teacher_are_one_method_wherever_it_is(
    tmp_path, teacher, monkeypatch
):
    monkeypatch.chdir(teacher.parent)
    for seed, place in enumerate((teacher, teacher.name)):
        folder = run(distillation(tmp_path, place, f"seed={seed}"))
        assert read_run(folder).info["teachers"] == [folder_digest(teacher)]
    (section,) = collect([tmp_path]).sections
    assert list(section.methods) == ["iid_distillation"]


def test_a_method_that_needs_a_setting_is_not_among_all():
    assert "iid" in method_names() and "iid_distillation" not in method_names()


REFUSED = {
    "no teacher": (
        ["method=iid_distillation"],
        "no value for method.teacher; give method.",
    ),
    "a teacher that is not there": (
        ["method=iid_distillation", "method.teacher=nowhere"],
        "method=iid_distillation: no complete model in nowhere",
    ),
    "replay in no solver": (
        ["method=generative_replay", "+method.solver=false"],
        "method.solver_replays needs a method.generator to replay from, and a solver",
    ),
    "neither model": (
        ["method=solver_naive", "+method.solver=false"],
        "method.solver=false needs a method.generator to train",
    ),
    "the last experience alone": (
        ["method=naive", "+method.all_at_once=true"],
        "method.all_at_once needs method.cumulative",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(overrides, message):
    with pytest.raises(ValueError) as refused:
        compose_config(overrides)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) == 1
