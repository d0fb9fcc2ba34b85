"""The oracle: a classifier of all classes, whose features and labels judge images."""

import hashlib
import warnings
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from avalanche_gd.models.classifier import SmallCNN
from avalanche_gd.storage import cache_folder, write_whole

_BATCH_SIZE = 128
_LEARNING_RATE = 1e-3


def oracle_classifier(
    images: Tensor, labels: Tensor, *, seed: int = 0, steps: int = 1500
) -> SmallCNN:
    """A classifier trained on all classes, from the cache where it is there.

    The cached file is named by a digest of the images, the labels, the architecture,
    the budget and the seed, so that it is never used for other data. Training leaves
    the global random state as it was.

    :param images: all training images in model space, ``(N, C, H, W)``.
    :param labels: their classes, ``(N,)``, from 0.
    :param seed: decides the initial weights and the batches. Keep it: figures such as
        FID can only be compared under the same oracle.
    :param steps: Adam steps of batch 128 at learning rate 1e-3.
    :return: the classifier, frozen, in evaluation mode.
    """
    images, labels = images.cpu(), labels.cpu()
    num_classes = int(labels.max()) + 1
    shape = (images.shape[1], images.shape[2], images.shape[3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        oracle = SmallCNN(shape, num_classes)
    path = cache_folder() / f"oracle-{_digest(images, labels, oracle, seed, steps)}.st"
    if not _load(oracle, path):
        _fit(oracle, images, labels, seed=seed, steps=steps)
        _save(oracle, path)
    return oracle.eval().requires_grad_(False)


def _fit(
    oracle: SmallCNN, images: Tensor, labels: Tensor, *, seed: int, steps: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(oracle.parameters(), lr=_LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(steps):
            batch = torch.randint(len(images), (_BATCH_SIZE,), generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(oracle(images[batch]), labels[batch]).backward()
            optimizer.step()


def _digest(images: Tensor, labels: Tensor, oracle: SmallCNN, seed: int, steps: int) -> str:
    digest = hashlib.sha256(f"{oracle} {seed} {steps} {_BATCH_SIZE}".encode())
    digest.update(f"{tuple(images.shape)} {_LEARNING_RATE}".encode())
    digest.update(images.contiguous().numpy().data)
    digest.update(labels.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def _load(oracle: SmallCNN, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        safetensors.torch.load_model(oracle, path)
    except Exception as error:  # a cache may be thrown away at any time
        warnings.warn(
            f"cached oracle {path} is unreadable ({error}); training anew", stacklevel=2
        )
        return False
    return True


def _save(oracle: SmallCNN, path: Path) -> None:
    write_whole(path, lambda beside: safetensors.torch.save_model(oracle, str(beside)))
