"""Fashion-MNIST, found where it is or downloaded."""

import gzip
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import torch
from avalanche.benchmarks.classic import SplitFMNIST as AvalancheSplitFMNIST
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario

from avalanche_gd.data.model_space import check_experiences, to_model_space
from avalanche_gd.storage import cache_folder

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
) -> CLScenario:
    """Class-incremental Fashion-MNIST by Avalanche's ``SplitFMNIST``, in model space.

    :param n_experiences: 1, 2, 5 or 10, each with as many classes.
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width; the originals are 28x28.
    :param root: a folder with the four idx files, gzipped or not, or one of
        torchvision's. None for the folder of Debian's package where it is installed,
        else for Avalanche's own, to which torchvision downloads.
    :return: streams ``train_stream`` (60,000 images) and ``test_stream`` (10,000), of
        shape ``(1, image_size, image_size)``.
    :raises ValueError: if the classes cannot be dealt evenly to the experiences, if
        ``root`` does not hold the data set, or if it cannot be downloaded.
    """
    check_experiences(n_experiences, n_classes=10)
    dataset_root = fashion_mnist_root(root)
    with torch.random.fork_rng(devices=[]):
        try:
            benchmark = AvalancheSplitFMNIST(
                n_experiences, seed=seed, dataset_root=dataset_root
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"Fashion-MNIST could not be read or downloaded ({error}); "
                "apt-get install dataset-fashion-mnist, or give its folder as root"
            ) from error
    return to_model_space(benchmark, (1, image_size, image_size))


def fashion_mnist_root(root: str | Path | None = None) -> Path | None:
    """A root that torchvision accepts, or None to let it download.

    :param root: as in :func:`SplitFMNIST`.
    :raises ValueError: if ``root`` does not hold the data set.
    """
    if root is None:
        root = DEBIAN_ROOT
        if _find(root) is None:
            return None
    root = Path(root).expanduser()
    for folder in (root / _RAW, root):
        if (files := _find(folder)) is not None:
            return _unpacked(files)
    raise ValueError(
        f"no Fashion-MNIST in {root}: looked for {_FILES[0]}[.gz] and three more; "
        "give the folder that holds them"
    )


def _find(folder: Path) -> list[Path] | None:
    """The four files in a folder, or None if one is missing."""
    found = []
    for name in _FILES:
        present = [
            path for path in (folder / name, folder / f"{name}.gz") if path.is_file()
        ]
        if not present:
            return None
        found.append(present[0])
    return found


def _unpacked(files: list[Path]) -> Path:
    """A root of torchvision's with these files unpacked, made once and kept."""
    states = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]
    digest = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    root = cache_folder() / f"fashion-mnist-{digest}"
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        (beside / _RAW).mkdir(parents=True)
        for name, path in zip(_FILES, files, strict=True):
            with _open(path) as packed, open(beside / _RAW / name, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        os.rename(beside, root)
    except (OSError, EOFError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not root.exists():  # another process may have been first
            raise ValueError(f"cannot unpack {files[0].parent}: {error}") from error
    return root


def _open(path: Path):
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
