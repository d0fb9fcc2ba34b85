"""The oracle: a classifier of all classes whose features and labels measure images."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from avalanche_gd.checks import check_integer
from avalanche_gd.models.classifier import SmallCNN
from avalanche_gd.models.image_check import check_images
from avalanche_gd.models.random_state import same_draws
from avalanche_gd.storage import cached

_BATCH_SIZE = 128
_LEARNING_RATE = 1e-3


class Images(Protocol):
    """Images in model space that are read only when they are used."""

    @property
    def shape(self) -> Sequence[int]:
        """``(N, C, H, W)``"""

    def __getitem__(self, indices: Tensor, /) -> Tensor: ...

    def parts(self, order: Tensor, /) -> Iterable[Tensor]:
        """What distinguishes these images, in this order, from others."""


def oracle_classifier(
    images: Tensor | Images, labels: Tensor, *, seed: int = 0, steps: int = 1500
) -> SmallCNN:
    """Train a classifier of images, or read it from the cache.

    It sorts the images by class and keeps their order within a class. So the order in which
    a stream has its classes makes no difference, and different seeds use the same oracle.

    It is trained on the CPU in float64, and its weights are rounded to the 11 bits of
    float16. What processors with other instructions, or other numbers of threads, round
    differently in float64 is far below that. So they train the same oracle (seen with
    AVX-512, AVX2 and SSE), and values from different machines are in the same features.

    The key in the cache has the images, the labels, the architecture, the steps, the seed
    and torch's version. The global random state does not change.

    :param images: the training images in model space, ``(N, C, H, W)``; a tensor, or an
        object that reads the images of a batch.
    :param labels: their classes, ``(N,)``, from 0.
    :param seed: decides the initial weights and the batches. Do not change it: values such
        as FID can only be compared for the same oracle.
    :param steps: Adam steps of batch 128 at learning rate 1e-3.
    :return: the classifier, frozen, in evaluation mode.
    :raises ValueError: for steps that are not an integer of 1 or more, a seed that is not
        one of 0 or more, a tensor of images that is not float and in model space, or
        labels that are not one integer of 0 or more for each image.
    """
    seed, steps = check_integer("seed", seed, 0), check_integer("steps", steps)
    labels = _checked_labels(labels, images.shape[0])
    if isinstance(images, Tensor):
        check_images(images.cpu())
    order = labels.argsort(stable=True)
    labels = labels[order]
    shape = (images.shape[1], images.shape[2], images.shape[3])
    with same_draws():
        oracle = SmallCNN(shape, num_classes=int(labels.max()) + 1)

    def fit() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        precise = _drawn_in_float64(oracle, seed)
        optimizer = torch.optim.Adam(precise.parameters(), lr=_LEARNING_RATE)
        with torch.enable_grad():
            for _ in range(steps):
                batch = torch.randint(len(labels), (_BATCH_SIZE,), generator=generator)
                optimizer.zero_grad()
                logits = precise(images[order[batch]].cpu().double())
                F.cross_entropy(logits, labels[batch]).backward()
                optimizer.step()
        return {name: part.half().float() for name, part in precise.state_dict().items()}

    budget = (seed, steps, _BATCH_SIZE, _LEARNING_RATE, "float64, float16")
    parts = [images[order]] if isinstance(images, Tensor) else images.parts(order)
    key = chain(parts, (labels, str(oracle), budget, torch.__version__))
    oracle.load_state_dict(cached("oracle", key, fit))
    return oracle.eval().requires_grad_(False)


def _checked_labels(labels: Any, count: int) -> Tensor:
    """Labels as 64-bit integers on the CPU; ValueError unless each image has one."""
    labels = torch.as_tensor(labels).cpu()
    is_integer = not (labels.is_floating_point() or labels.dtype == torch.bool)
    if labels.shape != (count,) or not count or not is_integer or labels.long().min() < 0:
        raise ValueError(
            f"labels must be one integer of 0 or more for each of the {count} images, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.long()


def _drawn_in_float64(model: SmallCNN, seed: int) -> SmallCNN:
    """A copy with initial weights of its layers' distribution, U(-1/sqrt(n), 1/sqrt(n)).

    n is the number of inputs of a layer's output. The numbers that torch would draw for
    these layers after the seed are scaled in float64 here.
    """
    generator = torch.Generator().manual_seed(seed)
    precise = deepcopy(model).double()
    for layer in (precise.conv1, precise.conv2, precise.hidden, precise.classifier):
        bound = layer.weight[0].numel() ** -0.5
        for part in layer.parameters():  # the weight, then the bias
            uniform = torch.rand(part.shape, generator=generator).double()
            part.data.copy_((2 * uniform - 1) * bound)
    return precise
