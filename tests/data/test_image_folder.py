"""Folders of class folders of images: what is read, what is cached, what is refused."""

import os
import struct
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from avalanche_gd import SplitImageFolder
from avalanche_gd.data import stream_tensors
from avalanche_gd.storage import cache_folder
from tests.helpers.bits import truncate
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.usefixtures("empty_cache")

CIFAR = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"


def write(path: Path, seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """Write an image of random pixels, (height, width, 3)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def write_classes(folder: Path, *names: str, count: int = 5, seed: int = 0) -> None:
    """Write PNG images of some classes."""
    for i, name in enumerate(names):
        for j in range(count):
            write(folder / name / f"{j}.png", seed + 100 * i + j)


@pytest.fixture
def split_root(tmp_path):
    """A root with train/ and test/ of four classes."""
    root = tmp_path / "root"
    write_classes(root / "train", "a", "b", "c", "d")
    write_classes(root / "test", "a", "b", "c", "d", count=2, seed=1000)
    return root


@pytest.fixture
def flat_root(tmp_path):
    """A root of four classes, of 5, 5, 5 and 11 images."""
    root = tmp_path / "root"
    write_classes(root, "a", "b", "c")
    write_classes(root, "d", count=11, seed=1000)
    return root


def rows(stream) -> set[tuple[float, ...]]:
    return {tuple(row) for row in stream_tensors(stream)[0].flatten(1).tolist()}


def test_train_and_test_folders_are_the_streams_in_model_space(split_root):
    state = torch.get_rng_state()
    benchmark = SplitImageFolder(2, root=split_root)
    assert torch.equal(torch.get_rng_state(), state)
    for name, count in (("train", 5), ("test", 2)):
        images, labels = stream_tensors(benchmark.streams[name])
        assert images.shape == (4 * count, 3, 32, 32) and images.dtype == torch.float32
        for label, letter in enumerate("abcd"):
            files = sorted((split_root / name / letter).iterdir())
            pixels = torch.tensor(np.stack([np.asarray(Image.open(f)) for f in files]))
            expected = pixels.permute(0, 3, 1, 2) / 127.5 - 1
            assert (images[labels == label] - expected).abs().max() < 1e-6
    classes = [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
    assert classes == [sorted(e.classes_in_this_experience) for e in benchmark.test_stream]


def test_train_and_test_folders_may_have_capitals(split_root):
    expected = rows(SplitImageFolder(2, root=split_root).train_stream)
    (split_root / "train").rename(split_root / "Train")
    (split_root / "test").rename(split_root / "TEST")
    benchmark = SplitImageFolder(2, root=split_root)
    assert benchmark.n_classes == 4 and rows(benchmark.train_stream) == expected
    (split_root / "TEST").rename(split_root / "val")
    with pytest.raises(ValueError, match="a folder Train but none named test; add it"):
        SplitImageFolder(2, root=split_root)


def test_the_seed_decides_the_order_of_classes(flat_root):
    orders = {
        tuple(
            tuple(sorted(e.classes_in_this_experience))
            for e in SplitImageFolder(4, root=flat_root, seed=seed).train_stream
        )
        for seed in range(5)
    }
    assert len(orders) > 1


def test_a_fifth_of_each_class_is_held_out_the_same_for_every_seed(flat_root):
    first, second = (SplitImageFolder(4, root=flat_root, seed=seed) for seed in (0, 1))
    _, labels = stream_tensors(first.test_stream)
    assert Counter(labels.tolist()) == {0: 1, 1: 1, 2: 1, 3: 2}
    assert len(rows(first.train_stream)) == 26 - 5
    assert not rows(first.train_stream) & rows(first.test_stream)
    assert rows(first.test_stream) == rows(second.test_stream)


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (80, 64)])
def test_other_sizes_are_resized_on_the_shorter_side_and_cropped(flat_root, size):
    pixels = write(flat_root / "a" / "0.png", 7, size)
    write(flat_root / "a" / "1.png", 8, (8, 8))  # enlarged
    benchmark = SplitImageFolder(1, root=flat_root, image_size=16)
    images = torch.cat([stream_tensors(s)[0] for s in benchmark.streams.values()])
    assert images.shape == (26, 3, 16, 16)
    unit = torch.tensor(pixels).permute(2, 0, 1)[None] / 255
    width, height = (round(16 * side / 64) for side in size)
    resized = F.interpolate(unit, (height, width), mode="bilinear", antialias=True)
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = resized[..., top : top + 16, left : left + 16] * 2 - 1
    distance = (images - expected).abs().amax(dim=(1, 2, 3)).min()
    assert distance < 2.1 / 255  # PIL rounds to 8 bits, once an axis


def test_one_channel_is_grey(flat_root):
    images, _ = stream_tensors(SplitImageFolder(1, root=flat_root, channels=1).train_stream)
    colours, _ = stream_tensors(SplitImageFolder(1, root=flat_root).train_stream)
    assert images.shape == (21, 1, 32, 32)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R 601-2
    assert (images - (colours * luma).sum(1, keepdim=True)).abs().max() < 2 / 255
    with pytest.raises(ValueError, match="channels must be 3, or 1 for grey, got 2"):
        SplitImageFolder(1, root=flat_root, channels=2)


@pytest.mark.filterwarnings("error:cannot use the cached")
def test_images_are_decoded_once(flat_root, monkeypatch):
    first = SplitImageFolder(2, root=flat_root)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", None)  # would fail if called
        assert rows(SplitImageFolder(4, root=flat_root).train_stream) == rows(
            first.train_stream
        )
        for other in (dict(image_size=16), dict(channels=1)):
            with pytest.raises(ValueError, match="cannot read the image"):
                SplitImageFolder(2, root=flat_root, **other)
    changed = write(flat_root / "a" / "0.png", 999)
    os.utime(flat_root / "a" / "0.png", (0, 0))
    benchmark = SplitImageFolder(2, root=flat_root)
    expected = torch.tensor(changed).permute(2, 0, 1) / 255 * 2 - 1
    seen = rows(benchmark.train_stream) | rows(benchmark.test_stream)
    assert tuple(expected.flatten().tolist()) in seen
    (flat_root / "b" / "0.png").unlink()
    fewer = SplitImageFolder(2, root=flat_root)
    assert len(rows(fewer.train_stream) | rows(fewer.test_stream)) == 25


def test_a_damaged_cache_is_decoded_anew(flat_root):
    first = rows(SplitImageFolder(2, root=flat_root).train_stream)
    (cached,) = cache_folder().iterdir()
    truncate(cached)
    with pytest.warns(UserWarning, match="cannot use the cached .*images.*; it is made"):
        second = rows(SplitImageFolder(2, root=flat_root).train_stream)
    assert first == second
    assert [path.name for path in cache_folder().iterdir()] == [cached.name]


def refused(message: str, root: Path, n_experiences: int = 2) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SplitImageFolder(n_experiences, root=root)
    assert len(str(caught.value).splitlines()) == 1
    assert not cache_folder().exists() or not list(cache_folder().iterdir())


def test_a_root_that_is_not_there_is_refused(tmp_path):
    refused("no folder .*nowhere; give a folder of class folders", tmp_path / "nowhere")


def test_a_root_without_class_folders_is_refused(tmp_path):
    write(tmp_path / "root" / "0.png", 0)
    refused("no class folders in .*root; put the images of each", tmp_path / "root")


def test_a_class_folder_without_images_is_refused(flat_root):
    (flat_root / "empty").mkdir()
    (flat_root / "empty" / "notes.txt").touch()
    refused(r"no images in .*root/empty; put some there \(\.jpg, ", flat_root)


def test_one_class_only_is_refused(tmp_path):
    write_classes(tmp_path / "root", "a")
    refused("root has only one class, a; .* needs the folders of 2", tmp_path / "root", 1)


def test_a_class_with_nothing_to_test_on_is_refused(tmp_path):
    write_classes(tmp_path / "root", "a", "b")
    write_classes(tmp_path / "root", "c", count=1)
    refused("only one image in .*root/c; a class needs 2", tmp_path / "root", 3)


def test_test_images_of_other_classes_are_refused(split_root):
    (split_root / "test" / "a").rename(split_root / "test" / "e")
    refused("must have the same class folders; only one of them has a, e", split_root)


def test_training_images_without_a_test_folder_are_refused(split_root):
    (split_root / "test").rename(split_root / "val")
    refused("has a folder train but none named test; add it, or give .*train", split_root)


@pytest.mark.parametrize("place", ["root", "train"])
def test_hidden_folders_and_files_are_left_out(tmp_path, place):
    root = tmp_path / ".hidden" / "root"  # what is above the root does not count
    classes = root if place == "root" else root / "train"
    write_classes(classes, "a", "b")
    if place == "train":
        write_classes(root / "test", "a", "b", count=2, seed=1000)
    before = {name: rows(s) for name, s in SplitImageFolder(2, root=root).streams.items()}
    write_classes(classes, ".ipynb_checkpoints", "a/.ipynb_checkpoints", seed=2000)
    write(classes / "b" / "._0.png", 3000)
    write(root / ".git" / "objects" / "0.png", 4000)
    benchmark = SplitImageFolder(2, root=root)
    assert {name: rows(s) for name, s in benchmark.streams.items()} == before


def test_a_class_may_be_called_train(tmp_path):
    write_classes(tmp_path / "root", "train", "tram", "train/.ipynb_checkpoints")
    assert SplitImageFolder(2, root=tmp_path / "root").n_classes == 2


def test_a_root_of_hidden_folders_is_without_class_folders(tmp_path):
    write_classes(tmp_path / "root", ".a", ".b")
    refused("no class folders in .*root; put the images of each", tmp_path / "root")


def test_a_split_of_other_names_is_refused(tmp_path):
    for name in ("training", "testing"):
        write_classes(tmp_path / "root" / name, "a", "b")
    refused(
        "root/testing has no images of its own but 2 folders of them; put those of a class "
        ".*, and give the two folders of a split the names train and test",
        tmp_path / "root",
    )


def test_a_class_with_images_in_several_folders_only_is_refused(split_root):
    write_classes(split_root / "train" / "e", "1", "2")
    write_classes(split_root / "test", "e")
    refused("root/train/e has no images of its own but 2 folders", split_root, 5)


def test_folders_below_a_class_are_read_beside_images_or_if_one_has_them(tmp_path):
    write_classes(tmp_path / "root", "a", "a/1", "a/2", "b/images", count=2)
    benchmark = SplitImageFolder(2, root=tmp_path / "root")
    labels = torch.cat([stream_tensors(s)[1] for s in benchmark.streams.values()])
    assert Counter(labels.tolist()) == {0: 6, 1: 2}


def test_pictures_of_formats_that_are_not_read_are_counted_in_one_warning(split_root):
    before = rows(SplitImageFolder(2, root=split_root).train_stream)
    for name in ("1.gif", "2.GIF", "3.heic", "4.jfif", "5.txt", "6.json", "7", ".8.gif"):
        (split_root / "train" / "a" / name).touch()
    (split_root / "test" / "b" / "9.gif").touch()
    with pytest.warns(UserWarning, match="pictures in") as caught:
        benchmark = SplitImageFolder(2, root=split_root)
    (warning,) = (one for one in caught if "pictures in" in str(one.message))
    assert str(warning.message) == (
        f"pictures in {split_root} are not read: 3 .gif, 1 .heic, 1 .jfif; save them as "
        "PNG or JPEG to use them"
    )
    assert warning.filename == __file__
    assert rows(benchmark.train_stream) == before


@pytest.mark.filterwarnings("error:pictures in")
def test_files_that_are_no_pictures_need_no_warning(flat_root):
    for name in ("notes.txt", "labels.csv", "Thumbs.db", "desktop.ini", ".0.gif"):
        (flat_root / "a" / name).touch()
    SplitImageFolder(2, root=flat_root)


def test_classes_that_cannot_be_dealt_evenly_are_refused(flat_root):
    refused("4 classes cannot be shared equally by 3 experiences", flat_root, 3)


def test_an_image_cut_short_is_refused_by_name(flat_root):
    truncate(flat_root / "c" / "3.png")
    refused("cannot read the image .*root/c/3.png .*; replace or delete it", flat_root)


def test_a_file_that_is_no_image_is_refused_by_name(flat_root):
    (flat_root / "b" / "9.jpg").write_text("not an image")
    refused("cannot read the image .*root/b/9.jpg .*; replace or delete it", flat_root)


def test_a_link_that_leads_nowhere_is_refused_by_name(flat_root):
    (flat_root / "b" / "9.jpg").symlink_to("nowhere.jpg")
    refused("cannot read the image .*root/b/9.jpg .*; replace or delete it", flat_root)


def test_pixels_of_more_than_8_bits_are_refused_by_name(flat_root):
    deep = np.full((32, 32), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(flat_root / "b" / "9.png")
    refused("root/b/9.png .more than 8 bits per channel", flat_root)


def on_alpha(mode: str, alpha: int) -> Image.Image:
    """A picture whose left half has this alpha, and whose right half is opaque."""
    image = Image.new(
        "LA" if mode == "LA" else "RGBA",
        (32, 32),
        (0, 255) if mode == "LA" else (0, 0, 0, 255),
    )
    image.putalpha(
        Image.fromarray(np.repeat([[alpha] * 16 + [255] * 16], 32, 0).astype(np.uint8))
    )
    return image.quantize(4) if mode == "P" else image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_picture_that_is_transparent_somewhere_is_refused_by_name(flat_root, mode):
    on_alpha(mode, 0 if mode == "P" else 254).save(flat_root / "b" / "9.png")
    refused("root/b/9.png .transparent in places: flatten it onto a background", flat_root)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_a_picture_with_an_alpha_channel_that_is_opaque_is_read(flat_root, mode):
    before = len(rows(SplitImageFolder(2, root=flat_root).train_stream))
    for number in range(10):
        on_alpha(mode, 255).save(flat_root / "b" / f"{number + 50}.png")
    assert len(rows(SplitImageFolder(2, root=flat_root).train_stream)) > before


def deep_png(kind: int, channels: int, bits: int) -> bytes:
    """A PNG of 2x2 pixels, which PIL cannot write.

    :param kind: 2 is RGB, 4 grey and 6 RGB with transparency.
    """

    def part(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", 2, 2, bits, kind, 0, 0, 0)
    rows = (b"\0" + b"\x80" * (2 * channels * bits // 8)) * 2
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(part(*each) for each in parts)


def tiff(bits: int) -> bytes:
    """An RGB TIFF of 2x2 pixels."""
    count, start = 9, 8 + 2 + 9 * 12 + 4
    sizes = struct.pack("<3H", bits, bits, bits)
    pixels = b"\x80" * (12 * bits // 8)
    entries = [
        *((256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, start), (259, 3, 1, 1)),
        *((262, 3, 1, 2), (273, 4, 1, start + len(sizes)), (277, 3, 1, 3), (278, 3, 1, 2)),
        (279, 4, 1, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, count)
    return head + directory + bytes(4) + sizes + pixels


def ppm(highest: int) -> bytes:
    """A PPM of 2x2 pixels."""
    return f"P6 2 2 {highest}\n".encode() + b"\x40" * (12 if highest < 256 else 24)


@pytest.mark.parametrize(
    "content",
    [
        *(deep_png(2, 3, 16), deep_png(4, 2, 16), deep_png(6, 4, 16)),
        *(tiff(16), ppm(65535), ppm(1000), b"P3 2 2 1000\n" + b"500 " * 12),
    ],
)
def test_colours_of_more_than_8_bits_are_refused_by_name(flat_root, content):
    (flat_root / "b" / "9.png").write_bytes(content)
    refused("root/b/9.png .more than 8 bits per channel", flat_root)


def test_colours_of_8_bits_or_fewer_are_read(flat_root):
    contents = [deep_png(2, 3, 8), tiff(8), ppm(255), ppm(100)]
    for i, content in enumerate([*contents, b"P1 2 2\n0 1 1 0", b"P4 2 2\n\x80\x40"]):
        (flat_root / "b" / f"{i}.png").write_bytes(content)
    Image.new("P", (2, 2)).save(flat_root / "b" / "7.bmp")
    assert len(rows(SplitImageFolder(2, root=flat_root).train_stream)) > 20


PAGES = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff"])
def test_postscript_is_not_run_whatever_its_name(flat_root, monkeypatch, ending):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # would fail if called
    (flat_root / "b" / f"9.{ending}").write_bytes(PAGES)
    refused(rf"9.{ending} \(none of JPEG, PNG, PPM, BMP, TIFF, WEBP\)", flat_root)


def test_the_formats_that_are_named_are_read_by_their_content(tmp_path):
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        for place in ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP"):
            file = tmp_path / "root" / name / f"{place}.png"
            Image.fromarray(pixels).save(file, format=place)
    assert len(stream_tensors(SplitImageFolder(2, root=tmp_path / "root").train_stream)[0])


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_an_image_of_too_many_pixels_is_refused_by_name(flat_root, side):
    Image.new("1", (side, side)).save(flat_root / "b" / "9.png")
    refused("root/b/9.png .*exceeds limit", flat_root)


def test_a_pipe_is_refused_by_name(flat_root):
    os.mkfifo(flat_root / "b" / "9.png")
    refused("root/b/9.png .not a regular file", flat_root)


@pytest.mark.skipif(
    not CIFAR.is_file(), reason="the archive cifar10-jpeg.tar.xz is not beside the clone"
)
def test_the_real_cifar10_is_read(tmp_path):
    wanted = 10  # images of each class, of those that come first in the archive
    counts: Counter[str] = Counter()
    with tarfile.open(CIFAR) as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            if member.isfile() and counts[folder] < wanted:
                counts[folder] += 1
                archive.extract(member, tmp_path / "root", filter="data")
            if len(counts) == 20 and set(counts.values()) == {wanted}:
                break
    benchmark = SplitImageFolder(5, root=tmp_path / "root")
    images, labels = stream_tensors(benchmark.train_stream)
    assert images.shape == (100, 3, 32, 32)
    assert Counter(labels.tolist()) == dict.fromkeys(range(10), 10)
    names = sorted(path.name for path in (tmp_path / "root" / "train").iterdir())
    assert (names[0], names[-1]) == ("airplane", "truck")
    for label, name in enumerate(names):
        files = sorted((tmp_path / "root" / "train" / name).iterdir())
        pixels = np.stack([np.asarray(Image.open(file)) for file in files])
        expected = torch.tensor(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        assert (images[labels == label] - expected).abs().max() < 1e-6
    assert stream_tensors(benchmark.test_stream)[0].shape == (100, 3, 32, 32)
