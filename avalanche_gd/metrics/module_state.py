"""What tells whether weights were trained, or replaced by others."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def tensors_state(tensors: Iterable[Tensor]) -> Any:
    """What changes with tensors: their sums and squared sums, in float64, as text.

    Of a module that makes its parameters when it is called first, each is another one.
    """
    tensors = list(tensors)
    if any(map(is_lazy, tensors)):
        return object()
    parts = (tensor.detach().double() for tensor in tensors)
    sums = (torch.stack([part.sum(), part.square().sum()]) for part in parts)
    return str([each.tolist() for each in sums])
