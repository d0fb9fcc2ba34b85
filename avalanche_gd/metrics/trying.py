"""Try what a user gave on an image, before any training."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from avalanche_gd.data.images import image_of
from avalanche_gd.models.image_check import checked_range
from avalanche_gd.models.random_state import same_draws

_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def trying(what: str, image: Tensor) -> Iterator[None]:
    """Raise ValueError, in one line, where what is called in here fails.

    The random states do not change.

    :param what: its name in the message.
    :param image: what it is given, on its device.
    """
    try:
        with same_draws(image.device):
            yield
    except _FAILURES as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{what} fails, given an image of {tuple(image.shape)} ({image.dtype}): "
            f"{reason[0]}"
        ) from error


def name_of(function: Any) -> str:
    """The name of a function, or of the class of a module."""
    return str(getattr(function, "__qualname__", type(function).__name__))


def first_image(experience: Any) -> Tensor | None:
    """The first image of an experience, in evaluation; None if it is not a tensor.

    :raises ValueError: if it is not float, or not in model space, where the generated
        images are.
    """
    with same_draws():  # its transforms may draw
        image = image_of(experience.dataset.eval()[0])
    if not isinstance(image, Tensor):
        return None
    if not image.is_floating_point():
        raise ValueError(
            f"images must be float and in model space, [-1, 1], not {image.dtype}; bring "
            "them there, for example with avalanche_gd.to_model_space"
        )
    checked_range(image)
    return image
