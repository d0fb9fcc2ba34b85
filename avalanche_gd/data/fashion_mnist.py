"""Fashion-MNIST, read from a folder or downloaded."""

from functools import partial
from pathlib import Path

from avalanche.benchmarks.datasets.external_datasets.fmnist import get_fmnist_dataset

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.idx_files import has_idx_files, split_idx
from avalanche_gd.storage import expanded

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""The folder of Debian's package ``dataset-fashion-mnist``."""


def SplitFMNIST(
    n_experiences: int = 5,
    *,
    seed: int = 0,
    image_size: int = 16,
    shuffle: bool = True,
    fit: str = "resize",
    root: str | Path | None = None,
) -> StreamsBenchmark:
    """Class-incremental Fashion-MNIST like Avalanche's ``SplitFMNIST``, in model space.

    :param n_experiences: 1, 2, 5 or 10; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width; the originals are 28x28.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :param fit: ``"resize"``, by PIL, or ``"pad"``, to add a black border.
    :param root: a folder with the four idx files, gzipped or not, or one of
        torchvision's. None for the folder of Debian's package if it is installed, else for
        Avalanche's folder, to which it is downloaded.
    :return: streams ``train_stream`` (60,000 images) and ``test_stream`` (10,000), of
        shape ``(1, image_size, image_size)``.
    :raises ValueError: if the experiences cannot have equal numbers of classes, for a seed
        or an image size that is not an integer of 0, or of 1, or more, for an unknown
        ``fit`` or ``"pad"`` to a size below 28, if ``root`` does not hold the data set, or
        if it cannot be downloaded.
    """
    folder = None if root is None else expanded(root)
    if folder is None and has_idx_files("Fashion-MNIST", DEBIAN_ROOT):
        folder = DEBIAN_ROOT
    return split_idx(
        "Fashion-MNIST",
        n_experiences,
        seed=seed,
        image_size=image_size,
        shuffle=shuffle,
        fit=fit,
        root=folder,
        download=partial(get_fmnist_dataset, None),
        hint="apt-get install dataset-fashion-mnist, or give its folder as root",
    )
