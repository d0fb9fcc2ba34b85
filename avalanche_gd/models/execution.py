"""How a denoiser is executed: its precision, memory layout and compilation."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avalanche_gd.checks import check_choice

PRECISIONS = ("float32", "bfloat16")
"""The number formats in which a denoiser can compute."""


@dataclass(frozen=True)
class Execution:
    """Options that make a denoiser faster on some machines, and change its last digits.

    Weights, noise, losses and the sampler's steps stay float32.

    :param precision: ``"bfloat16"`` runs the denoiser's convolutions and matrix products in
        bfloat16 (torch's automatic mixed precision; the range is that of float32, so that
        gradients need no scaling). For GPUs, and for CPUs with AMX.
    :param channels_last: keeps weights and images with the channels innermost, which is
        faster on a GPU's tensor cores.
    :param compile: lets torch.compile fuse the denoiser's operations. That takes a minute
        or more at the first pass of a batch size, with gradients and without. With torch
        2.11 on an H200, the paper's U-Net ended in its first backward pass with CUDA's
        "misaligned address", in a kernel that torch had made.
    :raises ValueError: for an unknown precision, or what is neither True nor False.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("channels_last", "compile"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(
                    f"{name} must be True or False, got {getattr(self, name)!r}"
                )

    def prepare(self, denoiser: nn.Module) -> None:
        """Set the memory layout of a denoiser's weights."""
        if self.channels_last:
            denoiser.to(memory_format=torch.channels_last)

    def dtype_for(self, denoiser: nn.Module, x_t: Tensor) -> torch.dtype:
        """The type of images with which a denoiser can make a pass.

        It is that of ``x_t`` if a weight has it, if there are no weights, or under mixed
        precision, which converts images unless they are float64; else that of the weights.
        """
        given = x_t.dtype
        weights = (p.dtype for p in denoiser.parameters() if p.is_floating_point())
        first = next(weights, given)
        if given == first or given in weights:
            return given
        mixed = self.precision != "float32" or torch.is_autocast_enabled(x_t.device.type)
        return given if mixed and given != torch.float64 else first

    def __call__(
        self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, **options: Any
    ) -> Tensor:
        """Make a pass of the denoiser.

        :param x_t: noisy images, ``(N, C, H, W)``.
        :param timesteps: ``(N,)``.
        :param options: further arguments of the denoiser.
        :return: its prediction, float32, ``(N, C, H, W)``.
        :raises ValueError: with ``compile``, if the denoiser itself has forward hooks.
        :raises TypeError: if it returns neither a tensor nor an object with ``sample``.
        """
        if self.channels_last:
            x_t = x_t.contiguous(memory_format=torch.channels_last)
        run = partial(_compiled(), denoiser) if self.compile else denoiser
        if self.compile and (denoiser._forward_hooks or denoiser._forward_pre_hooks):
            raise ValueError(
                "compile=True passes by the hooks of the denoiser itself; remove them, "
                "hook a module in it, or give compile=False"
            )
        with self._autocast(x_t.device):
            output = run(x_t, timesteps, **options)
        prediction = getattr(output, "sample", output)
        if not isinstance(prediction, Tensor):
            raise TypeError(
                f"{type(denoiser).__name__} returns a {type(prediction).__name__}; let it "
                "return a tensor, or an object that has one as sample"
            )
        return prediction.to(x_t.dtype)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)


@cache
def _compiled() -> Callable[..., Any]:
    """The compiled ``forward`` of any denoiser.

    It is a function that takes the denoiser. If the denoiser itself were compiled, its
    copies, such as a teacher, would not be, or would use the weights of the original.
    """
    return torch.compile(_forward)


def _forward(denoiser: nn.Module, *inputs: Tensor, **options: Any) -> Any:
    return denoiser.forward(*inputs, **options)
