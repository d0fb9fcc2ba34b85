"""MNIST and Fashion-MNIST: four idx files, read from a folder or downloaded."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avalanche_gd.checks import check_choice
from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.model_space import as_dataset, check_split, class_incremental
from avalanche_gd.storage import cached

FITS = ("resize", "pad")
"""How images get their size: resized by PIL, or with a black border."""

_SIZE = 28  # height and width of an original
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def split_idx(
    name: str,
    n_experiences: int,
    *,
    seed: int,
    image_size: int,
    shuffle: bool,
    fit: str,
    root: Path | None,
    download: Callable[[], Any],
    hint: str,
) -> StreamsBenchmark:
    """Make a class-incremental benchmark of ten classes from four idx files.

    :param name: the name of the data set; torchvision's folder has it without hyphens.
    :param fit: one of :data:`FITS`.
    :param root: a folder with the files, gzipped or not, or one of torchvision's; None to
        download them.
    :param download: returns torchvision's training and test set.
    :param hint: what to do if that fails.
    :raises ValueError: as in the functions of the data sets.
    """
    check_split(n_experiences, 10, seed, image_size)
    check_choice("fit", fit, FITS)
    if fit == "pad" and image_size < _SIZE:
        raise ValueError(
            f"images of {_SIZE}x{_SIZE} cannot be padded to {image_size}x{image_size}; "
            f"choose images of {_SIZE}x{_SIZE} or more, or fit=resize"
        )
    border = image_size - _SIZE if fit == "pad" else 0
    before, after = border // 2, border - border // 2
    parts = _downloaded(name, download, hint) if root is None else _read(name, root)
    train, test = (
        as_dataset(F.pad(images[:, None], (before, after, before, after)), labels)
        for images, labels in parts
    )
    return class_incremental(
        train, test, n_experiences, seed=seed, image_size=image_size, shuffle=shuffle
    )


def has_idx_files(name: str, root: Path) -> bool:
    """True if a folder has the four files of a data set."""
    return bool(_find(name, root))


def _find(name: str, root: Path) -> list[Path]:
    """The four files, or none."""
    for place in (root / name.replace("-", "") / "raw", root):  # torchvision's, or bare
        files = [
            plain if (plain := place / file).is_file() else place / f"{file}.gz"
            for file in _FILES
        ]
        if all(file.is_file() for file in files):
            return files
    return []


def _read(name: str, root: Path) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, for training and for tests."""
    files = _find(name, root)
    if not files:
        raise ValueError(
            f"no {name} in {root}: looked for {_FILES[0]}[.gz] and three more; "
            "give the folder that has them"
        )
    return [_read_pair(name, *files[:2]), _read_pair(name, *files[2:])]


def _read_pair(name: str, images_file: Path, labels_file: Path) -> tuple[Tensor, Tensor]:
    """The images and labels in two files, unpacked once."""

    def unpack() -> dict[str, Tensor]:
        return {"images": _read_idx(images_file), "labels": _read_idx(labels_file)}

    states = [(path.resolve(), path.stat()) for path in (images_file, labels_file)]
    key = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    content = cached(name.lower(), key, unpack)
    images, labels = content["images"], content["labels"]
    is_whole = images.shape == (len(labels), _SIZE, _SIZE)
    if not is_whole or labels.unique().tolist() != [*range(10)]:
        raise ValueError(
            f"{images_file} and {labels_file.name} are not 28x28 images of ten classes and "
            "their labels; replace them"
        )
    return images, labels


def _read_idx(path: Path) -> Tensor:
    """The bytes of an idx file: two zeros, a type, the number of sizes; sizes; values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytearray(file.read())
        start = 4 + 4 * content[3]
        sizes = struct.unpack(f">{content[3]}I", content[4:start])
        return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(sizes)
    except Exception as error:  # gzip, struct and torch raise errors of many kinds
        raise ValueError(f"cannot read {path} ({error}); replace it") from error


def _downloaded(
    name: str, download: Callable[[], Any], hint: str
) -> list[tuple[Tensor, Tensor]]:
    try:
        return [(part.data, part.targets) for part in download()]
    except Exception as error:  # torchvision's reader raises errors of many kinds
        reason = " ".join(str(error).split())  # as one line
        raise ValueError(
            f"{name} could not be read or downloaded ({reason}); {hint}"
        ) from error
