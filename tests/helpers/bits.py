"""Weights and files to the bit."""

from pathlib import Path

import torch
from torch import Tensor, nn


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """True for two sets of weights that are the same to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def truncate(path: Path) -> None:
    """Cut a file to half its length."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
