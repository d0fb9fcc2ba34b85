"""A run's name does not say what its data are, so that its record has to."""

import shutil

import pytest
from PIL import Image

from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_files import read_info
from tests.helpers.small_runs import small_config


def folder_of_images(folder, shade):
    """Ten images of each of two classes, for training and for testing."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            (folder / part / name).mkdir(parents=True)
            for i in range(10):
                image = Image.new("L", (8, 8), shade + i)
                image.save(folder / part / name / f"{i}.png")
    return folder


@pytest.fixture
def config_of(tmp_path):
    """The settings of a run on such images."""

    def make(name, *more):
        data = ["benchmark=image_folder", f"benchmark.options.root={tmp_path / name}"]
        two = ["benchmark.n_classes=2", "benchmark.n_experiences=2", "method=solver_naive"]
        options = ["benchmark.options.channels=1", "model=digits"]
        return small_config(tmp_path / "runs", *data, *two, *options, *more)

    for name, shade in (("cats", 10), ("xrays", 200)):
        folder_of_images(tmp_path / name, shade)
    return make


def test_a_finished_run_is_not_taken_for_one_of_other_data(config_of, tmp_path, capsys):
    folder = run(config_of("cats"))
    assert len(read_info(folder)["data"]) == 64
    assert config_of("xrays").folder == folder
    with pytest.raises(ValueError, match="is of other data than these; give another out="):
        run(config_of("xrays"))
    shutil.copytree(tmp_path / "cats", tmp_path / "copied")
    capsys.readouterr()
    for name in ("cats", "copied", "gone"):  # where they are does not matter
        run(config_of(name))
    assert capsys.readouterr().out.count("complete: ") == 3
    other = run(config_of("xrays", "benchmark.name=xrays"))
    assert read_info(other)["data"] != read_info(folder)["data"]


def test_a_run_does_not_go_on_with_other_data(config_of, monkeypatch):
    trained = []
    train = Learner.train

    def stop_after_one(self, experience):
        if trained:
            raise KeyboardInterrupt
        trained.append(experience)
        train(self, experience)

    with monkeypatch.context() as context:
        context.setattr(Learner, "train", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(config_of("cats"))
    with pytest.raises(ValueError, match="is of other data than these"):
        run(config_of("xrays"))
    info = read_info(run(config_of("cats")))
    assert info["completed"] and [time["after_experience"] for time in info["times"]] == [
        0,
        1,
    ]
