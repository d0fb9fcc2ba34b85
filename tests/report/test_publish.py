"""Copies of runs' results, for others to report on."""

import json
import os

import pytest
from omegaconf import OmegaConf

from avalanche_gd.report.collect import collect
from avalanche_gd.report.report_command import main
from avalanche_gd.report.tables import runs_as_csv
from avalanche_gd.runs.publish import publish
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_files import read_info
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import small_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run."""
    return run(small_config(tmp_path_factory.mktemp("mine"), "method=naive"))


def test_a_report_on_the_copies_is_that_on_the_runs(whole, tmp_path):
    (copy,) = publish([read_run(whole)], tmp_path)
    assert copy.relative_to(tmp_path).parts == whole.parts[-3:]
    assert sorted(os.listdir(copy)) == ["config.yaml", "metrics.csv", "run.json"]
    reports = [runs_as_csv(collect([folder]).sections) for folder in (whole, copy)]
    assert reports[0] == reports[1]
    # As copies: what is changed afterwards is refused, as in a run.
    assert read_info(copy)["files"].keys() == read_info(whole)["files"].keys()
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("seed: 0", "seed: 1"))
    with pytest.raises(ValueError, match=r"not the file that run\.json was written with"):
        read_run(copy)


def test_no_path_of_the_machine_is_in_a_copy(tmp_path):
    paths = {
        "benchmark.options.root": "/home/ada/data/cifar10",
        "evaluation.labeller_weights": "~/weights/resnet18.pth",
        "method.plugins": [
            {"_target_": "mine.Plugin", "files": ["/home/ada/a.txt", "b/c"]}
        ],
    }
    own = {"benchmark": {"options": {"fit": "pad"}}}
    folder = write_run(tmp_path / "ada", "naive", settings=paths | own)
    (copy,) = publish([read_run(folder)], tmp_path / "to")
    for path in copy.iterdir():
        assert "/home/" not in path.read_text() and "~" not in path.read_text()
        assert str(tmp_path) not in path.read_text()
    config = OmegaConf.load(copy / "config.yaml")
    assert config.benchmark.options == {"root": "cifar10", "fit": "pad"}
    assert config.evaluation.labeller_weights == "resnet18.pth"
    assert config.method.plugins[0].of == ["a.txt", "b/c"]


def test_a_run_that_is_in_the_way_is_not_replaced(whole, call):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    out = whole.parents[2]
    status, _, errors = call(main, str(out), "--out", str(out / "r"), "--publish", str(out))
    assert status == 2 and errors == (
        f"avalanche-gd-report: {whole} is there and is not a copy; choose another folder\n"
    )
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert not (out / "r").exists()


def test_two_runs_of_one_name_are_refused_before_one_is_copied(tmp_path):
    folders = [write_run(tmp_path / name, "naive", seed=0) for name in "ab"]
    config = OmegaConf.load(folders[1] / "config.yaml")
    config.generator.steps += 1
    OmegaConf.save(config, folders[1] / "config.yaml")
    with pytest.raises(ValueError, match="is not the only one of split_digits, naive"):
        publish([read_run(folder) for folder in folders], tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_newer_copy_replaces_an_older_one(tmp_path):
    to = tmp_path / "to"
    for seconds in (10.0, 20.0):
        folder = write_run(tmp_path / str(seconds), "naive", seconds=seconds)
        (copy,) = publish([read_run(folder)], to)
        assert (
            json.loads((copy / "run.json").read_text())["seconds"]["generator"] == seconds
        )
    assert [path for path in to.rglob("*") if path.name.startswith(".")] == []


def test_the_command_copies_complete_runs_and_reports_on_all(tmp_path, call):
    write_run(tmp_path / "runs", "naive")
    write_run(tmp_path / "runs", "joint", experiences=2)
    to, out = tmp_path / "published", tmp_path / "report"
    words = [str(tmp_path / "runs"), "--out", str(out), "--publish", str(to)]
    status, printed, _ = call(main, *words)
    assert status == 0 and printed.endswith(f"{out / 'report.html'}\n")
    assert [path.parent.name for path in to.glob("*/*/*")] == ["naive"]
    for _ in range(2):  # a report on copies, which may copy them onto themselves
        assert call(main, str(to), "--out", str(out), "--publish", str(to))[0] == 0
