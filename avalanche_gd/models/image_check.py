"""Check that a diffusion model gets images of its shape, in model space."""

import warnings

import torch
from torch import Tensor

_TOLERANCE = 1e-3  # of model space, for errors of resizing and rounding
_ENOUGH = 8  # batches in a row without a value below 0, after which there is a warning
_LOOK_EVERY = 50  # batches, on an accelerator, which must wait for each check


def check_images(
    x0: Tensor,
    sample_shape: tuple[int, int, int] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Raise ValueError unless images are of the shape and in model space, ``[-1, 1]``.

    Their values are read on the CPU only, as an accelerator would have to wait.

    :param x0: ``(N, C, H, W)``.
    :param sample_shape: ``(C, H, W)`` of an image; None for whatever shape.
    :param dtype: the type that they must have, because the model's weights have it;
        None for a floating type of whatever precision.
    """
    _check_kind(x0, sample_shape, dtype)
    if x0.device.type == "cpu":
        checked_range(x0)


def _check_kind(
    x0: Tensor, sample_shape: tuple[int, int, int] | None, dtype: torch.dtype | None
) -> None:
    if sample_shape is not None and x0.shape[1:] != sample_shape:
        raise ValueError(
            f"images of shape {tuple(x0.shape[1:])} do not fit a model of {sample_shape}; "
            "resize them, for example with avalanche_gd.to_model_space"
        )
    if not x0.is_floating_point():
        raise ValueError(
            f"images must be float and in model space, [-1, 1], not {x0.dtype}; bring "
            "them there, for example with avalanche_gd.to_model_space"
        )
    if dtype not in (None, x0.dtype):
        raise ValueError(
            f"images of {x0.dtype} do not fit a model with weights of {dtype}; change "
            f"them by images.to({dtype}), or the model by model.to({x0.dtype})"
        )


def checked_range(x0: Tensor, what: str = "images") -> tuple[float, float]:
    """The lowest and the highest value; raise ValueError if they are not in model space.

    :param what: the name of the images in the error.
    """
    if not x0.numel():
        return 0.0, 0.0
    low, high = (bound.item() for bound in torch.aminmax(x0))
    if not max(-low, high) <= 1 + _TOLERANCE:  # true for NaN as well
        raise ValueError(
            f"{what} must be in model space, [-1, 1]; these reach from {low:g} to "
            f"{high:g}; bring them there, for example with avalanche_gd.to_model_space"
        )
    return low, high


class ImageCheck:
    """Checks the batches that a model gets.

    On the CPU it checks the values of each batch; on an accelerator, which has to wait for
    that, the values of the first 8 and of each 50th.

    :param sample_shape: ``(C, H, W)`` of an image.
    """

    def __init__(self, sample_shape: tuple[int, int, int]):
        self.sample_shape = sample_shape
        self._batches = 0
        self._without_negatives = 0  # batches in a row
        self._has_warned = False

    def __call__(self, x0: Tensor, dtype: torch.dtype | None = None) -> None:
        """Raise ValueError unless images are of the shape and in model space, ``[-1, 1]``.

        Images in ``[0, 1]`` are in it too, so for these there is a warning, once, after 8
        batches in a row without a value below 0.

        :param x0: ``(N, C, H, W)``.
        :param dtype: the type that they must have, because the model's weights have it;
            None for a floating type of whatever precision.
        """
        _check_kind(x0, self.sample_shape, dtype)
        looks = self._batches < _ENOUGH or self._batches % _LOOK_EVERY == 0
        self._batches += 1
        if looks or x0.device.type == "cpu":
            self._count(*checked_range(x0))

    def _count(self, low: float, high: float) -> None:
        """Warn after 8 batches whose lowest values are not below 0."""
        if low < 0:
            self._without_negatives = 0
        elif high > 0:  # a batch of zeros tells nothing
            self._without_negatives += 1
        if self._without_negatives == _ENOUGH and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{_ENOUGH} batches of images in a row have no value below 0, as if they "
                "were in [0, 1]; model space is [-1, 1]: bring them there with "
                "avalanche_gd.to_model_space, or by 2 * images - 1",
                stacklevel=2,
            )
