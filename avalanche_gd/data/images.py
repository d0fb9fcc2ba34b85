"""How images are stored, and how they are read for a model.

Images of 8 bits are stored as uint8, a quarter of the memory, and converted to model space
when they are read, a batch at a time if a batch is read.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import torch
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    TaskAwareSupervisedClassificationDataset,
)
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.benchmarks.utils.flat_data import FlatData
from torch import Tensor
from torch.utils.data import Dataset

from avalanche_gd.data.stored_images import StoredImages

_CHUNK = 1024  # images per read when all are read

Place = tuple[Any, int]
"""An Avalanche dataset and an index."""


def in_model_space(images: Tensor) -> Tensor:
    """Convert uint8 images to ``x / 127.5 - 1``, float32; return other images as they are.

    By a table, so that the bits are the same on every device.
    """
    if images.dtype != torch.uint8:
        return images
    levels = _levels(images.device)
    return levels.index_select(0, images.flatten().int()).view(images.shape)


@cache
def _levels(device: torch.device) -> Tensor:
    return (torch.arange(256) / 127.5 - 1).to(device)


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels, whose items are in model space.

    :param images: ``(N, C, H, W)``, in model space or uint8.
    :param labels: ``(N,)``.
    """

    def __init__(self, images: Tensor | StoredImages, labels: Tensor):
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return in_model_space(self.images[index]), self.labels[index]


class ImageDataset(TaskAwareSupervisedClassificationDataset):
    """An Avalanche dataset from which torch's ``DataLoader`` reads a batch at once."""

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        return items_at([(self, index) for index in indices])


def read_batches_at_once(loader: Any) -> None:
    """Make an Avalanche loader convert a whole batch to model space at once.

    Its batches stay the same. torch's own loader already does so.

    :param loader: any loader; only one that joins datasets is changed.
    """
    if not isinstance(loader, MultiDatasetDataLoader):
        return
    made = partial(_made_at_once, loader)  # unlike a function in here, it can be pickled
    loader._make_pytorch_loader = made  # type: ignore[method-assign]


def _made_at_once(loader: Any, datasets: Any, batch_sampler: Any) -> Any:
    """The loader that Avalanche's makes of some datasets, with a batch read at once."""
    made: Any = type(loader)._make_pytorch_loader(loader, datasets, batch_sampler)
    made.dataset.__getitems__ = partial(_joined_items, made.dataset)
    return made


def _joined_items(joined: Any, indices: Sequence[int]) -> list[Any]:
    """The items of a ``ConcatDataset`` at some indices."""
    starts = [0, *joined.cumulative_sizes]
    parts = [bisect_right(joined.cumulative_sizes, index) for index in indices]
    pairs = zip(parts, indices, strict=True)
    return items_at([(joined.datasets[part], i - starts[part]) for part, i in pairs])


def items_at(places: Sequence[Place]) -> list[Any]:
    """The items at some places; their uint8 images are converted to model space at once."""
    items, as_bytes = [], []
    for dataset, index in places:
        place = place_of(dataset, index)
        if place is None:
            items.append(dataset[index])
            continue
        kept, at = place
        attributes = dataset._data_attributes.values()
        appended = [part[index] for part in attributes if part.use_in_getitem]
        items.append([kept.images[at], kept.labels[at], *appended])
        if _is_bytes(kept):
            as_bytes.append(items[-1])
    if as_bytes:
        images = in_model_space(torch.stack([item[0] for item in as_bytes]))
        for item, image in zip(as_bytes, images, strict=True):
            item[0] = image
    return items


def place_of(dataset: Any, index: int) -> tuple[LabelledImages, int] | None:
    """Where an item of an Avalanche dataset is stored.

    :return: None if it is stored elsewhere, or if a transform changes it.
    """
    if getattr(type(dataset), "__getitem__", None) is not AvalancheDataset.__getitem__:
        return None  # a class that we do not know
    data = dataset._flat_data
    group = data._transform_groups.current_group
    while isinstance(data, FlatData):
        if _has_transform(data, group):
            return None
        part, index = data._get_idx(index)
        data = data._datasets[part]
    return (data, index) if isinstance(data, LabelledImages) else None


def _is_bytes(kept: LabelledImages) -> bool:
    return kept.images.dtype == torch.uint8


def _has_transform(data: Any, group: str) -> bool:
    names = ("_frozen_transform_groups", "_transform_groups")
    both = [getattr(data, name) for name in names if hasattr(data, name)]  # or neither
    return any(groups.transform_groups.get(group) is not None for groups in both)


def kept_image(dataset: Any, index: int) -> Any:
    """The image of an item as it is stored; if that is not known, as the item has it."""
    place = place_of(dataset, index)
    return image_of(dataset[index]) if place is None else place[0].images[place[1]]


def image_of(item: Any) -> Any:
    """The image of an item of a dataset: its first part, or the whole item."""
    return item[0] if isinstance(item, tuple | list) else item


class DatasetImages:
    """The images of several datasets in a row, read only when they are used.

    :param datasets: Avalanche datasets; at least one is not empty.
    """

    def __init__(self, datasets: Iterable[Any]):
        self._places = [(data, i) for data in datasets for i in range(len(data))]
        kept = [place_of(*place) for place in self._places]
        self._kept = [place for place in kept if place and _is_bytes(place[0])]
        self._all_kept = len(self._kept) == len(kept)
        self.shape = (len(kept), *self.kept([0]).shape[1:])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The images of some items, ``(len(indices), C, H, W)``."""
        images = self.kept(indices.tolist())
        return in_model_space(images) if self._all_kept else images

    def kept(self, indices: Iterable[int]) -> Tensor:
        """The same images by index, but as uint8 if all images are stored as uint8."""
        if self._all_kept:
            places = (self._kept[index] for index in indices)
            return torch.stack([kept.images[at] for kept, at in places])
        items = (self._places[index] for index in indices)
        images = [image_of(dataset[index]) for dataset, index in items]
        for image in images:
            if not isinstance(image, Tensor):
                raise ValueError(
                    f"an image is a {type(image).__name__}, not a tensor; bring the "
                    "benchmark to model space by to_model_space"
                )
        return torch.stack(images)

    def parts(self, order: Tensor) -> Iterator[Tensor]:
        """All images as they are stored: uint8 images in parts, others as one tensor.

        :param order: the indices of the images, ``(N,)``.
        """
        for indices in order.split(_CHUNK if self._all_kept else len(self)):
            yield self.kept(indices.tolist())
