"""The streams in model space."""

import gzip
import shutil
import struct

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from avalanche_gd import SplitCIFAR10, SplitDigits, SplitFMNIST, to_model_space
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.fashion_mnist import DEBIAN_ROOT, fashion_mnist_root
from avalanche_gd.data.model_space import dataset_tensors, on_device
from tests.conftest import truncate

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def idx_folder(tmp_path):
    """A folder with four small idx files of ten classes."""
    folder = tmp_path / "idx"
    folder.mkdir()
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("t10k", 20)):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder


def test_digits_are_those_of_scikit_learn_in_model_space(digits):
    images, labels = stream_tensors(digits.train_stream)
    test_images, test_labels = stream_tensors(digits.test_stream)
    ours = torch.cat([images, test_images]).reshape(-1, 64)
    bunch = load_digits()
    theirs = torch.tensor(bunch.data, dtype=torch.float32) / 8 - 1
    order = {tuple(row.tolist()): i for i, row in enumerate(theirs)}
    found = [order[tuple(row.tolist())] for row in ours]
    assert len(set(found)) == len(order) == 1797
    assert bunch.target[found].tolist() == torch.cat([labels, test_labels]).tolist()
    assert ours.dtype == torch.float32
    assert ours.min() == -1 and ours.max() == 1


def test_streams_on_a_device_are_the_same_streams(digits, monkeypatch):
    moved = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda self, d: moved.append(d) or to(self, d))
    there = on_device(digits, torch.device("cpu"))
    monkeypatch.undo()
    assert moved == [torch.device("cpu")] * 20  # images and labels, two streams of five
    for name in ("train", "test"):
        for ours, theirs in zip(there.streams[name], digits.streams[name], strict=True):
            own, others = dataset_tensors(ours.dataset), dataset_tensors(theirs.dataset)
            assert all(torch.equal(a, b) for a, b in zip(own, others, strict=True))
            classes = theirs.classes_in_this_experience
            assert ours.classes_in_this_experience == classes
            assert ours.origin_stream.benchmark is there


def test_the_seed_decides_the_class_order_and_nothing_else(digits):
    def order(benchmark):
        return [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]

    state = torch.get_rng_state()
    other = SplitDigits(5, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert order(SplitDigits(5)) == order(digits) != order(other)
    assert sorted(c for classes in order(other) for c in classes) == list(range(10))
    tests = [stream_tensors(b.test_stream)[0].flatten(1) for b in (digits, other)]
    assert {tuple(r) for r in tests[0].tolist()} == {tuple(r) for r in tests[1].tolist()}


def test_images_are_resized_once_and_labels_follow(digits):
    items = digits.train_stream[0].dataset
    assert items[0][0].data_ptr() == items[0][0].data_ptr()  # a view, not a copy
    large, labels = stream_tensors(SplitDigits(5, image_size=16).train_stream)
    small, same_labels = stream_tensors(digits.train_stream)
    assert labels.tolist() == same_labels.tolist()
    expected = F.interpolate((small + 1) / 2, (16, 16), mode="bilinear", antialias=True)
    assert (large - (2 * expected - 1)).abs().max() < 1e-6


def test_any_benchmark_of_pil_images_is_brought_to_model_space():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, 12, 3), dtype=np.uint8)

    class Pictures:
        targets = [0, 0, 1, 1, 0, 0, 1, 1]

        def __getitem__(self, index):
            return Image.fromarray(pixels[index]), self.targets[index]

        def __len__(self):
            return len(self.targets)

    benchmark = nc_benchmark(
        Pictures(),
        Pictures(),
        2,
        task_labels=True,
        shuffle=False,
        train_transform=lambda image: 1 / 0,  # its own transforms are not applied
    )
    images, labels = stream_tensors(to_model_space(benchmark, (3, 10, 12)).train_stream)
    assert labels.tolist() == [0] * 4 + [1] * 4
    expected = torch.tensor(pixels[[0, 1, 4, 5, 2, 3, 6, 7]]).permute(0, 3, 1, 2)
    assert (images - (expected / 127.5 - 1)).abs().max() < 1e-6


def test_images_keep_their_order_over_chunks(digits, monkeypatch):
    monkeypatch.setattr("avalanche_gd.data.model_space._CHUNK", 100)
    for name in ("train_stream", "test_stream"):
        whole = stream_tensors(getattr(digits, name))
        chunks = stream_tensors(getattr(SplitDigits(5), name))
        assert all(torch.equal(a, b) for a, b in zip(whole, chunks, strict=True))


@pytest.mark.parametrize("shape", [(3, 8, 8)])
def test_channels_that_do_not_fit_are_refused(digits, shape):
    with pytest.raises(ValueError, match="choose a preset with 1 channels"):
        to_model_space(digits, shape)


def test_floats_outside_the_unit_interval_are_refused():
    dataset = TensorDataset(torch.full((4, 1, 8, 8), 255.0), torch.tensor([0, 1, 0, 1]))
    dataset.targets = [0, 1, 0, 1]
    benchmark = nc_benchmark(dataset, dataset, 2, task_labels=False)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        to_model_space(benchmark, (1, 8, 8))


@pytest.mark.parametrize("benchmark", [SplitDigits, SplitFMNIST, SplitCIFAR10])
@pytest.mark.parametrize("n_experiences", [0, 3, 11])
def test_experiences_that_do_not_divide_the_classes_are_refused(benchmark, n_experiences):
    with pytest.raises(ValueError, match="choose n_experiences from 1, 2, 5, 10"):
        benchmark(n_experiences)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inside", ["", "FashionMNIST/raw"])
def test_a_folder_with_the_idx_files_is_a_root(idx_folder, tmp_path, packed, inside):
    root = tmp_path / "root"
    (root / inside).mkdir(parents=True)
    for name in NAMES:
        if packed:
            with gzip.open(root / inside / f"{name}.gz", "wb") as file:
                file.write((idx_folder / name).read_bytes())
        else:
            shutil.copy(idx_folder / name, root / inside)
    benchmark = SplitFMNIST(5, root=root, image_size=28)
    images, labels = stream_tensors(benchmark.train_stream)
    assert images.shape == (60, 1, 28, 28)
    pixels = np.frombuffer((idx_folder / NAMES[0]).read_bytes()[16:], np.uint8)
    expected = torch.tensor(pixels.reshape(60, 1, 28, 28).copy()) / 127.5 - 1
    first = int(labels[0])
    assert (images[0] - expected[first]).abs().max() < 1e-6


def test_a_root_without_the_data_set_is_refused(tmp_path, idx_folder):
    with pytest.raises(ValueError, match="no Fashion-MNIST in"):
        SplitFMNIST(5, root=tmp_path)
    (idx_folder / NAMES[3]).unlink()
    with pytest.raises(ValueError, match="give the folder that holds them"):
        SplitFMNIST(5, root=idx_folder)


def test_a_packed_file_cut_short_is_refused(tmp_path, idx_folder):
    for name in NAMES:
        with gzip.open(idx_folder / f"{name}.gz", "wb") as file:
            file.write((idx_folder / name).read_bytes())
        (idx_folder / name).unlink()
    truncate(idx_folder / f"{NAMES[0]}.gz")
    with pytest.raises(ValueError, match="cannot unpack"):
        fashion_mnist_root(idx_folder)


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("avalanche_gd.data.fashion_mnist.DEBIAN_ROOT", tmp_path)
    monkeypatch.setattr("avalanche_gd.data.fashion_mnist.AvalancheSplitFMNIST", offline)
    with pytest.raises(ValueError, match="apt-get install dataset-fashion-mnist"):
        SplitFMNIST(5)


@pytest.mark.skipif(
    not DEBIAN_ROOT.is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_debians_fashion_mnist_is_found_by_itself():
    benchmark = SplitFMNIST(5)
    sizes = [len(e.dataset) for e in benchmark.train_stream]
    assert sizes == [12_000] * 5
    images, _ = stream_tensors(benchmark.test_stream)
    assert images.shape == (10_000, 1, 16, 16)
    assert images.min() >= -1 and images.max() <= 1
