"""The classifiers of solvers and oracles."""

from collections.abc import Callable

import torch
from avalanche.models import SimpleCNN, SimpleMLP
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_gd.checks import check_choice, check_integer, check_sample_shape


class SmallCNN(nn.Module):
    """A classifier: two convolutions, a layer of features and a linear layer.

    :param sample_shape: ``(C, H, W)`` of an image, height and width at least 4.
    :param num_classes: the number of logits.
    :param num_features: the size of the penultimate layer.
    :raises ValueError: if the images are smaller than 4x4, or if a number is not an integer
        of 1 or more.
    """

    def __init__(
        self,
        sample_shape: tuple[int, int, int],
        num_classes: int,
        *,
        num_features: int = 64,
    ):
        super().__init__()
        channels, height, width = check_sample_shape(sample_shape)
        if min(height, width) < 4:
            raise ValueError(f"images must be at least 4x4, got {height}x{width}")
        self.num_features = num_features = check_integer("num_features", num_features)
        self.num_classes = num_classes = check_integer("num_classes", num_classes)
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.hidden = nn.Linear(64 * (height // 4) * (width // 4), num_features)
        self.classifier = nn.Linear(num_features, num_classes)

    def get_features(self, x: Tensor) -> Tensor:
        """Compute the activations of the penultimate layer.

        :param x: images in model space, ``(N, C, H, W)``.
        :return: ``(N, num_features)``, non-negative.
        """
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.hidden(torch.flatten(x, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in model space: ``(N, C, H, W)`` to ``(N, num_classes)``."""
        return self.classifier(self.get_features(x))


_SIMPLE_CNN_SIDE = 10  # a smaller image has no pixel left before the last pooling


def _simple_cnn(sample_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Avalanche's SimpleCNN for the images' channels, wider from the fourth layer on."""
    channels, height, width = sample_shape
    if min(height, width) < _SIMPLE_CNN_SIDE:
        side = _SIMPLE_CNN_SIDE
        raise ValueError(
            f"simple_cnn needs images of {side}x{side} or more, got {height}x{width}; "
            "choose small_cnn"
        )
    model = SimpleCNN(num_classes)
    model.features[0] = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
    model.features[8] = nn.Conv2d(64, 128, kernel_size=3)
    model.features[12] = nn.Conv2d(128, 128, kernel_size=1)
    model.classifier[0] = nn.Linear(128, num_classes)
    return model


def _simple_mlp(sample_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    channels, height, width = sample_shape
    return SimpleMLP(num_classes, input_size=channels * height * width)


CLASSIFIERS: dict[str, Callable[[tuple[int, int, int], int], nn.Module]] = {
    "small_cnn": SmallCNN,
    "simple_cnn": _simple_cnn,
    "mlp": _simple_mlp,
}
"""Solvers by name: this package's, the paper's, and Avalanche's ``SimpleMLP``."""


def classifier(
    name: str, sample_shape: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Make a classifier with random weights.

    ``simple_cnn`` is the solver of generative distillation (arXiv 2311.14028, its authors'
    code): Avalanche's ``SimpleCNN``, but with 128 instead of 64 channels from the fourth
    convolution on. With ten classes it has 119,722 parameters for one channel and 120,298
    for three.

    :param name: a key of :data:`CLASSIFIERS`.
    :param sample_shape: ``(C, H, W)`` of an image in model space; for ``small_cnn`` at
        least 4x4, for ``simple_cnn`` 10x10.
    :param num_classes: the number of logits.
    :raises ValueError: if there is no classifier of that name, for smaller images, or for
        a number that is not an integer of 1 or more.
    """
    check_choice("solver architecture", name, CLASSIFIERS)
    shape = check_sample_shape(sample_shape)
    return CLASSIFIERS[name](shape, check_integer("num_classes", num_classes))
