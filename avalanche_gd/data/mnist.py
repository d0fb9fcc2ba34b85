"""MNIST, read or downloaded."""

from functools import partial
from pathlib import Path

from avalanche.benchmarks.datasets.external_datasets.mnist import get_mnist_dataset

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.idx_files import split_idx
from avalanche_gd.storage import expanded


def SplitMNIST(
    n_experiences: int = 5,
    *,
    seed: int = 0,
    image_size: int = 16,
    shuffle: bool = True,
    fit: str = "resize",
    root: str | Path | None = None,
) -> StreamsBenchmark:
    """Class-incremental MNIST like Avalanche's ``SplitMNIST``, in model space.

    :param n_experiences: 1, 2, 5 or 10; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width; the originals are 28x28.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :param fit: ``"resize"``, by PIL, or ``"pad"``, to add a black border.
    :param root: a folder with the four idx files, gzipped or not, or one of
        torchvision's. None for Avalanche's folder, to which it is downloaded.
    :return: streams ``train_stream`` (60,000 images) and ``test_stream`` (10,000), of
        shape ``(1, image_size, image_size)``.
    :raises ValueError: as in :func:`~avalanche_gd.SplitFMNIST`.
    """
    return split_idx(
        "MNIST",
        n_experiences,
        seed=seed,
        image_size=image_size,
        shuffle=shuffle,
        fit=fit,
        root=None if root is None else expanded(root),
        download=partial(get_mnist_dataset, None),
        hint="give the folder that has it as root",
    )
