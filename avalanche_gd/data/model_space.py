"""Any Avalanche classification benchmark, in model space, transformed once."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    with_classes_timeline,
)
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario
from avalanche.benchmarks.scenarios.task_aware import with_task_labels
from avalanche.benchmarks.utils import (
    ConstantSequence,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
)
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import get_dimensions, pil_to_tensor

_CHUNK = 1024  # images brought to model space at once


def class_incremental(
    train: Any, test: Any, n_experiences: int, *, seed: int, image_size: int
) -> CLScenario:
    """Avalanche's ``nc_benchmark`` of two datasets, in model space.

    :param train: a dataset with ``targets``, the classes from 0; its items are as
        :func:`to_model_space` takes them.
    :param test: such a dataset.
    :param n_experiences: see :func:`check_experiences`.
    :param seed: decides the order of the classes. The global random state is left alone.
    :param image_size: height and width of the result; it has the channels of the images.
    """
    generator = torch.Generator().manual_seed(int(seed))
    order = torch.randperm(int(max(train.targets)) + 1, generator=generator)
    benchmark = nc_benchmark(
        train, test, n_experiences, task_labels=False, fixed_class_order=order.tolist()
    )
    channels, _, _ = get_dimensions(train[0][0])
    return to_model_space(benchmark, (channels, image_size, image_size))


def to_model_space(benchmark: Any, sample_shape: tuple[int, int, int]) -> CLScenario:
    """The same streams with every image resized and scaled once, kept as tensors.

    A training step then only indexes a tensor. The order of experiences, classes and
    images stays as it is; every experience has task label 0.

    :param benchmark: an Avalanche classification benchmark whose items begin with an
        image: a PIL image, a uint8 tensor ``(C, H, W)``, or a float one in ``[0, 1]``.
        Its own transforms are not applied.
    :param sample_shape: ``(C, H, W)`` of the result, float32 in ``[-1, 1]``; resized
        bilinearly with antialiasing.
    :raises ValueError: if the channels do not fit, or a float image is outside
        ``[0, 1]``.
    """
    return _each(benchmark, partial(_tensor_dataset, sample_shape=sample_shape))


def as_benchmark(**streams: Any) -> CLScenario:
    """A benchmark of Avalanche datasets by stream, whose streams know it.

    :param streams: the datasets of the experiences of ``train``, ``test``, and others.
    """
    scenario = with_task_labels(with_classes_timeline(benchmark_from_datasets(**streams)))
    for stream in scenario.streams.values():
        stream.benchmark = scenario  # Avalanche's own builder leaves it out
    return scenario


def on_device(benchmark: Any, device: torch.device) -> CLScenario:
    """The same streams with all images and labels in the memory of a device.

    So that a step copies nothing to it.

    :param benchmark: such as one of :func:`to_model_space`.
    """
    return _each(
        benchmark,
        lambda dataset: as_dataset(*(x.to(device) for x in dataset_tensors(dataset))),
    )


def _each(benchmark: Any, change: Callable[[Any], Any]) -> CLScenario:
    streams = {
        name: [change(experience.dataset) for experience in stream]
        for name, stream in benchmark.streams.items()
    }
    return as_benchmark(**streams)


def stream_tensors(stream: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of a stream, such as one of :func:`to_model_space`.

    :return: ``(N, C, H, W)`` and ``(N,)``.
    """
    parts = [dataset_tensors(experience.dataset) for experience in stream]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def dataset_tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """All images and labels of an Avalanche dataset.

    :return: ``(N, C, H, W)`` and ``(N,)``.
    """
    images = [item[0] for item in _items(dataset)]
    return torch.stack(images), _labels(dataset)


def as_dataset(images: Tensor, labels: Tensor) -> TaskAwareSupervisedClassificationDataset:
    """An Avalanche dataset of tensors, with task label 0.

    :param images: ``(N, C, H, W)``.
    :param labels: ``(N,)``.
    """
    targets = DataAttribute(labels.tolist(), "targets")
    task_labels = TaskLabels(ConstantSequence(0, len(labels)))
    return TaskAwareSupervisedClassificationDataset(
        [TensorDataset(images, labels)], data_attributes=[targets, task_labels]
    )


def check_experiences(n_experiences: int, n_classes: int) -> None:
    """Raise ValueError unless the classes can be dealt evenly to the experiences."""
    if not 1 <= n_experiences <= n_classes or n_classes % n_experiences:
        divisors = [n for n in range(1, n_classes + 1) if n_classes % n == 0]
        raise ValueError(
            f"{n_classes} classes cannot be dealt evenly to {n_experiences} experiences; "
            f"choose n_experiences from {', '.join(map(str, divisors))}"
        )


def _tensor_dataset(
    dataset: Any, sample_shape: tuple[int, int, int]
) -> TaskAwareSupervisedClassificationDataset:
    """A dataset in model space, of whose images only a chunk is ever held twice."""
    images = torch.empty(len(dataset), *sample_shape)
    items = _items(dataset.remove_current_transform_group())
    for part in images.split(_CHUNK):
        pixels = [_as_tensor(item[0], sample_shape) for item in islice(items, len(part))]
        part.copy_(_in_model_space(torch.stack(pixels), sample_shape))
    return as_dataset(images, _labels(dataset))


def _labels(dataset: Any) -> Tensor:
    return torch.tensor([int(label) for label in dataset.targets])


def _items(dataset: Any) -> Iterator[Any]:
    return (dataset[i] for i in range(len(dataset)))


def _as_tensor(image: Any, sample_shape: tuple[int, int, int]) -> Tensor:
    tensor = image if isinstance(image, Tensor) else pil_to_tensor(image)
    if len(tensor) != sample_shape[0]:
        raise ValueError(
            f"images with {len(tensor)} channels do not fit a model of {sample_shape}; "
            f"choose a preset with {len(tensor)} channels"
        )
    return tensor


def _in_model_space(pixels: Tensor, sample_shape: tuple[int, int, int]) -> Tensor:
    """From pixels ``(N, C, H, W)`` to model space, resized."""
    unit = pixels / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if unit.min() < 0 or unit.max() > 1:
        raise ValueError(
            "float images must be in [0, 1] to be brought to model space; these "
            f"reach from {unit.min():g} to {unit.max():g}"
        )
    size = sample_shape[1:]
    if unit.shape[2:] != size:
        unit = F.interpolate(unit, size, mode="bilinear", antialias=True)
    return unit.mul_(2).sub_(1)
