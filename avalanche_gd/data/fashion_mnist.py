"""Fashion-MNIST, found where it is or downloaded."""

import gzip
import struct
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.datasets.external_datasets.fmnist import get_fmnist_dataset
from torch import Tensor

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.model_space import as_dataset, check_experiences, class_incremental
from avalanche_gd.storage import cached

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the data set."""

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_RAW = Path("FashionMNIST", "raw")  # where torchvision looks for them, under a root


def SplitFMNIST(
    n_experiences: int = 5,
    *,
    seed: int = 0,
    image_size: int = 16,
    root: str | Path | None = None,
) -> StreamsBenchmark:
    """Class-incremental Fashion-MNIST like Avalanche's ``SplitFMNIST``, in model space.

    :param n_experiences: 1, 2, 5 or 10; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width, resized by PIL; the originals are 28x28.
    :param root: a folder with the four idx files, gzipped or not, or one of
        torchvision's. None for the folder of Debian's package where it is installed,
        else for Avalanche's own, to which torchvision downloads.
    :return: streams ``train_stream`` (60,000 images) and ``test_stream`` (10,000), of
        shape ``(1, image_size, image_size)``.
    :raises ValueError: if the classes cannot be dealt evenly to the experiences, if
        ``root`` does not hold the data set, or if it cannot be downloaded.
    """
    check_experiences(n_experiences, n_classes=10)
    files = _find(root)
    train, test = (_read(*files[:2]), _read(*files[2:])) if files else _download()
    return class_incremental(train, test, n_experiences, seed=seed, image_size=image_size)


def _find(root: str | Path | None) -> list[Path]:
    """The four files, or none of them where they are to be downloaded."""
    folder = DEBIAN_ROOT if root is None else Path(root).expanduser()
    for place in (folder / _RAW, folder):
        files = [
            plain if (plain := place / name).is_file() else place / f"{name}.gz"
            for name in _FILES
        ]
        if all(file.is_file() for file in files):
            return files
    if root is None:
        return []
    raise ValueError(
        f"no Fashion-MNIST in {folder}: looked for {_FILES[0]}[.gz] and three more; "
        "give the folder that holds them"
    )


def _read(images_file: Path, labels_file: Path) -> Any:
    """A dataset of two files, unpacked once."""

    def unpack() -> dict[str, Tensor]:
        return {"images": _read_idx(images_file), "labels": _read_idx(labels_file)}

    states = [(path.resolve(), path.stat()) for path in (images_file, labels_file)]
    key = [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]
    content = cached("fashion-mnist", key, unpack)
    images, labels = content["images"], content["labels"]
    if images.shape != (len(labels), 28, 28) or labels.unique().tolist() != [*range(10)]:
        raise ValueError(
            f"{images_file} and {labels_file.name} are not 28x28 images of ten classes and "
            "their labels; replace them"
        )
    return as_dataset(images[:, None], labels)


def _read_idx(path: Path) -> Tensor:
    """The bytes of an idx file: two zeros, a type, the number of sizes; sizes; values."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = bytearray(file.read())
        start = 4 + 4 * content[3]
        sizes = struct.unpack(f">{content[3]}I", content[4:start])
        return torch.frombuffer(content, dtype=torch.uint8, offset=start).view(sizes)
    except Exception as error:  # whatever gzip, struct and torch raise
        raise ValueError(f"cannot read {path} ({error}); replace it") from error


def _download() -> Any:
    try:
        return get_fmnist_dataset(None)
    except Exception as error:  # torchvision's reader has no errors of its own
        reason = " ".join(str(error).split())  # its lines as one
        raise ValueError(
            f"Fashion-MNIST could not be read or downloaded ({reason}); "
            "apt-get install dataset-fashion-mnist, or give its folder as root"
        ) from error
