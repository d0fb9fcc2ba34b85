"""Which of PIL's modes are read, and how."""

from typing import Any

from PIL import Image

_READ = ("L", "LA", "RGB", "RGBA", "F")
_PALETTE = {1: "L", 3: "RGB"}  # what a palette is converted to, by channels


def with_plain_channels(picture: Image.Image, channels: int) -> Image.Image:
    """Return a picture whose channels are brightness, of 8 bits or floats.

    :param picture: of single bits or with a palette, it is converted; else left as it is.
    :param channels: 1 to read a palette as grey, 3 to read it as RGB.
    :raises ValueError: for another mode, or a palette for other channels; or if a colour
        that is transparent is in it. Transparency that is a channel is kept as one.
    """
    if "A" not in picture.getbands() and is_transparent(picture):
        raise ValueError(
            "an image is transparent in places, by a colour; flatten it onto a background"
        )
    mode = {"1": "L", "P": _PALETTE.get(channels)}.get(picture.mode)
    if mode is not None:
        return picture.convert(mode)
    if picture.mode not in _READ:
        raise ValueError(
            f"images of PIL's mode {picture.mode} are not read; convert them to L or RGB"
        )
    return picture


def is_transparent(picture: Image.Image) -> bool:
    """True unless all pixels are opaque. What transparency hides may be anything."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return False
    bounds: Any = picture.convert("RGBA").getchannel("A").getextrema()
    return bounds[0] < 255
