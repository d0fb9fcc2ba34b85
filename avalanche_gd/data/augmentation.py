"""Augmentation of the data in training, on the device."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from avalanche_gd.distributed.shares import draw_share


class HorizontalFlipPlugin(SupervisedPlugin, supports_distributed=True):
    """Mirrors each image of a batch left to right, with probability 1/2."""

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Mirror a random half of the images."""
        images = strategy.mbatch[0]
        flipped = draw_share(
            len(images), lambda n: torch.rand(n, 1, 1, 1, device=images.device) < 0.5
        )
        strategy.mbatch[0] = torch.where(flipped, images.flip(-1), images)
