"""The labeller of the paper: a ResNet-18, trained on ImageNet and then on the classes."""

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet18_Weights, resnet18

from avalanche_gd.checks import check_integer
from avalanche_gd.metrics.shared_images import classifier_labels
from avalanche_gd.metrics.weights import known_weights
from avalanche_gd.models.random_state import same_draws, seeded
from avalanche_gd.storage import cached

_URL = ResNet18_Weights.DEFAULT.url
_BATCH_SIZE = 64
_LEARNING_RATE = 5e-4
_HELD_OUT = 10  # one of so many images is held out
_ANGLE, _SHIFT, _NOISE = math.radians(10), 0.1, 0.1  # highest; highest, of a side; std


class Labeller(nn.Module):
    """torchvision's ResNet-18 with a new last layer.

    :param num_classes: the number of logits.
    :param state: the weights of a ResNet-18; its last layer is not used. None for random
        weights.
    """

    def __init__(self, num_classes: int, state: dict[str, Tensor] | None = None):
        super().__init__()
        self.network = resnet18(num_classes=num_classes)
        if state is not None:
            kept = {name: part for name, part in state.items() if name[:3] != "fc."}
            kept |= {
                f"fc.{name}": part for name, part in self.network.fc.named_parameters()
            }
            self.network.load_state_dict(kept)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in model space: ``(N, C, H, W)``, C = 1 or 3."""
        return self.network(images.expand(-1, 3, -1, -1))


def resnet18_weights(weights_path: str | Path | None = None) -> dict[str, Tensor]:
    """Read torchvision's ImageNet weights of ResNet-18; nothing in the file is executed.

    :param weights_path: the file ``resnet18-f37072fd.pth``, under any name; None for the
        one in torch's hub folder, which is downloaded if it is not there.
    :raises ValueError: if it cannot be read, or its SHA-256 is not the one in that name.
    """
    try:
        digits = Path(_URL).stem.rpartition("-")[2]
        _, _, state = known_weights({digits: _URL}, weights_path)
        Labeller(1, state)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"no ResNet-18 weights ({reason[0]}); put {Path(_URL).name} of torchvision on "
            "this machine and give its path as labeller_weights"
        ) from error
    return state


def resnet18_labeller(
    images: Tensor,
    labels: Tensor,
    *,
    weights_path: str | Path | None = None,
    epochs: int = 100,
    seed: int = 0,
) -> Labeller:
    """Train a ResNet-18 with ImageNet weights on all classes, or read it from the cache.

    It is trained as the authors of arXiv 2311.14028 train their labeller for KLD and ARD:
    by Adam at 5e-4 on batches of 64. Each image is mirrored or not, turned by up to 10
    degrees and moved by up to a tenth of its sides, and noise of 0.1 is added. A tenth of
    the images is held out, and the epoch with the best accuracy on them is kept. (The
    authors hold out a sixth of Fashion-MNIST.) The order in which a stream has its classes
    makes no difference. The random state does not change.

    :param images: all training images in model space, ``(N, C, H, W)``, C = 1 or 3.
    :param labels: their classes, ``(N,)``, from 0.
    :param weights_path: as in :func:`resnet18_weights`; read only to train.
    :param epochs: how many passes over the images.
    :param seed: decides the new layer, which images are held out, the batches and the
        augmentation.
    :return: the classifier, frozen, in evaluation mode, on the images' device.
    :raises ValueError: for epochs that are not an integer of 1 or more, a seed that is not
        one of 0 or more, fewer than 4 images or another number of channels, or if the
        weights cannot be found or read.
    """
    epochs, seed = check_integer("epochs", epochs), check_integer("seed", seed, 0)
    if images.shape[1] not in (1, 3) or len(images) < 4:
        raise ValueError(
            "a ResNet-18 labeller needs 4 images or more with 1 or 3 channels, got "
            f"{len(images)} with {images.shape[1]}"
        )
    order = labels.argsort(stable=True)
    images, labels = images[order], labels[order]
    num_classes = int(labels.max()) + 1

    def fit() -> dict[str, Tensor]:
        with seeded(seed), torch.enable_grad():
            labeller = Labeller(num_classes, resnet18_weights(weights_path))
            return _trained(labeller.to(images.device), images, labels, epochs, seed)

    budget = (epochs, seed, _BATCH_SIZE, _LEARNING_RATE, _HELD_OUT, _ANGLE, _SHIFT, _NOISE)
    threads = (torch.get_num_threads(), torch.backends.mkldnn.enabled, images.device.type)
    key = (images, labels, _URL, budget, torch.__version__, threads)
    with same_draws():
        labeller = Labeller(num_classes)
    labeller.load_state_dict(cached("labeller", key, fit))
    return labeller.to(images.device).eval().requires_grad_(False)


def _trained(
    labeller: Labeller, images: Tensor, labels: Tensor, epochs: int, seed: int
) -> dict[str, Tensor]:
    """The state after the epoch that labels the images held out best."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(labeller.parameters(), lr=_LEARNING_RATE)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    held = max(1, len(order) // _HELD_OUT)
    held_out, seen = order[:held], order[held:]
    best, state = -1, {}
    for _ in range(epochs):
        labeller.train()
        turn = torch.randperm(len(seen), generator=generator).to(images.device)
        for batch in seen[turn].split(_BATCH_SIZE):
            if len(batch) == 1:  # batch normalization needs a variance
                continue
            optimizer.zero_grad()
            logits = labeller(changed(images[batch], generator))
            F.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
        labeller.eval()
        guesses = classifier_labels(labeller, images[held_out], _BATCH_SIZE)
        right = int((guesses == labels[held_out]).sum())
        if right > best:
            best, state = right, copy.deepcopy(labeller.state_dict())
    return {name: part.cpu().contiguous() for name, part in state.items()}


def changed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror images or not, turn and move them and add noise, each in its own way.

    Pixels that come in from outside are black.

    :param images: in model space, ``(N, C, H, W)``.
    :param generator: the source of all randomness, of the CPU.
    """
    flip, angle, across, down = torch.rand(4, len(images), generator=generator)
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    angle = (2 * angle - 1) * _ANGLE
    cos, sin = angle.cos(), angle.sin()
    across, down = (2 * _SHIFT * (2 * part - 1) for part in (across, down))
    moves = torch.stack([mirror * cos, -mirror * sin, across, sin, cos, down], dim=1)
    moves = moves.view(-1, 2, 3).to(images)
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    moved = F.grid_sample(images + 1, grid, mode="nearest", align_corners=False) - 1
    noise = torch.randn(images.shape, generator=generator).to(images)
    return moved + _NOISE * noise
