"""Bring any Avalanche classification benchmark to model space, once."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.benchmarks.scenarios.online import OnlineCLExperience
from avalanche.benchmarks.utils import ConstantSequence, DataAttribute, TaskLabels
from torch import Tensor
from torchvision.transforms.functional import get_dimensions

from avalanche_gd.checks import HIGHEST_SEED, check_integer, check_sample_shape
from avalanche_gd.data.benchmark import (
    StreamsBenchmark,
    as_benchmark,
    check_not_empty,
    check_one_numbering,
)
from avalanche_gd.data.images import (
    DatasetImages,
    ImageDataset,
    LabelledImages,
)
from avalanche_gd.data.pixels import Pixels
from avalanche_gd.data.stored_images import StoredImages
from avalanche_gd.models.random_state import same_draws


def class_incremental(
    train: Any,
    test: Any,
    n_experiences: int,
    *,
    seed: int,
    image_size: int,
    shuffle: bool = True,
) -> StreamsBenchmark:
    """Make Avalanche's ``nc_benchmark`` of two datasets, in model space.

    :param train: a dataset with ``targets``, the classes from 0; its items are like those
        of :func:`to_model_space`.
    :param test: such a dataset.
    :param n_experiences: see :func:`check_split`.
    :param seed: decides the order of the classes. The global random state does not change.
    :param image_size: height and width of the result; it has the channels of the images.
    :param shuffle: False to keep the classes in their own order, whatever the seed.
    """
    n_classes = int(max(train.targets)) + 1
    check_split(n_experiences, n_classes, seed, image_size)
    generator = torch.Generator().manual_seed(int(seed))
    order = torch.arange(n_classes)
    if shuffle:
        order = torch.randperm(n_classes, generator=generator)
    benchmark = nc_benchmark(
        train, test, n_experiences, task_labels=False, fixed_class_order=order.tolist()
    )
    channels, _, _ = get_dimensions(train[0][0])
    return to_model_space(benchmark, (channels, image_size, image_size))


def to_model_space(benchmark: Any, sample_shape: tuple[int, int, int]) -> StreamsBenchmark:
    """Return the same streams with every image resized once, in model space.

    The order of experiences, classes and images does not change; every experience has task
    label 0. The result has the attributes of Avalanche's class-incremental benchmarks:
    ``n_classes``, ``n_experiences``, ``classes_order``, ``n_classes_per_exp``,
    ``original_classes_in_exp``, ...

    Images of 8 bits are resized by PIL, which rounds, and stored in memory as uint8: an
    item, or a batch, is converted to model space when it is read. Images that an image
    folder stores in a file in this shape stay there. Float images are scaled once and
    stored so.

    :param benchmark: an Avalanche classification benchmark whose items begin with an
        image: a PIL image, a uint8 tensor ``(C, H, W)``, or a float one in ``[0, 1]``.
        PIL images have mode L, LA, RGB, RGBA or F; those of mode 1 are read as grey, and
        those with a palette as grey or RGB, as ``sample_shape`` has 1 or 3 channels.
        If the float images of the benchmark reach below -0.1, and none is outside of
        ``[-1, 1]``, they are in model space already, and are not scaled again. What is
        outside by 0.001 or less is rounding, and is clipped.
        The transforms of the benchmark are not applied; those of a dataset within it are,
        once: what they draw stays. The global random state does not change.
    :param sample_shape: ``(C, H, W)`` of the items of the result, float32 in ``[-1, 1]``;
        resized bilinearly with antialiasing.
    :raises ValueError: if the benchmark was split into the pieces of an online stream, if
        the channels do not fit, if a PIL image has another mode or a colour that is
        transparent, if a float image is outside of these ranges, if an experience has both
        float and 8-bit images, or a benchmark both floats below 0 and 8-bit images, if its
        8-bit images have ones and nothing above, if an image is of another type, if an
        experience is empty, if there are no labels, or some that are not whole numbers, if
        different classes have one number and only task labels tell them apart, or for
        another ``sample_shape``.
    """
    pixels = Pixels(check_sample_shape(sample_shape))

    def read(dataset: Any) -> ImageDataset:
        labels = labels_of(dataset)
        return as_dataset(pixels.read(dataset), labels)

    with same_draws():
        result = _each(benchmark, read)
    pixels.scale()
    return result


def on_device(benchmark: Any, device: torch.device) -> StreamsBenchmark:
    """Return the same streams with all images and labels in the memory of a device.

    So a training step has to copy nothing to it. Images that are uint8 stay uint8.

    :param benchmark: for example from :func:`to_model_space`.
    :raises ValueError: if the benchmark was split into the pieces of an online stream, if
        an experience is empty, or has no labels, or if different classes have one number
        and only task labels tell them apart.
    """
    return _each(
        benchmark,
        lambda dataset: as_dataset(*(x.to(device) for x in kept_tensors(dataset))),
    )


def _each(benchmark: Any, change: Callable[[Any], Any]) -> StreamsBenchmark:
    check_one_numbering(benchmark)
    streams: dict[str, list[Any]] = {}
    for name, stream in benchmark.streams.items():
        experiences = list(stream)
        if any(isinstance(part, OnlineCLExperience) for part in experiences):
            raise ValueError(
                f"the stream {name} was split into pieces, which would become whole "
                "experiences; convert the benchmark first, then split its stream"
            )
        datasets = [experience.dataset for experience in experiences]
        check_not_empty(name, datasets)
        streams[name] = [change(dataset) for dataset in datasets]
    return as_benchmark(like=benchmark, **streams)


def stream_tensors(stream: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of a stream, such as one from :func:`to_model_space`.

    :return: ``(N, C, H, W)`` and ``(N,)``.
    :raises ValueError: if it has no experiences, an empty one, no labels, or images that
        are not tensors of floats.
    """
    parts = [dataset_tensors(experience.dataset) for experience in stream]
    if not parts:
        raise ValueError("a stream without experiences has no images")
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def dataset_tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of an Avalanche dataset.

    :return: ``(N, C, H, W)`` and ``(N,)``.
    :raises ValueError: if it is empty, or has no labels, or images that are not tensors of
        floats.
    """
    _check_images(dataset)
    images = DatasetImages([dataset])[torch.arange(len(dataset))]
    if not images.is_floating_point():
        raise ValueError(
            f"images of {images.dtype} are not in model space; bring the benchmark there "
            "by to_model_space"
        )
    return images, labels_of(dataset)


def kept_tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """The images and labels from which :func:`as_dataset` makes a dataset of these items.

    :return: the images, as uint8 if all of them are stored so, and the labels.
    :raises ValueError: if it is empty, or has no labels, or images that are no tensors.
    """
    _check_images(dataset)
    return DatasetImages([dataset]).kept(range(len(dataset))), labels_of(dataset)


def _check_images(dataset: Any) -> None:
    """Raise ValueError if a dataset is empty."""
    if len(dataset) == 0:
        raise ValueError("an empty dataset has no images; remove its experience")


def dataset_classes(dataset: Any) -> frozenset[int]:
    """The classes in an Avalanche dataset; none if it has no labels.

    :raises ValueError: if a label is not a whole number.
    """
    targets = getattr(dataset, "targets", ())
    return frozenset(_whole(label) for label in getattr(targets, "uniques", targets))


def has_label(item: Any, dataset: Any) -> bool:
    """Whether an item, or a batch, of a dataset has a label after the image.

    A task label that Avalanche appends does not count.
    """
    parts = len(item) if isinstance(item, tuple | list) else 1
    tasks = getattr(dataset, "targets_task_labels", None)
    return parts - bool(getattr(tasks, "use_in_getitem", False)) > 1


def as_dataset(images: Tensor | StoredImages, labels: Tensor) -> ImageDataset:
    """Make an Avalanche dataset of tensors, with task label 0.

    :param images: ``(N, C, H, W)``; uint8 images are converted to model space when they
        are read.
    :param labels: ``(N,)``.
    """
    targets = DataAttribute(labels.tolist(), "targets")
    task_labels = TaskLabels(ConstantSequence(0, len(labels)))
    return ImageDataset(
        [LabelledImages(images, labels)], data_attributes=[targets, task_labels]
    )


def check_experiences(n_experiences: int, n_classes: int) -> None:
    """Raise ValueError unless the experiences can have equal numbers of classes."""
    divisors = [n for n in range(1, n_classes + 1) if n_classes % n == 0]
    is_integer = isinstance(n_experiences, Integral) and not isinstance(n_experiences, bool)
    if not is_integer or n_experiences not in divisors:
        raise ValueError(
            f"{n_classes} classes cannot be shared equally by {n_experiences!r} "
            f"experiences; choose n_experiences from {', '.join(map(str, divisors))}"
        )


def check_split(n_experiences: int, n_classes: int, seed: int, image_size: int) -> None:
    """Raise ValueError unless a benchmark can be made of these arguments."""
    check_experiences(n_experiences, n_classes)
    check_integer("seed", seed, 0, HIGHEST_SEED)
    check_integer("image_size", image_size)


def labels_of(dataset: Any) -> Tensor:
    """The labels of an Avalanche dataset, ``(N,)``.

    :raises ValueError: if it has none, or one that is not a whole number.
    """
    if not hasattr(dataset, "targets"):
        raise ValueError(
            "a dataset has no labels; give one with targets, such as those of Avalanche's "
            "classification benchmarks"
        )
    labels = [_whole(label) for label in dataset.targets]
    return torch.tensor(labels, dtype=torch.long)


def _whole(label: Any) -> int:
    """A label as an ``int``.

    :raises ValueError: if it is not a whole number.
    """
    number = int(label)
    if number != label:
        raise ValueError(f"labels must be integers, got {label!r}")
    return number
