"""What tells whether a module was trained, or got other weights."""

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy


def module_state(module: nn.Module) -> Any:
    """What changes with a module's tensors: their sums and squared sums, in float64.

    Of a module that makes its parameters when it is called first, each is another one.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(map(is_lazy, tensors)):
        return object()
    parts = (tensor.detach().double() for tensor in tensors)
    sums = [torch.stack([part.sum(), part.square().sum()]) for part in parts]
    return torch.stack(sums).tolist() if sums else []
