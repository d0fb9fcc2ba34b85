"""The convolutional classifier of solvers and oracles."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avalanche_gd.checks import check_integer, check_sample_shape


class SmallCNN(nn.Module):
    """Two convolutions, a layer of features and a linear read-out.

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
        """The penultimate layer.

        :param x: images in model space, ``(N, C, H, W)``.
        :return: ``(N, num_features)``, non-negative.
        """
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.hidden(torch.flatten(x, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in model space: ``(N, C, H, W)`` to ``(N, num_classes)``."""
        return self.classifier(self.get_features(x))
