"""Decode image files to pixels of one size, once."""

import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE
from torch import Tensor
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from avalanche_gd.data.picture_modes import is_transparent
from avalanche_gd.data.stored_images import StoredImages, stored_images

_MODES = {1: "L", 3: "RGB"}  # PIL's names, by channels
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # PIL's, by a file's content
_RULE = "opaque, shorter side resized bilinearly, centre"  # part of the key in the cache


def decoded_images(
    root: Path, files: Sequence[str], *, channels: int, image_size: int
) -> StoredImages | Tensor:
    """Decode image files, or read their pixels from the cache.

    An image's shorter side is resized to ``image_size``, bilinearly with antialiasing,
    and its centre is kept. As in torchvision, the orientation in EXIF data is not heeded.

    :param root: the folder of the files.
    :param files: their paths, below ``root``.
    :param channels: 3, or 1 for grey.
    :param image_size: height and width of the result.
    :return: uint8, ``(N, channels, image_size, image_size)``; in memory only if the cache
        cannot be written.
    :raises ValueError: if a file cannot be read as a JPEG, PNG, PPM (with PGM), BMP, TIFF
        or WebP image with 8 bits per channel, whatever its name ends in; if it is
        transparent somewhere; or if it has more pixels than PIL's
        ``Image.MAX_IMAGE_PIXELS``, 89 million.
    """
    shape = (len(files), channels, image_size, image_size)

    def decode() -> Iterator[Tensor]:
        for file in files:
            yield _decode(file, channels, image_size)

    states = (_state(root, file) for file in files)
    key = chain((_RULE, str(root.resolve())), states)
    return stored_images("images", key, shape, decode)


def _decode(file: str, channels: int, image_size: int) -> Tensor:
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # PIL would wait for a pipe
            raise ValueError("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Without formats=, PIL would give PostScript files to Ghostscript.
            with Image.open(file, formats=_FORMATS) as image:
                if _is_deep(image):
                    raise ValueError("more than 8 bits per channel")
                if is_transparent(image):
                    raise ValueError("transparent in places: flatten it onto a background")
                pixels = image.convert(_MODES[channels])
    except UnidentifiedImageError as error:
        raise ValueError(
            f"cannot read the image {file} (none of {', '.join(_FORMATS)}); replace or "
            "delete it"
        ) from error
    except Exception as error:  # PIL's decoders raise errors of many kinds
        raise ValueError(
            f"cannot read the image {file} ({error}); replace or delete it"
        ) from error
    return pil_to_tensor(center_crop(resize(pixels, [image_size]), [image_size]))


def _is_deep(image: ImageFile) -> bool:
    """True for more than 8 bits per channel, which PIL would clip or drop.

    :param image: opened, but not decoded yet.
    """
    if image.mode.startswith(("I", "F")):
        return True
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8  # type: ignore[attr-defined]
    layouts = [tile[3] for tile in image.tile]  # of the pixels in the file
    if image.format == "PNG":
        return any("16" in str(layout) for layout in layouts)  # as in RGB;16B
    if image.format == "PPM":  # a highest value that is not 255 is beside the mode
        return any(isinstance(layout, tuple) and layout[1] > 255 for layout in layouts)
    return False


def _state(root: Path, file: str) -> tuple[object, ...]:
    """What changes with a file: its name, its size, its time of change."""
    name = file.removeprefix(str(root))
    if not os.path.exists(file):  # a link to nothing, for which decoding raises an error
        return (name,)
    state = os.stat(file)
    return name, state.st_size, state.st_mtime_ns
