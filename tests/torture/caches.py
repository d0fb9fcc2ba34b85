"""What is cached, made small: an oracle, decoded images, unpacked Fashion-MNIST."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from avalanche_gd import SplitFMNIST, SplitImageFolder, oracle_classifier
from avalanche_gd.data import stream_tensors
from avalanche_gd.data.benchmark import StreamsBenchmark
from tests.helpers.fake_data import write_class_folders, write_idx


def _oracle(folder: Path, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, 1, 8, 8, generator=generator) * 2 - 1
    oracle = oracle_classifier(images, torch.arange(40) % 4, seed=seed, steps=3)
    return oracle.state_dict()


def _decoded(folder: Path, seed: int) -> dict[str, Tensor]:
    root = folder / "images"
    if not root.exists():
        write_class_folders(root)
    return _tensors(SplitImageFolder(2, root=root, image_size=8 + seed))


def _unpacked(folder: Path, seed: int) -> dict[str, Tensor]:
    root = folder / f"idx{seed}"
    if not root.exists():
        write_idx(root)
    return _tensors(SplitFMNIST(5, root=root))


def _tensors(benchmark: StreamsBenchmark) -> dict[str, Tensor]:
    streams = (benchmark.train_stream, benchmark.test_stream)
    parts = [part for stream in streams for part in stream_tensors(stream)]
    return {str(place): part for place, part in enumerate(parts)}


CACHES: dict[str, Callable[[Path, int], dict[str, Tensor]]] = {
    "oracle": _oracle,
    "images": _decoded,
    "fashion-mnist": _unpacked,
}
"""By the names of their files: made of what is in a folder, another for each seed."""
