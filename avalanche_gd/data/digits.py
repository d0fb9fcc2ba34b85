"""scikit-learn's handwritten digits: a benchmark that needs no download."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from avalanche_gd.data.benchmark import StreamsBenchmark
from avalanche_gd.data.model_space import as_dataset, check_split, class_incremental

_TEST_SHARE = 0.2
_MAXIMUM = 16  # the highest value of a pixel in scikit-learn's digits


def SplitDigits(
    n_experiences: int = 5, *, seed: int = 0, image_size: int = 8, shuffle: bool = True
) -> StreamsBenchmark:
    """Class-incremental digits: 1,437 training and 360 test images of 10 classes.

    The test images are the same for every seed, with the classes in proportion.

    :param n_experiences: 1, 2, 5 or 10; each gets the same number of classes.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width; the originals are 8x8.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    :return: streams ``train_stream`` and ``test_stream`` in model space, of shape
        ``(1, image_size, image_size)``.
    :raises ValueError: if the experiences cannot have equal numbers of classes, or for a
        seed or an image size that is not an integer of 0, or of 1, or more.

    >>> benchmark = SplitDigits(5)
    >>> [len(experience.dataset) for experience in benchmark.test_stream]
    [72, 73, 73, 71, 71]
    """
    check_split(n_experiences, 10, seed, image_size)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / _MAXIMUM
    labels = torch.tensor(digits.target)
    parts = train_test_split(
        range(len(images)), test_size=_TEST_SHARE, stratify=labels, random_state=0
    )
    train, test = (as_dataset(images[part], labels[part]) for part in parts)
    return class_incremental(
        train, test, n_experiences, seed=seed, image_size=image_size, shuffle=shuffle
    )
