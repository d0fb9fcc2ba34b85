"""Images that stay in a file of the cache."""

import os

import pytest
import torch

from avalanche_gd import SplitImageFolder
from avalanche_gd.data import to_model_space
from avalanche_gd.data.images import place_of
from avalanche_gd.data.stored_images import StoredImages, stored_images
from avalanche_gd.storage import cache_folder
from tests.data.test_image_folder import write_classes
from tests.helpers.bits import truncate

pytestmark = pytest.mark.usefixtures("empty_cache")

SHAPE = (7, 3, 4, 5)
PIXELS = torch.randint(
    0, 256, SHAPE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def stored(key="key", make=lambda: iter(PIXELS), shape=SHAPE):
    return stored_images("test", (key,), shape, make)


def read(images):
    return torch.stack([images[index] for index in range(len(images))])


def test_they_are_made_once_for_a_key_and_a_shape():
    assert torch.equal(read(stored()), PIXELS)
    assert torch.equal(read(stored(make=None)), PIXELS)  # would fail if called
    for other in (dict(key="other"), dict(shape=(7, 3, 5, 4))):
        with pytest.raises(TypeError):
            stored(make=None, **other)


def test_a_subset_reads_its_own_and_opens_no_file():
    images = stored()
    open_files = len(os.listdir("/proc/self/fd"))
    chosen = images.subset([5, 2, 2]).subset([0, 2])
    assert torch.equal(read(chosen), PIXELS[[5, 2]]) and chosen.shape == (2, 3, 4, 5)
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_they_are_never_held_together_in_memory():
    """Each is written before the next is made."""
    alive = 0

    class Counted(torch.Tensor):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def make():
        nonlocal alive
        for image in PIXELS:
            alive += 1
            assert alive <= 2
            yield image.as_subclass(Counted)
            del image

    assert torch.equal(read(stored(make=make)), PIXELS)


def test_an_image_that_cannot_be_made_leaves_nothing_behind():
    def fail():
        yield PIXELS[0]
        raise ValueError("no image")

    with pytest.raises(ValueError, match="no image"):
        stored(make=fail)
    assert list(cache_folder().iterdir()) == []


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)


def append(path):
    path.write_bytes(path.read_bytes() + b"0")


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, append])
def test_a_damaged_file_is_made_anew(damage):
    stored()
    (path,) = cache_folder().iterdir()
    damage(path)
    with pytest.warns(UserWarning, match="cannot use the cached .*test.*; it is made"):
        assert torch.equal(read(stored()), PIXELS)
    assert torch.equal(read(stored(make=None)), PIXELS)


def test_a_file_for_another_key_is_not_used():
    stored()
    (path,) = cache_folder().iterdir()
    stored("other")
    (other,) = set(cache_folder().iterdir()) - {path}
    os.replace(path, other)
    with pytest.warns(UserWarning, match="damaged, or made for another key"):
        stored("other")


def test_without_a_cache_they_are_in_memory(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AVALANCHE_GD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set AVALANCHE_GD_CACHE"):
        images = stored()
    assert isinstance(images, torch.Tensor) and torch.equal(images, PIXELS)


def test_they_are_read_on_when_the_cache_is_thrown_away():
    images = stored()
    (path,) = cache_folder().iterdir()
    path.unlink()
    assert torch.equal(read(images), PIXELS)


def test_a_file_cut_short_in_use_is_an_error():
    images = stored()
    (path,) = cache_folder().iterdir()
    os.truncate(path, 10)
    with pytest.raises(OSError, match="was cut short while it was in use"):
        images[3]


def test_an_image_folder_stays_in_the_file(tmp_path):
    write_classes(tmp_path / "root", "a", "b", "c", "d")
    benchmark = SplitImageFolder(2, root=tmp_path / "root")
    again = to_model_space(benchmark, (3, 32, 32))
    (path,) = cache_folder().iterdir()
    for streams in (benchmark.streams, again.streams):
        for stream in streams.values():
            for experience in stream:
                kept, _ = place_of(experience.dataset, 0)
                assert isinstance(kept.images, StoredImages)
                assert kept.images.shape[1:] == (3, 32, 32)
                assert len(kept) == len(experience.dataset)
    smaller = to_model_space(benchmark, (3, 16, 16))
    kept, _ = place_of(smaller.train_stream[0].dataset, 0)
    assert isinstance(kept.images, torch.Tensor) and kept.images.dtype == torch.uint8
    assert list(cache_folder().iterdir()) == [path]
