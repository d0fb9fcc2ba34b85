"""CIFAR-10 and CIFAR-100, read or downloaded by torchvision."""

from pathlib import Path

from avalanche.benchmarks.datasets import default_dataset_location
from torchvision.datasets import CIFAR10, CIFAR100

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.model_space import check_split, class_incremental
from avalanche_gd.storage import expanded


def SplitCIFAR10(
    n_experiences: int = 5,
    *,
    seed: int = 0,
    image_size: int = 32,
    shuffle: bool = True,
    root: str | Path | None = None,
) -> StreamsBenchmark:
    """Class-incremental CIFAR-10 like Avalanche's ``SplitCIFAR10``, in model space.

    :param n_experiences: 1, 2, 5 or 10; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width, resized by PIL; the originals are 32x32.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :param root: a folder with ``cifar-10-batches-py``, or with ``cifar-10-python.tar.gz``,
        which is unpacked there. None for Avalanche's folder, to which it is downloaded.
    :return: streams ``train_stream`` (50,000 images) and ``test_stream`` (10,000), of
        shape ``(3, image_size, image_size)``.
    :raises ValueError: if the experiences cannot have equal numbers of classes, for a seed
        or an image size that is not an integer of 0, or of 1, or more, if ``root`` does not
        hold the data set, or if it cannot be downloaded.
    """
    check_split(n_experiences, 10, seed, image_size)
    train, test = _read(CIFAR10, "CIFAR-10", root)
    return class_incremental(
        train, test, n_experiences, seed=seed, image_size=image_size, shuffle=shuffle
    )


def SplitCIFAR100(
    n_experiences: int = 10,
    *,
    seed: int = 0,
    image_size: int = 32,
    shuffle: bool = True,
    root: str | Path | None = None,
) -> StreamsBenchmark:
    """Class-incremental CIFAR-100 like Avalanche's ``SplitCIFAR100``, in model space.

    :param n_experiences: a divisor of 100; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width, resized by PIL; the originals are 32x32.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :param root: a folder with ``cifar-100-python``, or with ``cifar-100-python.tar.gz``,
        which is unpacked there. None for Avalanche's folder, to which it is downloaded.
    :return: streams ``train_stream`` (50,000 images) and ``test_stream`` (10,000), of
        shape ``(3, image_size, image_size)``, with the 100 fine labels.
    :raises ValueError: as in :func:`SplitCIFAR10`.
    """
    check_split(n_experiences, 100, seed, image_size)
    train, test = _read(CIFAR100, "CIFAR-100", root)
    return class_incremental(
        train, test, n_experiences, seed=seed, image_size=image_size, shuffle=shuffle
    )


def _read(
    dataset: type[CIFAR10], name: str, root: str | Path | None
) -> tuple[CIFAR10, CIFAR10]:
    """The training and the test images, read or downloaded."""
    names = (dataset.base_folder, dataset.filename)
    if root is None:
        root = default_dataset_location(dataset.__name__.lower())
    elif not any(expanded(root).joinpath(entry).exists() for entry in names):
        raise ValueError(
            f"no {name} in {root}: looked for {' and '.join(names)}; "
            "give the folder that has one of them"
        )
    try:
        folder = expanded(root)
        return dataset(folder, True, download=True), dataset(folder, False, download=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{name} could not be read or downloaded ({error}); give a folder with "
            f"an undamaged {dataset.filename} as root ({dataset.url})"
        ) from error
