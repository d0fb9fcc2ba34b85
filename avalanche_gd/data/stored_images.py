"""Images in a file of the cache, read only when they are used."""

import math
import os
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from avalanche_gd.storage import cache_folder, content_digest, write_whole

_CHUNK = 2**20  # bytes per read in the check of a file


class StoredImages:
    """Images in a file, uint8, which take no memory.

    They are read from the file and not memory-mapped, as pages of a mapped file count as
    resident memory of the process. The operating system caches what it has room for.

    :param path: a file that begins with the bytes of the images. It is kept open, as users
        may delete the cache at any time.
    :param shape: ``(C, H, W)`` of an image.
    :param places: which of the file's images these are.
    :param file: the file, if it is open already.
    """

    dtype = torch.uint8

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        places: Sequence[int],
        file: BinaryIO | None = None,
    ):
        self.shape = (len(places), *shape)
        self._path = path
        self._places = places
        self._file = open(path, "rb") if file is None else file  # noqa: SIM115

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """One image, ``(C, H, W)``."""
        image = torch.empty(self.shape[1:], dtype=torch.uint8)
        start = self._places[index] * image.nbytes
        if os.preadv(self._file.fileno(), [image.numpy().data], start) < image.nbytes:
            raise OSError(f"{self._path} was cut short while it was in use")
        return image

    def subset(self, indices: Iterable[int]) -> "StoredImages":
        """Some of these images."""
        places = array("q", (self._places[index] for index in indices))
        return StoredImages(self._path, self.shape[1:], places, self._file)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # for another process
        return StoredImages, (self._path, self.shape[1:], self._places)


def stored_images(
    kind: str,
    key: Iterable[object],
    shape: tuple[int, int, int, int],
    make: Callable[[], Iterator[Tensor]],
) -> StoredImages | Tensor:
    """Make the images for a key, or read them from the cache.

    Like :func:`avalanche_gd.storage.cached`, but each image is written when it is made, so
    that they are never together in memory unless the cache cannot be written.

    :param kind: the first part of the file's name; the second is a digest of the key.
    :param key: all that decides the result.
    :param shape: ``(N, C, H, W)`` of the result.
    :param make: returns one image after another, uint8 ``(C, H, W)``.
    """
    digest = content_digest([shape, *key])
    path = cache_folder() / f"{kind}-{digest[:16]}.bytes"
    try:
        return _open(path, shape, digest)
    except FileNotFoundError:
        pass
    except Exception as error:  # users may delete a cache at any time
        warnings.warn(
            f"cannot use the cached {path} ({error}); it is made again", stacklevel=3
        )
    try:
        write_whole(path, lambda beside: _write(beside, digest, make()))
        return StoredImages(path, shape[1:], range(shape[0]))
    except ValueError as error:
        if not str(error).startswith(f"cannot write {path}"):
            raise  # an error from make
        warnings.warn(
            f"{error}; set AVALANCHE_GD_CACHE to a folder that you can write to",
            stacklevel=3,
        )
    return torch.stack(list(make()))


def _write(path: Path, digest: str, images: Iterator[Tensor]) -> None:
    """Write the bytes of the images, and a digest of the key and of them."""
    content = sha256(digest.encode())
    with open(path, "wb") as file:
        for image in images:
            pixels = image.contiguous().numpy().data
            content.update(pixels)
            file.write(pixels)
        file.write(content.digest())


def _open(path: Path, shape: tuple[int, int, int, int], digest: str) -> StoredImages:
    content = sha256(digest.encode())
    with open(path, "rb") as file:
        left = math.prod(shape)
        while left and (part := file.read(min(left, _CHUNK))):
            content.update(part)
            left -= len(part)
        if file.read() != content.digest():
            raise ValueError("damaged, or made for another key")
    return StoredImages(path, shape[1:], range(shape[0]))
