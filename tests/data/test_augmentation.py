"""What changes the images of a batch."""

import torch

from avalanche_gd.data.augmentation import HorizontalFlipPlugin
from tests.helpers.small_models import images
from tests.helpers.small_trainings import fake_strategy


def test_flips_mirror_half_of_the_images():
    batch = images(400)
    strategy = fake_strategy(torch.nn.Identity(), mbatch=[batch, "labels"])
    HorizontalFlipPlugin().before_training_iteration(strategy)
    flipped = (strategy.mbatch[0] == batch.flip(-1)).flatten(1).all(1)
    kept = (strategy.mbatch[0] == batch).flatten(1).all(1)
    assert (flipped ^ kept).all()
    assert 150 < flipped.sum() < 250
