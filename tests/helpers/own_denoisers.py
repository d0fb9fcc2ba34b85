"""Denoisers that a user might bring, and the settings of the simplest."""

from diffusers import UNet2DModel
from torch import Tensor, nn

from avalanche_gd.models.unet import PRESETS
from tests.helpers.small_models import TinyDenoiser

OWN = [
    "model.preset=null",
    "model._target_=tests.helpers.small_models.TinyDenoiser",
    "model.sample_shape=[1,8,8]",
]


class Conditioned(nn.Module):
    """Knows the class, and says which it is called with."""

    def __init__(self, classes: int):
        super().__init__()
        self.denoiser = TinyDenoiser()
        self.embedding = nn.Embedding(classes + 1, 1)

    def forward(self, x: Tensor, t: Tensor, *, class_labels: Tensor) -> Tensor:
        print("classes", *class_labels.unique().tolist())
        return self.denoiser(x + self.embedding(class_labels).view(-1, 1, 1, 1), t)


class OwnUNet(UNet2DModel):
    """Inherits from what diffusers can read, but is not known to it."""

    def __init__(self) -> None:
        super().__init__(**PRESETS["digits"])


class Widening(TinyDenoiser):
    """Gives three channels for one, which a loss would broadcast."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return super().forward(x, t).expand(-1, 3, -1, -1)
