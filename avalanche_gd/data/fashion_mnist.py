"""Fashion-MNIST, found where it is or downloaded."""

from functools import partial
from pathlib import Path

from avalanche.benchmarks.datasets.external_datasets.fmnist import get_fmnist_dataset

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.idx_files import has_idx_files, split_idx

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package ``dataset-fashion-mnist`` puts the data set."""


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
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width; the originals are 28x28.
    :param shuffle: False for the classes in their own order, whatever the seed.
    :param fit: ``"resize"``, by PIL, or ``"pad"``, to put a black border around.
    :param root: a folder with the four idx files, gzipped or not, or one of
        torchvision's. None for the folder of Debian's package where it is installed,
        else for Avalanche's own, to which torchvision downloads.
    :return: streams ``train_stream`` (60,000 images) and ``test_stream`` (10,000), of
        shape ``(1, image_size, image_size)``.
    :raises ValueError: if the classes cannot be dealt evenly to the experiences, for an
        unknown ``fit`` or a size below 28 to pad to, if ``root`` does not hold the data
        set, or if it cannot be downloaded.
    """
    folder = None if root is None else Path(root).expanduser()
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
