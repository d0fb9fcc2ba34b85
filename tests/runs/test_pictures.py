"""The pictures of a run."""

import numpy as np
import pytest
import torch
from PIL import Image

from avalanche_gd.runs.pictures import save_samples


@pytest.mark.parametrize("count", [2, 10, 64, 70])
def test_the_grid_is_eight_by_eight_however_many_images_there_are(tmp_path, count):
    images = torch.full((count, 1, 8, 8), -1.0)
    save_samples(images, tmp_path / "grid.png")
    pixels = np.array(Image.open(tmp_path / "grid.png").convert("L"))
    assert pixels.shape == (511, 511)
    centres = pixels[35::63, 35::63]
    assert (centres == 0).sum() == min(count, 64)
    assert (centres == 255).sum() == 64 - min(count, 64)
