"""Copies of runs' results, for others to report on."""

import json
import os
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from avalanche_gd.report import report_command
from avalanche_gd.report.collect import collect
from avalanche_gd.report.publish import publish
from avalanche_gd.report.report_command import main
from avalanche_gd.report.tables import runs_as_csv
from avalanche_gd.runs.results import read_run
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_files import read_info
from tests.helpers.fake_runs import write_run
from tests.helpers.small_runs import small_config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run."""
    return run(small_config(tmp_path_factory.mktemp("mine"), "method=naive"))


def published(folders, to):
    return publish([read_run(folder) for folder in folders], to)


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_of_a_run_has_its_results_and_is_checked_as_it_is(whole, tmp_path):
    (copy,) = published([whole], tmp_path)
    assert copy.relative_to(tmp_path).parts == whole.parts[-3:]
    assert sorted(os.listdir(copy)) == ["config.yaml", "metrics.csv", "run.json"]
    reports = [runs_as_csv(collect([folder]).sections) for folder in (whole, copy)]
    assert reports[0] == reports[1]
    assert str(whole.parents[2]) not in (copy / "config.yaml").read_text()
    assert read_info(copy)["files"].keys() == read_info(whole)["files"].keys()
    for name in ("config.yaml", "metrics.csv", "run.json"):
        text = (copy / name).read_text()
        (copy / name).write_text(text.replace("0", "1", 1))
        with pytest.raises(ValueError, match=rf"{name} .*(changed|not the file)"):
            read_run(copy)
        (copy / name).write_text(text)


SEVERAL = {
    "other data": [{"benchmark.options.root": f"/{name}/cifar"} for name in "ab"],
    "other weights": [{"evaluation.weights_path": f"/{name}.pth"} for name in "ab"],
    "other steps": [{"generator.steps": steps} for steps in (1, 2)],
    "a path of one's own": [{"benchmark.options.list": f"/{name}/list"} for name in "ab"],
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_report_on_copies_is_that_on_the_runs(tmp_path, name):
    folders = [
        write_run(tmp_path / f"{i}", "naive", seed, settings=settings)
        for i, settings in enumerate(SEVERAL[name])
        for seed in (0, 1)
        if seed == i or name != "other data"
    ]
    for i, folder in enumerate(folders):  # of the names of runs, which do not collide
        folder = folder.rename(folder.with_name(f"{folder.name}-{i}"))
        folders[i] = folder
    published(folders, tmp_path / "to")
    before, after = (
        [
            (section.difference, list(section.methods), len(section.runs))
            for section in collect([folder]).sections
        ]
        for folder in (tmp_path / "to", tmp_path)
    )
    assert len(before) == len(after) == (1 if name == "other data" else 2)
    # The runs and the copies are the same runs, and the runs, with pictures, are shown.
    assert [part[1:] for part in before] == [part[1:] for part in after]
    kept = {run.folder for section in collect([tmp_path]).sections for run in section.runs}
    assert kept == set(folders)


def test_settings_that_say_where_files_are_do_not_tell_of_the_machine(tmp_path):
    teacher = tmp_path / "home" / "teacher"
    teacher.mkdir(parents=True)
    (teacher / "weights").write_text("1")
    plugin = {"_target_": "mine.Plugin", "teacher": str(teacher), "pattern": "/conv.*"}
    paths = {
        "benchmark.options": {"root": "/home/ada/data/cifar10", "fit": "pad"},
        "evaluation.labeller_weights": "/home/ada/resnet18.pth",
        "evaluation.weights_path": "/home/ada/mobilenet.pth",
        "method.teacher": str(teacher),
        "method.plugins": [plugin],
    }
    folder = write_run(tmp_path / "ada", "naive", settings=paths)
    (copy,) = published([folder], tmp_path / "to")
    for path in copy.iterdir():
        assert "/home/" not in path.read_text() and str(tmp_path) not in path.read_text()
    config = OmegaConf.load(copy / "config.yaml")
    assert config.out == "runs"
    assert config.benchmark.options == {"root": "cifar10", "fit": "pad"}
    assert config.evaluation.labeller_weights == "resnet18.pth"
    assert config.evaluation.weights_path == "mobilenet.pth"
    digest = config.method.teacher
    assert len(digest) == 64 and config.method.plugins[0].teacher == digest
    assert config.method.plugins[0].pattern == "/conv.*"  # of one's own
    (teacher / "weights").write_text("2")
    (other,) = published([folder], tmp_path / "other")
    assert OmegaConf.load(other / "config.yaml").method.teacher != digest
    assert published([copy], tmp_path / "again")  # a copy can be copied
    (teacher / "weights").unlink()
    teacher.rmdir()
    with pytest.raises(ValueError, match="teacher, which is gone"):
        published([folder], tmp_path / "third")


def test_text_that_is_not_latin_is_not_made_longer(tmp_path):
    long = {"benchmark.options": {f"option{i}": "Ж" * 1000 for i in range(100)}}
    folder = write_run(tmp_path, "naive", settings=long)
    text = yaml.safe_dump(OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")))
    assert len(text) > 2**18  # which would not be read
    path = folder / "config.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    (copy,) = published([folder], tmp_path / "to")
    assert read_run(copy).config["benchmark"] == read_run(folder).config["benchmark"]


def _of_other_settings(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("lambd: 1.0", "lambd: 9.0", 1))


def _of_other_results(folder):
    path = folder / "metrics.csv"
    path.write_text(path.read_text().replace("0.5", "0.25", 1))


IN_THE_WAY = {
    "other settings": (_of_other_settings, "other settings or results"),
    "other results": (_of_other_results, "other settings or results"),
    "a damaged run": (lambda folder: (folder / "run.json").unlink(), "is no copy"),
    "a file": (lambda folder: _file_at(folder), "is not a folder"),
    "a file above": (lambda folder: _file_at(folder.parent), "is not a folder"),
    "a link to nothing": (lambda folder: _link_at(folder), "is not a folder"),
}


def _emptied(path):
    for part in sorted(path.rglob("*"), reverse=True):
        part.rmdir() if part.is_dir() else part.unlink()
    path.rmdir()


def _file_at(path):
    _emptied(path)
    path.write_text("mine")


def _link_at(path):
    _emptied(path)
    path.symlink_to("nothing")


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_in_the_way_stays_and_nothing_is_written(tmp_path, what):
    change, message = IN_THE_WAY[what]
    folders = [write_run(tmp_path / "runs", method) for method in ("joint", "naive")]
    (copy,) = published(folders[1:], tmp_path / "to")
    change(copy)
    before = files_in(tmp_path / "to")
    with pytest.raises(ValueError, match=message):
        published(folders, tmp_path / "to")
    assert files_in(tmp_path / "to") == before
    assert not (tmp_path / "to" / "split_digits" / "joint").exists()


@pytest.mark.parametrize("place", ["", "samples", "samples/deep/.."])
def test_nothing_is_published_into_a_run(tmp_path, place):
    folder = write_run(tmp_path, "naive")
    with pytest.raises(ValueError, match="is inside the run"):
        published([folder], folder / place)


def test_a_copy_with_the_same_results_stays(whole, tmp_path):
    for seconds in (10.0, 20.0):
        folder = write_run(tmp_path / str(seconds), "naive", seconds=seconds)
        (copy,) = published([folder], tmp_path / "to")
        info = json.loads((copy / "run.json").read_text())
        assert info["seconds"]["generator"] == 10.0
        assert "files" not in info and "digest" not in info  # of an earlier version
    before = files_in(tmp_path / "to")
    assert published([copy], tmp_path / "to") == [copy]  # onto itself
    assert files_in(tmp_path / "to") == before
    before = files_in(whole)
    assert published([whole], whole.parents[2]) == [whole]
    assert files_in(whole) == before


def test_two_runs_that_would_be_one_folder_are_refused_before_one_is_copied(tmp_path):
    folders = [write_run(tmp_path / name, "naive", seed=0) for name in "ab"]
    _of_other_settings(folders[1])
    with pytest.raises(ValueError, match=r"would both be .*seed-0"):
        published(folders, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_run_that_was_renamed_gets_a_name_of_the_usual_form(tmp_path, monkeypatch):
    folders = [write_run(tmp_path / name, "naive") for name in "abc"]
    _of_other_settings(folders[1])
    folders[0] = folders[0].rename(tmp_path / ".mine")
    folders[1] = folders[1].rename(tmp_path / "theirs")
    link = tmp_path / "seed-7"
    link.symlink_to(folders[2])
    copies = published([folders[0], folders[1], link], tmp_path / "to")
    assert [path.name.partition("-")[0] for path in copies] == ["seed"] * 3
    assert copies[2].name == "seed-0" and len({*copies}) == 3
    monkeypatch.chdir(folders[2])
    (copy,) = published([Path()], tmp_path / "other")
    assert copy.name == "seed-0" and copy.parent.name == "naive"
    (section,) = collect([tmp_path / "to"]).sections
    assert len(section.methods) == 2


def test_a_run_that_changes_while_it_is_copied_leaves_nothing(tmp_path):
    folder = write_run(tmp_path, "naive")
    result = read_run(folder)
    _of_other_results(folder)
    with pytest.raises(ValueError, match="was changed while it was copied"):
        publish([result], tmp_path / "to")
    assert files_in(tmp_path / "to") == {}


def test_the_command_copies_complete_runs_and_says_how_many(tmp_path, call):
    write_run(tmp_path / "runs", "naive")
    write_run(tmp_path / "runs", "joint", experiences=2)
    to, out = tmp_path / "published", tmp_path / "report"
    words = [str(tmp_path / "runs"), "--out", str(out), "--publish", str(to)]
    status, printed, _ = call(main, *words)
    assert status == 0 and f"1 runs are published in {to}\n" in printed
    assert printed.endswith(f"{out / 'report.html'}\n")
    assert [path.parent.name for path in to.glob("*/*/*")] == ["naive"]
    assert call(main, str(to), "--out", str(out), "--publish", str(to))[0] == 0


def test_where_a_copy_cannot_be_written_there_is_one_line_and_no_report(tmp_path, call):
    write_run(tmp_path / "runs", "naive")
    (tmp_path / "file").write_text("mine")
    for to in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        words = [str(tmp_path / "runs"), "--out", str(tmp_path / "r"), "--publish", str(to)]
        status, _, errors = call(main, *words)
        (line,) = errors.splitlines()
        assert status == 2 and line.startswith("avalanche-gd-report: ")
        assert not (tmp_path / "r").exists()


def test_nothing_is_copied_if_the_report_cannot_be_drawn(tmp_path, call, monkeypatch):
    write_run(tmp_path / "runs", "naive")

    def render(*_):
        raise ValueError("a picture is damaged")

    monkeypatch.setattr(report_command, "render", render)
    words = [str(tmp_path / "runs"), "--publish", str(tmp_path / "to")]
    status, _, errors = call(main, *words)
    assert status == 2 and errors == "avalanche-gd-report: a picture is damaged\n"
    assert not (tmp_path / "to").exists()


def test_a_run_and_its_copy_count_once_also_without_the_teacher(tmp_path):
    own = {"method.teacher": "gone", "method.plugins": [{"teacher": "gone"}]}
    folder = write_run(tmp_path, settings=own, teachers=["c" * 64])
    (copy,) = published([folder], tmp_path / "to")
    assert OmegaConf.load(copy / "config.yaml").method.teacher == "c" * 64
    collection = collect([tmp_path])
    assert collection.duplicates == [(copy, folder)]
