"""Which of PIL's modes are read, and how."""

from PIL import Image

_READ = ("L", "LA", "RGB", "RGBA", "F")
_PALETTE = {1: "L", 3: "RGB"}  # what a palette is converted to, by channels


def with_plain_channels(picture: Image.Image, channels: int) -> Image.Image:
    """Return a picture whose channels are brightness, of 8 bits or floats.

    :param picture: of single bits or with a palette, it is converted; else left as it is.
    :param channels: 1 to read a palette as grey, 3 to read it as RGB.
    :raises ValueError: for another mode, or a palette for other channels.
    """
    mode = {"1": "L", "P": _PALETTE.get(channels)}.get(picture.mode)
    if mode is not None:
        return picture.convert(mode)
    if picture.mode not in _READ:
        raise ValueError(
            f"images of PIL's mode {picture.mode} are not read; convert them to L or RGB"
        )
    return picture
