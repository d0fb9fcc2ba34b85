"""The streams in model space."""

import gzip
import os
import shutil
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.classic import SplitFMNIST as AvalancheSplitFMNIST
from avalanche.benchmarks.classic import SplitMNIST as AvalancheSplitMNIST
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from avalanche_gd import (
    SplitCIFAR10,
    SplitCIFAR100,
    SplitDigits,
    SplitFMNIST,
    SplitImageFolder,
    SplitMNIST,
    to_model_space,
)
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.fashion_mnist import DEBIAN_ROOT
from avalanche_gd.data.model_space import as_dataset, dataset_tensors, on_device
from tests.helpers.bits import truncate
from tests.helpers.fake_data import IDX_FILES as NAMES
from tests.helpers.fake_data import write_class_folders, write_idx
from tests.helpers.seeding import forbid_seeding


@pytest.fixture
def idx_folder(tmp_path):
    """A folder with four small idx files of ten classes."""
    return write_idx(tmp_path / "idx")


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


def test_the_test_digits_have_the_classes_in_proportion(digits):
    labels = stream_tensors(digits.test_stream)[1]
    share = np.bincount(load_digits().target) * len(labels) / 1797
    assert np.abs(np.bincount(labels.numpy()) - share).max() < 1


@pytest.mark.parametrize(
    "make",
    [
        lambda idx, folder: SplitDigits(5, seed=3),
        lambda idx, folder: SplitFMNIST(5, seed=3, root=idx),
        lambda idx, folder: SplitMNIST(5, seed=3, root=idx),
        lambda idx, folder: SplitImageFolder(2, seed=3, root=write_class_folders(folder)),
        lambda idx, folder: to_model_space(SplitDigits(5), (1, 8, 8)),
    ],
)
def test_no_benchmark_reseeds_a_device(idx_folder, tmp_path, monkeypatch, make):
    (tmp_path / "images").mkdir()
    state = torch.get_rng_state()
    with monkeypatch.context() as patch:
        forbid_seeding(patch)
        make(idx_folder, tmp_path / "images")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("n_experiences", [1, 2, 5, 10])
def test_the_class_order_is_that_of_avalanche_and_no_device_is_reseeded(
    digits, monkeypatch, n_experiences
):
    images, labels = stream_tensors(digits.train_stream)
    for seed in range(3):
        theirs = nc_benchmark(
            as_dataset(images, labels),
            as_dataset(images, labels),
            n_experiences,
            task_labels=False,
            seed=seed,
        )
        with monkeypatch.context() as patch:
            patch.setattr("torch.cuda.manual_seed_all", None)  # would fail if called
            ours = SplitDigits(n_experiences, seed=seed)
        for own, other in zip(ours.train_stream, theirs.train_stream, strict=True):
            assert list(own.dataset.targets) == list(other.dataset.targets)


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
    ours = to_model_space(benchmark, (3, 10, 12))
    assert [e.task_label for e in benchmark.train_stream] == [0, 1]
    assert [e.task_label for e in ours.train_stream] == [0, 0]
    images, labels = stream_tensors(ours.train_stream)
    assert labels.tolist() == [0] * 4 + [1] * 4
    expected = torch.tensor(pixels[[0, 1, 4, 5, 2, 3, 6, 7]]).permute(0, 3, 1, 2)
    assert (images - (expected / 127.5 - 1)).abs().max() < 1e-6


def test_images_keep_their_order_however_many_there_are():
    unit = torch.linspace(0, 1, 3000).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    labels = (unit[:, 0, 0, 0] > 0.7).long()
    dataset = TensorDataset(unit, labels)
    dataset.targets = labels.tolist()
    benchmark = to_model_space(
        nc_benchmark(dataset, dataset, 1, task_labels=False), (1, 2, 2)
    )
    for stream in (benchmark.train_stream, benchmark.test_stream):
        found, found_labels = stream_tensors(stream)
        assert (found - (2 * unit - 1)).abs().max() < 1e-6
        assert torch.equal(found_labels, labels)


@pytest.mark.parametrize("shape", [(3, 8, 8)])
def test_channels_that_do_not_fit_are_refused(digits, shape):
    with pytest.raises(ValueError, match="choose a preset with 1 channels"):
        to_model_space(digits, shape)


@pytest.mark.parametrize(
    ("make", "n_classes"),
    [(SplitDigits, 10), (SplitFMNIST, 10), (SplitMNIST, 10), (SplitImageFolder, 2)],
)
def test_each_experience_has_as_many_classes(idx_folder, tmp_path, make, n_classes):
    options = {}
    if make in (SplitFMNIST, SplitMNIST):
        options["root"] = idx_folder
    elif make is SplitImageFolder:
        options["root"] = write_class_folders(tmp_path / "images")
    for number in (n for n in range(1, n_classes + 1) if n_classes % n == 0):
        benchmark = make(number, **options)
        assert benchmark.n_classes_per_exp == [n_classes // number] * number
        in_test = benchmark.classes_in_experience["test"]
        assert in_test == benchmark.classes_in_experience["train"]


@pytest.mark.parametrize("benchmark", [SplitDigits, SplitFMNIST, SplitMNIST, SplitCIFAR10])
@pytest.mark.parametrize("n_experiences", [0, 3, 11, 2.5, 5.0, "5", True])
def test_experiences_that_do_not_divide_the_classes_are_refused(benchmark, n_experiences):
    with pytest.raises(ValueError, match="choose n_experiences from 1, 2, 5, 10"):
        benchmark(n_experiences)


@pytest.mark.parametrize(
    "make",
    [
        *(SplitDigits, SplitFMNIST, SplitMNIST, SplitCIFAR10, SplitCIFAR100),
        partial(SplitImageFolder, root="images"),
    ],
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seed", value) for value in (-1, 1.9, "0", True, 2**64)),
        *(("image_size", value) for value in (0, 8.5, "8", True)),
    ],
)
def test_a_seed_or_a_size_that_is_none_is_refused(tmp_path, monkeypatch, make, name, value):
    write_class_folders(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{name} must be an integer (of|from) [01]"):
        make(1, **{name: value})


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_a_seed_may_be_of_numpy(tmp_path, kind):
    folder = write_class_folders(tmp_path / "images")
    for make in (SplitDigits, partial(SplitImageFolder, root=folder)):
        orders = [make(1, seed=seed).classes_order for seed in (3, kind(3))]
        assert orders[0] == orders[1]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("make", "inside"),
    [
        *((SplitFMNIST, ""), (SplitFMNIST, "FashionMNIST/raw")),
        *((SplitMNIST, ""), (SplitMNIST, "MNIST/raw")),
    ],
)
def test_a_folder_with_the_idx_files_is_a_root(idx_folder, tmp_path, packed, make, inside):
    root = tmp_path / "root"
    (root / inside).mkdir(parents=True)
    for name in NAMES:
        if packed:
            with gzip.open(root / inside / f"{name}.gz", "wb") as file:
                file.write((idx_folder / name).read_bytes())
        else:
            shutil.copy(idx_folder / name, root / inside)
    benchmark = make(5, root=root, image_size=28)
    images, labels = stream_tensors(benchmark.train_stream)
    assert images.shape == (60, 1, 28, 28)
    pixels = np.frombuffer((idx_folder / NAMES[0]).read_bytes()[16:], np.uint8)
    expected = torch.tensor(pixels.reshape(60, 1, 28, 28).copy()) / 127.5 - 1
    first = int(labels[0])
    assert (images[0] - expected[first]).abs().max() < 1e-6


def test_a_root_without_the_data_set_is_refused(tmp_path, idx_folder):
    for make, name in ((SplitFMNIST, "Fashion-MNIST"), (SplitMNIST, "MNIST")):
        with pytest.raises(ValueError, match=f"no {name} in"):
            make(5, root=tmp_path)
    (idx_folder / NAMES[3]).unlink()
    with pytest.raises(ValueError, match="give the folder that has them"):
        SplitFMNIST(5, root=idx_folder)


def pack(folder) -> None:
    for name in NAMES:
        with gzip.open(folder / f"{name}.gz", "wb") as file:
            file.write((folder / name).read_bytes())
        (folder / name).unlink()


def test_packed_files_are_unpacked_once(idx_folder, monkeypatch):
    pack(idx_folder)
    first = stream_tensors(SplitFMNIST(5, root=idx_folder).train_stream)
    monkeypatch.setattr("gzip.open", None)  # would fail if called
    again = stream_tensors(SplitFMNIST(5, root=idx_folder).train_stream)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    os.utime(idx_folder / f"{NAMES[0]}.gz", (0, 0))
    with pytest.raises(ValueError, match="cannot read"):
        SplitFMNIST(5, root=idx_folder)


@pytest.mark.parametrize("seed", [0, 1, 7])
@pytest.mark.parametrize("image_size", [16, 28])
def test_the_streams_are_those_of_avalanche(idx_folder, tmp_path, seed, image_size):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.parent.mkdir()
    idx_folder.rename(raw)
    ours = SplitFMNIST(5, seed=seed, root=tmp_path, image_size=image_size)
    theirs = AvalancheSplitFMNIST(5, seed=seed, dataset_root=tmp_path)
    theirs = to_model_space(theirs, (1, image_size, image_size))
    for name in ("train", "test"):
        for own, other in zip(ours.streams[name], theirs.streams[name], strict=True):
            pairs = zip(
                dataset_tensors(own.dataset), dataset_tensors(other.dataset), strict=True
            )
            assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("image_size", [16, 28])
def test_mnist_is_that_of_avalanche(idx_folder, tmp_path, image_size):
    (tmp_path / "MNIST").mkdir()
    idx_folder.rename(tmp_path / "MNIST" / "raw")
    ours = SplitMNIST(5, seed=3, root=tmp_path, image_size=image_size)
    theirs = AvalancheSplitMNIST(5, seed=3, dataset_root=tmp_path)
    theirs = to_model_space(theirs, (1, image_size, image_size))
    # theirs are floats, which are resized without rounding to 8 bits
    rounding = 1e-6 if image_size == 28 else 2 / 255
    for name in ("train", "test"):
        for own, other in zip(ours.streams[name], theirs.streams[name], strict=True):
            images, labels = dataset_tensors(own.dataset)
            others, other_labels = dataset_tensors(other.dataset)
            assert (images - others).abs().max() < rounding
            assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("make", [SplitFMNIST, SplitMNIST])
@pytest.mark.parametrize(("image_size", "before"), [(28, 0), (31, 1), (32, 2)])
def test_padded_images_are_the_originals_in_a_black_border(
    idx_folder, make, image_size, before
):
    plain = stream_tensors(make(5, root=idx_folder, image_size=28).train_stream)[0]
    padded = make(5, root=idx_folder, image_size=image_size, fit="pad")
    images, _ = stream_tensors(padded.train_stream)
    assert images.shape == (60, 1, image_size, image_size)
    inside = slice(before, before + 28)
    assert torch.equal(images[:, :, inside, inside], plain)
    images[:, :, inside, inside] = -1
    assert (images == -1).all()


def test_a_fit_that_is_unknown_or_too_small_is_refused_before_anything_is_read(tmp_path):
    for make in (SplitFMNIST, SplitMNIST):
        with pytest.raises(ValueError, match="no fit 'crop'; choose from resize, pad"):
            make(5, root=tmp_path, fit="crop")
        with pytest.raises(ValueError, match="28x28 cannot be padded to 27x27; choose"):
            make(5, root=tmp_path, image_size=27, fit="pad")


def test_classes_come_in_their_own_order_whatever_the_seed(idx_folder, tmp_path):
    folders = write_class_folders(tmp_path / "images")
    makes = [
        *(SplitDigits, partial(SplitFMNIST, root=idx_folder)),
        *(partial(SplitMNIST, root=idx_folder), partial(SplitImageFolder, root=folders)),
    ]
    for make, seed in product(makes, (0, 3)):
        benchmark = make(2, seed=seed, shuffle=False)
        order = list(range(benchmark.n_classes))
        assert benchmark.classes_order == order
        half = benchmark.n_classes // 2
        halves = [set(order[:half]), set(order[half:])]
        assert benchmark.original_classes_in_exp == halves


def cut_short(folder):
    truncate(folder / NAMES[0])


def cut_short_when_packed(folder):
    pack(folder)
    truncate(folder / f"{NAMES[0]}.gz")


def empty(folder):
    (folder / NAMES[1]).write_bytes(b"")


def no_idx(folder):
    (folder / NAMES[2]).write_text("not an idx file")


def labels_of_no_class(folder):
    content = (folder / NAMES[3]).read_bytes()
    (folder / NAMES[3]).write_bytes(content[:-1] + b"\xff")


def labels_for_images(folder):
    shutil.copy(folder / NAMES[1], folder / NAMES[0])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, f"cannot read .*{NAMES[0]} .*; replace it"),
        (cut_short_when_packed, f"cannot read .*{NAMES[0]}.gz .*; replace it"),
        (empty, f"cannot read .*{NAMES[1]} .*; replace it"),
        (no_idx, f"cannot read .*{NAMES[2]} .*; replace it"),
        (
            labels_of_no_class,
            f"{NAMES[2]} and {NAMES[3]} are not 28x28 images of ten",
        ),
        (
            labels_for_images,
            f"{NAMES[0]} and {NAMES[1]} are not 28x28 images of ten",
        ),
    ],
)
def test_damaged_files_are_refused_in_one_line(idx_folder, damage, message):
    damage(idx_folder)
    for _ in range(2):
        with pytest.raises(ValueError, match=message) as caught:
            SplitFMNIST(5, root=idx_folder)
        assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def no_debian(tmp_path, monkeypatch):
    """The root that torchvision downloads to; Debian's package is not there."""
    monkeypatch.setattr("avalanche_gd.data.fashion_mnist.DEBIAN_ROOT", tmp_path)
    for name in ("mnist", "fmnist"):
        monkeypatch.setattr(
            f"avalanche.benchmarks.datasets.external_datasets.{name}.default_dataset_location",
            lambda name: tmp_path / name,
        )
    return tmp_path


@pytest.mark.parametrize(
    ("make", "raw"),
    [(SplitFMNIST, "fashionmnist/FashionMNIST/raw"), (SplitMNIST, "mnist/MNIST/raw")],
)
def test_without_local_files_torchvision_downloads(
    idx_folder, no_debian, monkeypatch, make, raw
):
    def download(url, download_root, filename, md5):
        shutil.copy(idx_folder / filename.removesuffix(".gz"), download_root)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", download)
    ours = stream_tensors(make(5).train_stream)
    assert (no_debian / raw / NAMES[0]).is_file()
    local = stream_tensors(make(5, root=idx_folder).train_stream)
    assert all(torch.equal(a, b) for a, b in zip(ours, local, strict=True))


def test_a_failed_download_says_what_to_do_in_one_line(no_debian, monkeypatch):
    def offline(*args, **kwargs):
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    hints = {
        SplitFMNIST: "apt-get install dataset-fashion-mnist",
        SplitMNIST: "give the fo",
    }
    for make, hint in hints.items():
        with pytest.raises(ValueError, match=f"no network.*{hint}") as caught:
            make(5)
        assert len(str(caught.value).splitlines()) == 1


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
