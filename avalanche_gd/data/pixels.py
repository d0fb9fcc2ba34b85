"""The images of a benchmark, resized and scaled to model space."""

from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

from avalanche_gd.data.images import (
    kept_image,
    place_of,
)
from avalanche_gd.data.picture_modes import with_plain_channels
from avalanche_gd.data.stored_images import StoredImages

_CHUNK = 1024  # images of which there are two copies at a time
_ROUNDING = 1e-3  # how far outside of its range a float may be, a quarter of an 8-bit level
_BELOW_ZERO = -0.1  # floats in model space reach further down, if they are below 0 at all


class Pixels:
    """The resized images of a benchmark, and the range of its floats.

    Only when all floats were read it is known if they are in model space already.
    """

    def __init__(self, sample_shape: tuple[int, int, int]):
        self._shape = sample_shape
        self._low = 0.0
        self._with_bytes = False
        self._highest_byte = 0
        self._floats: list[Tensor] = []

    def read(self, dataset: Any) -> Tensor | StoredImages:
        """Read a dataset's images, ``(N, C, H, W)``, with a chunk in memory twice.

        Bytes and stored images are final; floats are scaled in place by :meth:`scale`,
        which has to be called for bytes too.
        """
        dataset = dataset.remove_current_transform_group()
        stored = _stored(dataset, self._shape)
        images = self._resized(dataset) if stored is None else stored
        if isinstance(images, StoredImages) or images.dtype == torch.uint8:
            self._with_bytes = True
            if self._highest_byte <= 1:  # else it is known that they are no zeros and ones
                self._highest_byte = max(self._highest_byte, _highest(images))
        else:
            self._floats.append(images)
        return images

    def scale(self) -> None:
        """Scale all floats that were read to model space, unless they are there already."""
        if self._with_bytes and self._highest_byte == 1:
            raise ValueError(
                "the 8-bit images have no value above 1, and would be almost black; "
                "multiply them by 255, or give floats"
            )
        if self._low >= -_ROUNDING:
            for images in self._floats:
                images.clamp_(min=0).mul_(2).sub_(1)
        elif self._with_bytes:
            raise ValueError(
                "some images are uint8 and others are floats below 0; give all of them in "
                "one range"
            )
        elif self._low > _BELOW_ZERO:
            raise ValueError(
                f"the lowest value of the float images is {self._low:g}, which is neither "
                "in [0, 1] nor clearly in model space, [-1, 1]; clip them to [0, 1]"
            )

    def _resized(self, dataset: Any) -> Tensor:
        """All images of a dataset: uint8 if they have 8 bits, else floats."""
        as_bytes = self._as_tensor(kept_image(dataset, 0)).dtype == torch.uint8
        dtype = torch.uint8 if as_bytes else torch.float32
        images = torch.empty(len(dataset), *self._shape, dtype=dtype)
        items = (kept_image(dataset, index) for index in range(len(dataset)))
        for part in images.split(_CHUNK):
            chunk = [self._as_tensor(item) for item in islice(items, len(part))]
            if any((image.dtype == torch.uint8) != as_bytes for image in chunk):
                raise ValueError(
                    "some images of an experience are uint8 and others are floats; give "
                    "all of them in one range"
                )
            if len({image.shape for image in chunk}) == 1:
                chunk = [torch.stack(chunk)]
            else:  # floats, as bytes have been resized
                chunk = [image[None] for image in chunk]
            pixels = chunk if as_bytes else [self._resized_floats(one) for one in chunk]
            part.copy_(torch.cat(pixels))
        return images

    def _as_tensor(self, image: Any) -> Tensor:
        """An image as a tensor, resized by PIL if it has 8 bits a channel."""
        if isinstance(image, Image.Image):
            image = with_plain_channels(image, self._shape[0])
        elif not isinstance(image, Tensor):
            raise ValueError(
                f"an image is a {type(image).__name__}; give PIL images or tensors, such "
                "as by torchvision's ToTensor"
            )
        tensor = image.detach() if isinstance(image, Tensor) else pil_to_tensor(image)
        if tensor.ndim != 3 or not tensor.numel():
            raise ValueError(
                f"an image is a tensor of shape {tuple(tensor.shape)}; give (C, H, W)"
            )
        if len(tensor) != self._shape[0]:
            raise ValueError(
                f"images with {len(tensor)} channels do not fit a model of {self._shape}; "
                f"choose a preset with {len(tensor)} channels"
            )
        if tensor.dtype != torch.uint8 or tensor.shape[1:] == self._shape[1:]:
            return tensor
        if not isinstance(image, Tensor):
            return pil_to_tensor(self._resized_picture(image))
        # PIL has no images with other numbers of channels.
        planes = (Image.fromarray(channel.cpu().numpy()) for channel in image)
        resized = [np.asarray(self._resized_picture(plane)) for plane in planes]
        return torch.from_numpy(np.stack(resized))

    def _resized_picture(self, picture: Image.Image) -> Image.Image:
        _, height, width = self._shape
        return picture.resize((width, height), Image.Resampling.BILINEAR)

    def _resized_floats(self, pixels: Tensor) -> Tensor:
        """Resize ``(N, C, H, W)`` to floats in [0, 1], or in [-1, 1] if they were there."""
        floats = pixels.float()
        low, high = floats.min().item(), floats.max().item()
        # Of NaN this is true as well.
        if not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
            raise ValueError(
                "float images must be in [0, 1], or in [-1, 1] if they are in model "
                f"space already, but these reach from {low:g} to {high:g}; remove a "
                "Normalize from the dataset's transforms"
            )
        self._low = min(self._low, low)
        floats = floats.clamp(-1, 1)
        size = self._shape[1:]
        if floats.shape[2:] != size:
            floats = F.interpolate(floats, size, mode="bilinear", antialias=True)
        return floats


def _highest(images: Tensor | StoredImages) -> int:
    """The highest value of 8-bit images; of stored ones, any that is above 1."""
    if isinstance(images, Tensor):
        return int(images.max())
    highest = 0
    for index in range(len(images)):
        if highest > 1:
            break
        highest = max(highest, int(images[index].max()))
    return highest


def _stored(dataset: Any, shape: tuple[int, int, int]) -> StoredImages | None:
    """The images of a dataset, if they are stored in a file in this shape already."""
    first = place_of(dataset, 0)
    images = first[0].images if first else None
    if not isinstance(images, StoredImages) or images.shape[1:] != shape:
        return None
    places = [place_of(dataset, index) for index in range(len(dataset))]
    own = [place[1] for place in places if place and place[0].images is images]
    return images.subset(own) if len(own) == len(places) else None
