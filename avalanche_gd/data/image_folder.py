"""A benchmark from any folder of class folders with images."""

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, is_image_file

from avalanche_gd.checks import check_integer
from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.decoding import decoded_images
from avalanche_gd.data.model_space import as_dataset, check_split, class_incremental
from avalanche_gd.storage import expanded

_TEST_SHARE = 0.2  # of each class, if the root has no test images
_NOT_READ = (
    *(".avif", ".exr", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe", ".jxl"),
    *(".arw", ".cr2", ".dng", ".nef", ".pbm", ".pcx", ".pnm", ".psd", ".svg", ".tga"),
)
"""Suffixes of pictures of other formats."""

LabelledFiles = list[tuple[str, int]]
"""Files and their classes."""


def SplitImageFolder(
    n_experiences: int,
    *,
    seed: int = 0,
    image_size: int = 32,
    shuffle: bool = True,
    root: str | Path,
    channels: int = 3,
) -> StreamsBenchmark:
    """Class-incremental images of a folder of class folders, in model space.

    Files and classes are those that torchvision's ``ImageFolder`` finds, in JPEG, PNG,
    PPM (with PGM), BMP, TIFF or WebP, but for files and folders whose name begins with a
    dot. No other format is read, whatever a file's name ends in, and no image with more
    pixels than PIL's ``Image.MAX_IMAGE_PIXELS``. Pictures with the suffix of another
    format, such as ``.gif`` or ``.heic``, are counted in a warning. An image that
    is not square, or of another size, is resized bilinearly with antialiasing until its
    shorter side is ``image_size``, and its centre is kept. Images are decoded once, one
    after another, and their pixels are cached; they are decoded again if the name, the size
    or the time of change of a file has changed. Batches are read from the cache, so that
    the images take no memory.

    :param n_experiences: a divisor of the number of classes; each gets the same
        number of them.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width of the result.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :param root: a folder with ``train/CLASS/IMAGE`` and ``test/CLASS/IMAGE``, where
        ``train`` and ``test`` may have capitals; or with ``CLASS/IMAGE``, of which a fifth
        of each class becomes the test stream, the same images for every seed. Folders
        below a class are read too if images are beside them, or if only one has images.
    :param channels: 3, or 1 for grey.
    :return: streams ``train_stream`` and ``test_stream``, of shape
        ``(channels, image_size, image_size)``.
    :raises ValueError: if ``root`` is not such a folder, if a class has no images, has
        them only in several folders below, or is the only one, if an image cannot be read,
        if the experiences cannot have equal numbers of classes, or for a seed or an image
        size that is not an integer of 0, or of 1, or more.
    """
    if check_integer("channels", channels) not in (1, 3):
        raise ValueError(f"channels must be 3, or 1 for grey, got {channels}")
    root = expanded(root)
    folders = _find(root)
    _warn_of_pictures_not_read(root, folders)
    several = [folder.samples for folder in folders]
    train_files, test_files = several if len(several) == 2 else _hold_out(*folders)
    check_split(n_experiences, len({label for _, label in train_files}), seed, image_size)
    files, labels = zip(*train_files, *test_files, strict=True)
    pixels = decoded_images(root, files, channels=channels, image_size=image_size)
    images, n_train = as_dataset(pixels, torch.tensor(labels)), len(train_files)
    train = images.subset(range(n_train))
    test = images.subset(range(n_train, len(images)))
    return class_incremental(
        train, test, n_experiences, seed=seed, image_size=image_size, shuffle=shuffle
    )


class _VisibleImages(ImageFolder):
    """Class folders and their images, without those whose name begins with a dot."""

    def __init__(self, folder: Path):
        self.not_read: Counter[str] = Counter()
        """The number of pictures of other formats, by suffix."""
        super().__init__(str(folder), is_valid_file=self._is_read, allow_empty=True)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """The names of the classes, and their numbers."""
        names = sorted(path.name for path in _visible_folders(Path(directory)))
        return names, {name: label for label, name in enumerate(names)}

    def _is_read(self, file: str) -> bool:
        if f"{os.sep}." in file.removeprefix(str(self.root)):
            return False
        if is_image_file(file):
            return True
        suffix = os.path.splitext(file)[1].lower()
        if suffix in _NOT_READ:
            self.not_read[suffix] += 1
        return False


def _visible_folders(folder: Path) -> Iterator[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return filter(Path.is_dir, paths)


def _find(root: Path) -> list[_VisibleImages]:
    """The folders of the training and the test images, or one folder of both."""
    if not root.is_dir():
        raise ValueError(f"no folder {root}; give a folder of class folders as root")
    train, test = (_folder_named(name, root) for name in ("train", "test"))
    if train.is_dir() and test.is_dir():
        train_folder, test_folder = _image_folder(train), _image_folder(test)
        unpaired = set(train_folder.classes) ^ set(test_folder.classes)
        if unpaired:
            raise ValueError(
                f"{train} and {test} must have the same class folders; only one of them "
                f"has {', '.join(sorted(unpaired))}"
            )
        return [train_folder, test_folder]
    if train.is_dir() and any(_visible_folders(train)):
        raise ValueError(
            f"{root} has a folder {train.name} but none named test; add it, or give "
            f"{train} as root to use a fifth of its images for tests"
        )
    return [_image_folder(root)]


def _warn_of_pictures_not_read(root: Path, folders: Sequence[_VisibleImages]) -> None:
    """Warn of pictures of other formats, once for all folders."""
    counts = sum((folder.not_read for folder in folders), Counter[str]())
    if counts:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        warnings.warn(
            f"pictures in {root} are not read: {listed}; save them as PNG or JPEG to use "
            "them",
            stacklevel=3,
        )


def _folder_named(name: str, root: Path) -> Path:
    """The folder of this name; if it is not there, one of the name in capitals."""
    others = (path for path in sorted(root.iterdir()) if path.name.lower() == name)
    paths = [path for path in (root / name, *others) if path.is_dir()]
    return paths[0] if paths else root / name


def _image_folder(folder: Path) -> _VisibleImages:
    """Find two classes or more, each with images."""
    if not any(_visible_folders(folder)):
        raise ValueError(
            f"no class folders in {folder}; put the images of each class in a folder of "
            "its own there"
        )
    found = _VisibleImages(folder)
    for label in set(range(len(found.classes))) - set(found.targets):
        raise ValueError(
            f"no images in {folder / found.classes[label]}; put some there "
            f"({', '.join(IMG_EXTENSIONS)}) or delete it"
        )
    if len(found.classes) == 1:
        raise ValueError(
            f"{folder} has only one class, {found.classes[0]}; a class-incremental stream "
            "needs the folders of 2 or more"
        )
    for label, samples in groupby(found.samples, key=itemgetter(1)):
        own = os.path.join(found.root, found.classes[label])
        places = {os.path.dirname(file) for file, _ in samples}
        if len(places) > 1 and own not in places:
            raise ValueError(
                f"{own} has no images of its own but {len(places)} folders of them; put "
                "those of a class directly in its folder, and give the two folders of a "
                "split the names train and test"
            )
    return found


def _hold_out(found: _VisibleImages) -> tuple[LabelledFiles, LabelledFiles]:
    """A share of each class for the test stream, always the same."""
    generator = torch.Generator().manual_seed(0)
    train: LabelledFiles = []
    test: LabelledFiles = []
    for label, samples in groupby(found.samples, key=itemgetter(1)):
        own = list(samples)
        if len(own) == 1:
            raise ValueError(
                f"only one image in {Path(found.root) / found.classes[label]}; a class "
                "needs 2 or more, to train on and to test on"
            )
        count = max(1, round(len(own) * _TEST_SHARE))
        order = torch.randperm(len(own), generator=generator).tolist()
        test += [own[i] for i in sorted(order[:count])]
        train += [own[i] for i in sorted(order[count:])]
    return train, test
