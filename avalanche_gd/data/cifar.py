"""CIFAR-10 and CIFAR-100, read or downloaded by torchvision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.classic import SplitCIFAR10 as AvalancheSplitCIFAR10
from avalanche.benchmarks.classic import SplitCIFAR100 as AvalancheSplitCIFAR100
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from torchvision.datasets import CIFAR10, CIFAR100

from avalanche_gd.data.model_space import check_experiences, to_model_space


def SplitCIFAR10(
    n_experiences: int = 5,
    *,
    seed: int = 0,
    image_size: int = 32,
    root: str | Path | None = None,
) -> CLScenario:
    """Class-incremental CIFAR-10 by Avalanche's ``SplitCIFAR10``, in model space.

    :param n_experiences: 1, 2, 5 or 10, each with as many classes.
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width; the originals are 32x32.
    :param root: a folder with ``cifar-10-batches-py``, or with ``cifar-10-python.tar.gz``,
        which is unpacked there. None for Avalanche's own, to which torchvision downloads.
    :return: streams ``train_stream`` (50,000 images) and ``test_stream`` (10,000), of
        shape ``(3, image_size, image_size)``.
    :raises ValueError: if the classes cannot be dealt evenly to the experiences, if
        ``root`` does not hold the data set, or if it cannot be downloaded.
    """
    check_experiences(n_experiences, n_classes=10)
    benchmark = _read("CIFAR-10", CIFAR10, AvalancheSplitCIFAR10, n_experiences, seed, root)
    return to_model_space(benchmark, (3, image_size, image_size))


def SplitCIFAR100(
    n_experiences: int = 10,
    *,
    seed: int = 0,
    image_size: int = 32,
    root: str | Path | None = None,
) -> CLScenario:
    """Class-incremental CIFAR-100 by Avalanche's ``SplitCIFAR100``, in model space.

    :param n_experiences: a divisor of 100; each gets as many classes.
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width; the originals are 32x32.
    :param root: a folder with ``cifar-100-python``, or with ``cifar-100-python.tar.gz``,
        which is unpacked there. None for Avalanche's own, to which torchvision downloads.
    :return: streams ``train_stream`` (50,000 images) and ``test_stream`` (10,000), of
        shape ``(3, image_size, image_size)``, with the 100 fine labels.
    :raises ValueError: as :func:`SplitCIFAR10` does.
    """
    check_experiences(n_experiences, n_classes=100)
    benchmark = _read(
        "CIFAR-100", CIFAR100, AvalancheSplitCIFAR100, n_experiences, seed, root
    )
    return to_model_space(benchmark, (3, image_size, image_size))


def _read(
    name: str,
    dataset: type[CIFAR10],
    split: Callable[..., Any],
    n_experiences: int,
    seed: int,
    root: str | Path | None,
) -> Any:
    """Avalanche's benchmark, of a root that holds the data set or may be downloaded to."""
    if root is not None:
        root = Path(root).expanduser()
        names = (dataset.base_folder, dataset.filename)
        if not any((root / name).exists() for name in names):
            raise ValueError(
                f"no {name} in {root}: looked for {' and '.join(names)}; "
                "give the folder that holds either"
            )
    with torch.random.fork_rng(devices=[]):
        try:
            return split(n_experiences, seed=seed, dataset_root=root)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{name} could not be read or downloaded ({error}); give a folder with "
                f"an undamaged {dataset.filename} as root ({dataset.url})"
            ) from error
