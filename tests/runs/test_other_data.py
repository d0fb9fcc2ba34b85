"""A run's name does not say what its data are, so that its record has to."""

import shutil
from itertools import chain

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_pil_image

from avalanche_gd.data.benchmark import as_benchmark
from avalanche_gd.data.model_space import as_dataset
from avalanche_gd.runs.learner import Learner
from avalanche_gd.runs.results import is_complete
from avalanche_gd.runs.run import run
from avalanche_gd.runs.run_files import read_info
from tests.helpers.fake_data import folder_of_images
from tests.helpers.small_runs import small_config


@pytest.fixture
def config_of(tmp_path):
    """The settings of a run on such images."""

    def make(name, *more):
        data = ["benchmark=image_folder", f"+benchmark.options.root={tmp_path / name}"]
        two = ["benchmark.n_classes=2", "benchmark.n_experiences=2", "method=solver_naive"]
        options = ["benchmark.options.channels=1", "model=digits"]
        return small_config(tmp_path / "runs", *data, *two, *options, *more)

    for name, shade in (("cats", 10), ("xrays", 200)):
        folder_of_images(tmp_path / name, shade)
    return make


def counted_from_one(n_experiences, seed, image_size):
    """Two classes, 1 and 2, in as many experiences."""
    parts = [as_dataset(torch.zeros(4, 1, 8, 8), torch.full((4,), n)) for n in (1, 2)]
    return as_benchmark(train=parts, test=parts)


def test_classes_that_are_not_counted_from_0_are_refused(tmp_path):
    data = ["benchmark._target_=tests.runs.test_other_data.counted_from_one"]
    two = ["benchmark.n_classes=2", "benchmark.n_experiences=2", "benchmark.name=own"]
    message = "classes of own must be numbered from 0 to 1, but are 1, 2; number them anew"
    with pytest.raises(ValueError, match=message):
        run(small_config(tmp_path, *data, *two, "method=naive"))


def in_parts(n_experiences, seed, image_size, train, test):
    """Experiences of the classes that are given, by stream."""

    def stream(parts):
        labels = [torch.tensor(part).repeat(4) for part in parts]
        return [as_dataset(torch.zeros(len(own), 1, 8, 8), own) for own in labels]

    return as_benchmark(train=stream(train), test=stream(test))


@pytest.fixture
def parts_config(tmp_path):
    """The settings of a run on such experiences."""

    def make(train, test):
        data = ["benchmark._target_=tests.runs.test_other_data.in_parts"]
        data += ["benchmark.name=own", f"benchmark.n_experiences={len(train)}"]
        data += [f"benchmark.n_classes={len(set(chain(*train)))}"]
        data += [f"+benchmark.options.train={train}", f"+benchmark.options.test={test}"]
        return small_config(tmp_path, *data, "method=solver_naive")

    return make


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ([[2, 3], [0, 1]], "test experience 1 of own has the class 2, which is in none of"),
        ([[0, 1], [2, 3, 4]], "test experience 2 of own has the class 4, which is in none"),
    ],
    ids=["another order", "a class without training"],
)
def test_tests_of_what_is_not_trained_yet_are_refused_before_training(
    parts_config, test, message, monkeypatch
):
    monkeypatch.setattr(Learner, "train", pytest.fail)
    with pytest.raises(ValueError, match=message):
        run(parts_config([[0, 1], [2, 3]], test))


@pytest.mark.parametrize("test", [[[0], [1, 2]], [[0], [0, 1, 2]]], ids=["own", "all"])
def test_experiences_of_unequal_numbers_of_classes_are_run(parts_config, test):
    folder = run(parts_config([[0], [1, 2]], test))
    assert is_complete(folder)


def shaded(n_experiences, seed, image_size, root, too_many=0):
    """Two classes in as many experiences, and a transform, so that no digest is known."""
    shade = float(root.rpartition("-")[2])
    parts = [
        as_dataset(torch.full((4, 1, 8, 8), shade), torch.full((4,), n)) for n in (0, 1)
    ]
    parts = [part.replace_current_transform_group((torch.neg, None)) for part in parts]
    return as_benchmark(train=parts + parts[:too_many], test=parts)


@pytest.fixture
def shaded_config(tmp_path):
    """The settings of a run on such data."""

    def make(root, *more):
        data = ["benchmark._target_=tests.runs.test_other_data.shaded"]
        two = ["benchmark.n_classes=2", "benchmark.n_experiences=2", "benchmark.name=own"]
        places = [f"+benchmark.options.root={tmp_path / root}", f"out={tmp_path}/runs"]
        return small_config(tmp_path, *data, *two, *places, "method=solver_naive", *more)

    for name in ("a-0.1", "b-0.2"):
        (tmp_path / name).mkdir()
    return make


def test_a_run_whose_data_have_no_digest_is_not_taken_for_that_of_another_root(
    shaded_config,
):
    folder = run(shaded_config("a-0.1"))
    assert read_info(folder)["data"] == ""
    run(shaded_config("a-0.1"))
    with pytest.raises(ValueError, match="is of other data than these; give another out="):
        run(shaded_config("b-0.2"))


def test_streams_of_other_numbers_of_experiences_are_refused(shaded_config):
    message = "own has 3 training and 2 test experiences, but benchmark.n_experiences is 2"
    with pytest.raises(ValueError, match=message):
        run(shaded_config("a-0.1", "+benchmark.options.too_many=1"))


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


def nothing(n_experiences, seed, image_size):
    """No benchmark."""


def as_pictures(n_experiences, seed, image_size):
    """A benchmark that nobody brought to model space."""
    data = TensorDataset(torch.zeros(2, 1, 8, 8), torch.arange(2))
    data.targets = [0, 1]
    how = dict(task_labels=False, train_transform=to_pil_image, eval_transform=to_pil_image)
    return nc_benchmark(data, data, 2, **how)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (nothing, r"own is a NoneType; .*nothing must return an Avalanche benchmark with"),
        (as_pictures, r"an image of own is a Image, .*as_pictures bring it to model space"),
    ],
)
def test_a_benchmark_of_ones_own_that_cannot_be_used_is_refused_in_one_line(
    tmp_path, make, message
):
    own = ["benchmark.name=own", f"benchmark._target_={__name__}.{make.__name__}"]
    two = ["benchmark.n_classes=2", "benchmark.n_experiences=2", "method=solver_naive"]
    with pytest.raises(ValueError, match=message):
        run(small_config(tmp_path / "runs", *own, *two))
    assert not (tmp_path / "runs").exists()
