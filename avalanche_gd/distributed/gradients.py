"""Data parallel training: one model in several processes, each on a share of each batch.

Under ``torchrun``, call Avalanche's ``DistributedHelper.init_distributed(seed)`` first, and
go on as in one process. All processes load the same batches and draw the same random
numbers, of which each keeps its share (:mod:`avalanche_gd.distributed.shares`), and average their
gradients: so the losses and the weights are those of one process, but for rounding. All of
them evaluate all data, and so have the same values.

What the processes do not share: dropout in a denoiser, and the noise that a sampler adds on
its way; each draws these for its share alone. Of the metrics on training batches, the loss
is of the whole batch, and others are of the share.
"""

import hashlib
from typing import Any

import torch
from avalanche.distributed import DistributedHelper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from avalanche_gd.distributed.shares import check_shares


def check_processes(strategy: Any) -> None:
    """Whether the processes can train a strategy's model together, and begin alike.

    :raises ValueError: if they cannot share a batch, if the model has batch
        normalization, or if their weights or random states differ.
    """
    if not DistributedHelper.is_distributed:
        return
    check_shares("train_mb_size", strategy.train_mb_size, DistributedHelper.world_size)
    for module in strategy.model.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"{type(module).__name__} would know only a process's share of a batch; "
                "use GroupNorm, or on GPUs torch.nn.SyncBatchNorm"
            )
    if len(set(DistributedHelper.gather_all_objects(_digest(strategy)))) > 1:
        raise ValueError(
            "the processes have other weights or random states than each other; call "
            "DistributedHelper.init_distributed(seed) before making the model"
        )


def average(loss: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """Average the gradients over the processes, and the loss.

    In one message, and without torch's ``DistributedDataParallel``: that would wrap the
    model, whose methods the plugins call.

    :param loss: of this process.
    :param optimizer: of the parameters whose gradients are averaged in their place.
    :return: the mean loss.
    """
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    flat = torch.cat([part.flatten() for part in (loss, *gradients)])
    torch.distributed.all_reduce(flat)
    flat /= DistributedHelper.world_size
    first, *means = flat.split([part.numel() for part in (loss, *gradients)])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))
    return first.view_as(loss).clone()


def _digest(strategy: Any) -> str:
    """Tells weights and random states apart."""
    digest = hashlib.sha256(torch.get_rng_state().numpy().data)
    if strategy.device.type == "cuda":
        digest.update(torch.cuda.get_rng_state(strategy.device).numpy().data)
    for parameter in strategy.model.parameters():
        digest.update(repr(parameter.detach().double().sum().item()).encode())
    return digest.hexdigest()
