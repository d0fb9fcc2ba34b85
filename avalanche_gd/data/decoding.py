"""Image files as pixels of one size, decoded once."""

import hashlib
import os
import warnings
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from avalanche_gd.storage import cache_folder, write_whole

_MODES = {1: "L", 3: "RGB"}  # PIL's names, by channels
_RULE = "shorter side resized bilinearly, centre"  # another one makes other pixels


def decoded_images(
    root: Path, files: list[str], *, channels: int, image_size: int
) -> Tensor:
    """The pixels of image files, from the cache where they are there.

    An image's shorter side is resized to ``image_size``, bilinearly with antialiasing,
    and its centre is kept.

    :param root: the folder of the files.
    :param files: their paths, below ``root``.
    :param channels: 3, or 1 for grey.
    :param image_size: height and width of the result.
    :return: uint8, ``(N, channels, image_size, image_size)``.
    :raises ValueError: if a file cannot be read as an image of 8 bits a channel.
    """
    shape = (len(files), channels, image_size, image_size)
    path = cache_folder() / f"images-{_digest(root, files, shape)}.st"
    images = _load(path, shape)
    if images is None:
        images = torch.empty(shape, dtype=torch.uint8)
        for place, file in zip(images, files, strict=True):
            place.copy_(_decode(file, channels, image_size))
        _save(images, path)
    return images


def _decode(file: str, channels: int, image_size: int) -> Tensor:
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # PIL would clip them to 8 bits
                raise ValueError(f"more than 8 bits a channel, mode {image.mode}")
            pixels = image.convert(_MODES[channels])
    except Exception as error:  # PIL raises whatever its decoders do
        raise ValueError(
            f"cannot read the image {file} ({error}); replace or delete it"
        ) from error
    return pil_to_tensor(center_crop(resize(pixels, [image_size]), [image_size]))


def _digest(root: Path, files: list[str], shape: tuple[int, ...]) -> str:
    digest = hashlib.sha256(repr((_RULE, shape, str(root.resolve()))).encode())
    for file in files:
        try:
            state = os.stat(file)
        except OSError as error:  # such as a link that leads nowhere
            raise ValueError(
                f"cannot read the image {file} ({error.strerror}); replace or delete it"
            ) from error
        name = os.path.relpath(file, root)
        digest.update(repr((name, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]


def _load(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    if not path.exists():
        return None
    try:
        images = safetensors.torch.load_file(path)["images"]
        if images.dtype != torch.uint8 or images.shape != shape:
            raise ValueError(f"not the pixels of {shape[0]} images")
    except Exception as error:  # a cache may be thrown away at any time
        warnings.warn(
            f"cached images {path} are unreadable ({error}); decoding anew", stacklevel=2
        )
        return None
    return images


def _save(images: Tensor, path: Path) -> None:
    write_whole(
        path, lambda beside: safetensors.torch.save_file({"images": images}, beside)
    )
