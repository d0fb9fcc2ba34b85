"""CIFAR as torchvision finds it on disk, in model space."""

import pickle

import numpy as np
import pytest
import torch
from avalanche.benchmarks.classic import SplitCIFAR10 as AvalancheSplitCIFAR10
from torchvision.datasets import CIFAR10, CIFAR100

from avalanche_gd import SplitCIFAR10, SplitCIFAR100, to_model_space
from avalanche_gd.data import stream_tensors


@pytest.fixture
def write(monkeypatch, tmp_path):
    """Write a small CIFAR in torchvision's format; gives the training pixels and labels."""

    def call(dataset, n_classes):
        # The checksums are those of the real files.
        monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
        random = np.random.default_rng(0)
        folder = tmp_path / dataset.base_folder
        folder.mkdir()
        key = "labels" if n_classes == 10 else "fine_labels"
        written = []
        for name, _ in dataset.train_list + dataset.test_list:
            rows = random.integers(0, 256, (2 * n_classes, 3072), dtype=np.uint8)
            labels = random.permutation(2 * n_classes) % n_classes
            (folder / name).write_bytes(pickle.dumps({"data": rows, key: labels.tolist()}))
            written.append((rows, labels))
        names = [f"class {i}" for i in range(n_classes)]
        meta = pickle.dumps({dataset.meta["key"]: names})
        (folder / dataset.meta["filename"]).write_bytes(meta)
        training = written[: len(dataset.train_list)]
        rows, labels = (np.concatenate(part) for part in zip(*training, strict=True))
        return torch.tensor(rows.reshape(-1, 3, 32, 32)), torch.tensor(labels)

    return call


@pytest.mark.parametrize(
    ("split", "dataset", "n_classes"),
    [(SplitCIFAR10, CIFAR10, 10), (SplitCIFAR100, CIFAR100, 100)],
)
def test_the_images_are_those_on_disk_in_model_space(
    write, tmp_path, split, dataset, n_classes
):
    pixels, expected_labels = write(dataset, n_classes)
    state = torch.get_rng_state()
    benchmark = split(root=tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    images, labels = stream_tensors(benchmark.train_stream)
    assert len(benchmark.train_stream) == {10: 5, 100: 10}[n_classes]
    assert sorted(labels.tolist()) == sorted(expected_labels.tolist())
    for experience in benchmark.train_stream:
        for label in experience.classes_in_this_experience:
            expected = pixels[expected_labels == label] / 127.5 - 1
            assert (images[labels == label] - expected).abs().max() < 1e-6
    assert stream_tensors(benchmark.test_stream)[0].shape == (2 * n_classes, 3, 32, 32)
    own = split(5, seed=3, root=tmp_path, shuffle=False)
    assert own.classes_order == list(range(n_classes))


@pytest.mark.parametrize(
    ("split", "dataset", "n_classes"),
    [(SplitCIFAR10, CIFAR10, 10), (SplitCIFAR100, CIFAR100, 100)],
)
def test_each_experience_has_as_many_classes(write, tmp_path, split, dataset, n_classes):
    write(dataset, n_classes)
    for number in (n for n in range(1, n_classes + 1) if n_classes % n == 0):
        benchmark = split(number, root=tmp_path, image_size=4)
        assert benchmark.n_classes_per_exp == [n_classes // number] * number


def test_the_seed_decides_the_class_order_and_the_size_is_chosen(write, tmp_path):
    write(CIFAR10, 10)

    def order(seed):
        stream = SplitCIFAR10(root=tmp_path, seed=seed, image_size=16).train_stream
        assert stream[0].dataset[0][0].shape == (3, 16, 16)
        return [sorted(e.classes_in_this_experience) for e in stream]

    assert order(0) == order(0) != order(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_streams_are_those_of_avalanche(write, tmp_path, seed):
    write(CIFAR10, 10)
    ours = SplitCIFAR10(root=tmp_path, seed=seed, image_size=16)
    theirs = AvalancheSplitCIFAR10(5, dataset_root=tmp_path, seed=seed)
    theirs = to_model_space(theirs, (3, 16, 16))
    for own, other in zip(ours.train_stream, theirs.train_stream, strict=True):
        pairs = zip(stream_tensors([own]), stream_tensors([other]), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("split", "name", "file"),
    [
        (SplitCIFAR10, "CIFAR-10", "cifar-10-python.tar.gz"),
        (SplitCIFAR100, "CIFAR-100", "cifar-100-python.tar.gz"),
    ],
)
def test_a_root_without_the_data_set_is_refused(tmp_path, split, name, file):
    with pytest.raises(ValueError, match=f"no {name} in .* {file}; give the folder"):
        split(root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    monkeypatch.setattr(
        "avalanche_gd.data.cifar.default_dataset_location",
        lambda name: tmp_path / name,
    )
    for split, file in (
        (SplitCIFAR10, "cifar-10-python.tar.gz"),
        (SplitCIFAR100, "cifar-100-python.tar.gz"),
    ):
        with pytest.raises(ValueError, match=rf"\(no network\); give .* undamaged {file}"):
            split()


def test_a_root_with_damaged_files_is_refused(monkeypatch, write, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no network")

    write(CIFAR10, 10)
    monkeypatch.undo()  # the checksums count again
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(ValueError, match="CIFAR-10 could not be read or downloaded"):
        SplitCIFAR10(root=tmp_path)


def test_experiences_that_do_not_divide_a_hundred_classes_are_refused():
    with pytest.raises(ValueError, match="choose n_experiences from 1, 2, 4, 5, 10, 20"):
        SplitCIFAR100(3)
