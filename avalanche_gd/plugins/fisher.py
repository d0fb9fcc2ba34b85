"""What gradients of single samples tell about a Fisher matrix, along their mean."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from avalanche.distributed import DistributedHelper
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from avalanche_gd.checks import check_full_precision
from avalanche_gd.distributed.gradients import average
from avalanche_gd.models.denoising import Denoising
from avalanche_gd.models.execution import Execution
from avalanche_gd.models.random_state import same_draws
from avalanche_gd.plugins.experiences import experience_number

Batch = dict[str, Tensor]
"""What the losses of samples depend on in addition to the weights, each ``(N, ...)``."""


class FisherAlongMean(NamedTuple):
    """What gradients g of single samples tell about the Fisher matrix ``E[g g^T]``."""

    mu: Tensor
    """``E[g]``, ``(P,)``."""
    c: float
    """``E[(mu . g)^2] / ||mu||^4``."""
    squares: Tensor
    """``E[g^2]``, ``(P,)``: the diagonal."""

    @property
    def share(self) -> float:
        """``c ||mu||^2 / E||g||^2``: the share of ``c mu mu^T`` in the trace."""
        return self.c * _square(self.mu) / self.squares.double().sum().item()


def fisher_along_mean(
    strategy: Any, samples: int | None = None, chunk_size: int = 16
) -> FisherAlongMean:
    """Measure it on the experience of a strategy, in three passes with the same noise.

    With several processes, each passes its share of a batch.

    :param samples: as in :class:`RankOneEWCPlugin`.
    :param chunk_size: as in :class:`RankOneEWCPlugin`.
    :raises ValueError: if the mean gradient is zero or not finite.
    """
    losses = SampleLosses(strategy.model.denoiser, _of_samples(strategy._criterion))
    size = len(strategy.experience.dataset)
    count = size if samples is None else min(samples, size)

    def mean(summed: Callable[[Batch], Tensor], total: Tensor) -> Tensor:
        with same_draws(strategy.device):
            for batch in _noised_batches(strategy, count):
                total = total + summed(batch)
        processes = DistributedHelper.world_size
        return (average(total) * processes if processes > 1 else total) / count

    mu, c = along_mean(losses, mean, strategy)
    zeros = torch.zeros_like(mu)
    squares = mean(lambda batch: losses.squares(batch, chunk_size), zeros)
    return FisherAlongMean(mu, c, squares)


def check_sample_losses(strategy: Any) -> None:
    """Raise ValueError unless a criterion gives the loss of each sample.

    :param strategy: a strategy with a diffusion model, in float32 or more.
    """
    model = strategy.model
    check_full_precision("RankOneEWCPlugin", trained(model))
    x_t = torch.zeros(2, *model.sample_shape, device=strategy.device)
    zeros = torch.zeros(2, dtype=torch.long, device=strategy.device)
    with same_draws(strategy.device):
        losses = _of_samples(strategy._criterion)(Denoising(x_t, x_t, zeros), zeros)
    _check_losses(losses, 2)


def _of_samples(criterion: Any) -> Any:
    """A copy of a criterion with the reduction ``"none"``."""
    criterion = copy.copy(criterion)
    criterion.reduction = "none"
    return criterion


def _check_losses(losses: Tensor, count: int) -> Tensor:
    """The losses of samples, ``(N,)``; raise ValueError unless there is one for each."""
    if losses.ndim == 0 or losses.numel() != count:
        raise ValueError(
            'with reduction="none" a criterion must give one loss a sample, of shape '
            f"({count},), but it gives {tuple(losses.shape)}; take the mean over the pixels"
        )
    return losses.flatten()


def along_mean(
    losses: "SampleLosses",
    mean: Callable[[Callable[[Batch], Tensor], Tensor], Tensor],
    strategy: Any = None,
) -> tuple[Tensor, float]:
    """``mu`` and c.

    :param mean: takes a function that sums over a batch, and a start; returns the mean over
        the samples.
    :param strategy: the strategy in whose experience they are; None without a strategy.
    """
    zeros = torch.zeros_like(flat(losses.weights.values()))
    mu = mean(losses.gradient, zeros)
    norm = _square(mu)
    if not (math.isfinite(norm) and norm > 0):
        where = "" if strategy is None else f" of experience {experience_number(strategy)}"
        raise ValueError(
            f"the mean gradient{where} has the norm {norm**0.5:g}, so the penalty has no "
            "direction; lower the learning rate"
        )
    second = mean(lambda batch: losses.along(mu, batch).square().sum(), zeros[0])
    return mu, second.item() / norm**2


class SampleLosses(nn.Module):
    """The loss of each sample as a function of the weights, and its derivatives.

    It works on a copy of the denoiser in evaluation mode and float32, whose passes are not
    counted.
    """

    def __init__(self, denoiser: nn.Module, criterion: Any):
        super().__init__()
        check_full_precision("rank-1 EWC", denoiser.parameters())
        self.denoiser = copy.deepcopy(denoiser).eval()
        self.criterion = criterion
        named = self.denoiser.named_parameters("denoiser")
        self.weights = {name: p.detach() for name, p in named if p.requires_grad}
        if torch.__version__ < "2.14.1":
            # Its normalization has no derivative in forward mode for other layouts.
            for module in self.denoiser.modules():
                if isinstance(module, nn.GroupNorm):
                    module.register_forward_pre_hook(_contiguous)

    def forward(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        target: Tensor,
        labels: Tensor | None = None,
        **condition: Any,
    ) -> Tensor:
        # The fused kernels of attention have no derivative in forward mode.
        full = torch.autocast(x_t.device.type, enabled=False)
        with sdpa_kernel(SDPBackend.MATH), full:
            prediction = Execution()(self.denoiser, x_t, timesteps, **condition)
            losses = self.criterion(Denoising(prediction, target, timesteps), labels)
        return _check_losses(losses, len(x_t))

    def gradient(self, batch: Batch) -> Tensor:
        """The sum of g over a batch, ``(P,)``."""
        return flat(grad(self._sum)(self.weights, batch).values())

    def along(self, mu: Tensor, batch: Batch) -> Tensor:
        """``mu . g`` of each sample, ``(N,)``, by one product in forward mode."""
        parts = mu.split([weight.numel() for weight in self.weights.values()])
        pairs = zip(self.weights.items(), parts, strict=True)
        direction = {name: part.view_as(weight) for (name, weight), part in pairs}
        losses = partial(functional_call, self, args=(), kwargs=batch)
        return jvp(losses, (self.weights,), (direction,))[1]

    def squares(self, batch: Batch, chunk_size: int) -> Tensor:
        """The sum of ``g^2`` over a batch, ``(P,)``."""
        one_each = {name: part.unsqueeze(1) for name, part in batch.items()}
        gradients = vmap(grad(self._sum), (None, 0))
        total = torch.zeros(())
        for start in range(0, len(batch["labels"]), chunk_size):
            chunk = {n: part[start : start + chunk_size] for n, part in one_each.items()}
            found = gradients(self.weights, chunk).values()
            total = total + flat(part.square().sum(0) for part in found)
        return total

    def _sum(self, weights: dict[str, Tensor], batch: Batch) -> Tensor:
        return functional_call(self, weights, (), batch).sum()


def _noised_batches(strategy: Any, count: int) -> Iterator[Batch]:
    """Samples of the experience, noised; with several processes, the share of this one."""
    model, dataset = strategy.model, strategy.experience.dataset
    chosen = torch.randperm(len(dataset))[:count].tolist()
    loader = DataLoader(
        dataset.subset(chosen),
        batch_size=strategy.train_mb_size,
        collate_fn=dataset.collate_fn,
    )
    own = slice(DistributedHelper.rank, None, DistributedHelper.world_size)
    for batch in loader:
        parts = [batch] if isinstance(batch, Tensor) else list(batch)
        images = parts[0].to(strategy.device)
        labels = torch.zeros(len(images)) if len(parts) == 1 else parts[1]
        labels = labels.to(strategy.device)
        noised = model.noise_ahead(images)._asdict()
        condition = None if model.num_classes is None else labels
        whole = noised | {"labels": labels} | model.class_labels(condition, len(images))
        for hook in model.pass_hooks:
            hook(len(images))()  # counts a pass and one backward, 3F
        if len(images) > DistributedHelper.rank:
            yield {name: part[own] for name, part in whole.items()}


def denoiser_of(model: Any) -> nn.Module:
    return getattr(model, "denoiser", model)


def trained(model: Any) -> list[nn.Parameter]:
    return [p for p in denoiser_of(model).parameters() if p.requires_grad]


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _square(vector: Tensor) -> float:
    """``||v||^2``."""
    return vector.double().square().sum().item()
