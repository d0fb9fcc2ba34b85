"""Data parallel training: one model in several processes, each on a share of each batch.

Under ``torchrun``, call Avalanche's ``DistributedHelper.init_distributed(seed)`` first, and
continue as in one process. All processes load the same batches and draw the same random
numbers. Each keeps its share of them (:mod:`avalanche_gd.distributed.shares`), and the
gradients are averaged. So the losses and the weights are those of one process, except for
rounding. All processes evaluate all data, and so have the same values.

Two things differ between processes: dropout in a denoiser, and the noise that a sampler
adds. Each process draws these for its share only. Of the metrics on training batches, the
loss is of the whole batch, and others are of the share.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from avalanche_gd.distributed.shares import check_shares

Run = Callable[..., Tensor]
"""Calls a module with inputs: ``run(module, *inputs, **options)``."""

_averaged: ContextVar[tuple[nn.Module, nn.Module] | None] = ContextVar(
    "averaged", default=None
)


@contextmanager
def averaging_gradients(module: nn.Module, run: Run) -> Iterator[None]:
    """Make torch's ``DistributedDataParallel`` average a module's gradients inside.

    It does so during the backward pass, a bucket at a time, for the passes of
    :func:`averaging_passes`. It wraps a denoiser, not the diffusion model, whose methods
    the plugins call.

    :param run: how the module is called.
    """
    parallel = DistributedDataParallel(_Passes(module, run), find_unused_parameters=True)
    token = _averaged.set((module, parallel))
    try:
        yield
    finally:
        _averaged.reset(token)


def averaging_passes(module: nn.Module) -> nn.Module | None:
    """The module to call instead, if the module's gradients are averaged; else None.

    It is None for copies of the module, and for passes without gradients.
    """
    found = _averaged.get()
    if found is None or found[0] is not module or not torch.is_grad_enabled():
        return None
    return found[1]


class _Passes(nn.Module):
    """Makes the passes of a module, as DistributedDataParallel calls only ``forward``."""

    def __init__(self, module: nn.Module, run: Run):
        super().__init__()
        self.module = module
        self._run = run
        # Without this, torch warns in each process, past Python's filters.
        device = next(module.parameters()).device
        self.unused = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, *inputs: Tensor, **options: Any) -> Tensor:
        return self._run(self.module, *inputs, **options)


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Average the gradients over the processes, in one message after the backward pass.

    It is for models that plugins copy and call in their own ways, such as a solver, for
    which ``DistributedDataParallel`` would have to wrap all of them.

    :param optimizer: the optimizer whose parameters' gradients are averaged in place.
    """
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    flat = average(torch.cat([gradient.flatten() for gradient in gradients]))
    means = flat.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def average(value: Tensor) -> Tensor:
    """The mean of a value over the processes."""
    mean = value.detach().clone()
    torch.distributed.all_reduce(mean)
    return mean / DistributedHelper.world_size


def check_processes(strategy: Any) -> None:
    """Raise ValueError unless the processes can train a strategy's model together.

    They must be able to share a batch and have the same weights and random states, and the
    model must have no batch normalization.
    """
    if not DistributedHelper.is_distributed:
        return
    check_shares("train_mb_size", strategy.train_mb_size, DistributedHelper.world_size)
    for module in strategy.model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"{type(module).__name__} would see only a process's share of a batch; "
                "use GroupNorm, or on GPUs torch.nn.SyncBatchNorm"
            )
    if len(set(DistributedHelper.gather_all_objects(_digest(strategy)))) > 1:
        raise ValueError(
            "the processes have different weights or random states; call "
            "DistributedHelper.init_distributed(seed) before making the model"
        )


def _digest(strategy: Any) -> str:
    """A digest of weights and random states, to compare them."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().data)
    if strategy.device.type == "cuda":
        digest.update(torch.cuda.get_rng_state(strategy.device).numpy().data)
    for parameter in strategy.model.parameters():
        digest.update(repr(parameter.detach().double().sum().item()).encode())
    return digest.hexdigest()
