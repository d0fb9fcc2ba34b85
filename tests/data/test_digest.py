"""The digest of data: what it does not depend on, and what gives another."""

import os
from functools import partial

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from torch.utils.data import TensorDataset

from avalanche_gd import SplitDigits, SplitFMNIST, SplitImageFolder, SplitMNIST
from avalanche_gd.data import to_model_space
from avalanche_gd.data.digest import data_digest
from avalanche_gd.data.model_space import as_dataset, class_incremental, on_device
from tests.data.test_image_folder import write
from tests.helpers.fake_data import IDX_FILES, write_class_folders, write_idx

pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def idx_folder(tmp_path):
    return write_idx(tmp_path / "idx")


@pytest.fixture
def class_folders(tmp_path):
    return write_class_folders(tmp_path / "images")


PIXELS = torch.arange(24, dtype=torch.uint8).view(24, 1, 1, 1).repeat(1, 1, 4, 4)
LABELS = torch.arange(24) % 4


def split(pixels=PIXELS, labels=LABELS, n_experiences=4, seed=0, **options):
    """The last eight images are those for tests."""
    train, test = (as_dataset(pixels[s], labels[s]) for s in (slice(16), slice(16, None)))
    options = dict(image_size=4) | options
    return class_incremental(train, test, n_experiences, seed=seed, **options)


def test_all_seeds_and_numbers_of_experiences_have_one_digest(idx_folder, class_folders):
    makes = [
        *((SplitDigits, 5), (partial(SplitMNIST, root=idx_folder), 5)),
        *((partial(SplitImageFolder, root=class_folders), 2), (split_by(PIXELS / 255), 4)),
        (split_by(PIXELS), 4),
    ]
    found = set()
    for make, most in makes:
        benchmarks = [make(most), make(most, seed=3), make(1), make(most, shuffle=False)]
        orders = {str(b.classes_in_experience) for b in benchmarks}
        assert len(orders) > 1
        (digest,) = {data_digest(benchmark) for benchmark in benchmarks}
        assert len(digest) == 64
        found.add(digest)
    assert len(found) == len(makes)


def split_by(pixels):
    return lambda n_experiences, **options: split(
        pixels, n_experiences=n_experiences, **options
    )


def test_the_order_of_images_does_not_count_and_the_device_does_not():
    order = torch.cat([torch.arange(16).flip(0), torch.arange(16, 24).flip(0)])
    other = split(PIXELS[order], LABELS[order])
    assert data_digest(other) == data_digest(split())
    assert data_digest(on_device(other, torch.device("cpu"))) == data_digest(split())


def one_pixel():
    pixels = PIXELS.clone()
    pixels[20, 0, 3, 3] += 1
    return split(pixels)


def one_label():
    labels = LABELS.clone()
    labels[3] = 0
    return split(labels=labels)


def two_labels_exchanged():
    return split(labels=LABELS[[1, 0, *range(2, 24)]])


def an_image_for_tests_instead_of_for_training():
    return split(PIXELS[[20, *range(1, 20), 0, *range(21, 24)]])


@pytest.mark.parametrize(
    "change",
    [
        one_pixel,
        one_label,
        two_labels_exchanged,
        an_image_for_tests_instead_of_for_training,
        lambda: split(PIXELS[1:], LABELS[1:]),
        lambda: split(PIXELS[:-1], LABELS[:-1]),
        lambda: split(PIXELS[[0, *range(24)]], LABELS[[0, *range(24)]]),
        lambda: split(image_size=2),
        lambda: split(PIXELS / 255),
    ],
)
def test_other_data_have_another_digest(change):
    assert data_digest(change()) != data_digest(split())


def test_another_idx_file_or_fit_has_another_digest(idx_folder):
    first = data_digest(SplitFMNIST(5, root=idx_folder, image_size=28))
    assert data_digest(SplitMNIST(5, root=idx_folder, image_size=28)) == first
    sizes = (dict(image_size=32), dict(image_size=32, fit="pad"), dict(image_size=16))
    others = {data_digest(SplitFMNIST(5, root=idx_folder, **size)) for size in sizes}
    assert len(others | {first}) == 4
    file = idx_folder / IDX_FILES[2]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, (0, 0))
    assert data_digest(SplitFMNIST(5, root=idx_folder, image_size=28)) != first


def test_an_image_folder_is_known_by_its_content_and_not_by_its_place(class_folders):
    first = data_digest(SplitImageFolder(2, root=class_folders))
    moved = class_folders.rename(class_folders.with_name("moved"))
    assert data_digest(SplitImageFolder(2, root=moved)) == first
    assert data_digest(SplitImageFolder(2, root=moved, channels=1)) != first
    write(moved / "a" / "1.png", 0, (8, 8))
    changed = data_digest(SplitImageFolder(2, root=moved))
    (moved / "b" / "3.png").unlink()
    assert len({first, changed, data_digest(SplitImageFolder(2, root=moved))}) == 3


def avalanches(**options):
    dataset = TensorDataset(PIXELS / 255, LABELS)
    dataset.targets = LABELS.tolist()
    return nc_benchmark(dataset, dataset, 2, task_labels=False, **options)


def test_a_benchmark_of_ones_own_in_model_space_has_a_digest():
    ours = [to_model_space(avalanches(seed=seed), (1, 4, 4)) for seed in (0, 1)]
    assert data_digest(ours[0]) == data_digest(ours[1]) != ""


def test_images_that_are_not_stored_have_none():
    assert data_digest(avalanches()) == ""
    ours = to_model_space(avalanches(), (1, 4, 4))
    changed = ours.train_stream[1].dataset.replace_current_transform_group(torch.rand_like)
    ours.train_stream[1]._dataset = changed
    assert data_digest(ours) == ""
