"""Rank-1 elastic weight consolidation: a penalty along the mean gradient."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from avalanche.core import SupervisedPlugin
from avalanche.distributed import DistributedHelper
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from avalanche_gd.checks import check_integer, check_number
from avalanche_gd.distributed.gradients import average
from avalanche_gd.models.denoising import Denoising, squared_errors
from avalanche_gd.models.execution import Execution
from avalanche_gd.plugins.compatibility import check_compatible
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.plugins.experiences import ExperienceCount, experience_number
from avalanche_gd.plugins.teaching import Taught

CONTROLS = ("diagonal", "shuffled")
"""What may stand in the place of ``mu``, to see what its direction is worth."""

Batch = dict[str, Tensor]
"""What the losses of samples depend on beside the weights, each ``(N, ...)``."""


class RankOneEWCPlugin(SupervisedPlugin, supports_distributed=True):
    """Hold a diffusion model's weights along the mean gradient of past experiences.

    With g the gradient of one sample's loss at a uniform t, and theta_k the weights that
    experience k ended with, the loss of experience n gets (arXiv 2509.23593)::

        (lambda/2) sum_{k<n} c_k (mu_k . (theta - theta_k))^2
        mu_k = E[g],   c_k = E[(mu_k . g)^2] / ||mu_k||^4

    ``c mu mu^T`` is the Fisher matrix ``E[g g^T]`` along ``mu``. Its share of the trace,
    ``c ||mu||^2 / E||g||^2``, would be 1 if the matrix had rank 1: see :attr:`share`.

    It works beside :class:`~avalanche_gd.GenerativeDistillationPlugin`,
    :class:`~avalanche_gd.GenerativeReplayPlugin` and other plugins. The expectations are
    over the data of the experience, once, with the criterion's loss of a sample (also
    weighted by timestep), in evaluation mode and float32, without a dropped condition.
    They leave the random state of training alone. In an online stream they are over the
    last piece of an origin experience.

    Memory: two vectors of the size of the model an experience, ``mu`` and ``theta``. Cost:
    that of a step stays 3F; at the end of an experience, 9F for a batch of its data, 3F
    for ``mu``, 3F for ``mu . g`` of its samples by one product in forward mode, and 3F for
    ``E[g^2]``, from ``chunk_size`` gradients at a time. (Measured on one thread of a CPU,
    with the U-Net of the digits and batches of 64: 2.5F, 4F, and 12F in chunks of 16.)

    :param lambd: lambda, 0 or more. The paper: 15,000.
    :param samples: how many of an experience's samples the expectations are over, drawn
        at random; None for the whole experience.
    :param control: ``"diagonal"`` for the diagonal Fisher, scaled to the trace of
        ``c mu mu^T``, in the place of that; ``"shuffled"`` for ``mu`` with its entries
        permuted at random; None for the method itself.
    :param chunk_size: gradients of single samples in memory at once.
    :raises ValueError: for a lambda that is negative or not finite, samples or a chunk size
        that are not integers of 1 or more, or an unknown control; when training starts, for
        a criterion without ``reduction``, an :class:`~avalanche_gd.plugins.EMAPlugin`
        behind this plugin, which would change the weights that it holds, an experience
        without data, or a metric or plugin of Avalanche's that cannot work with a diffusion
        model; at the end of an experience, for a mean gradient that is zero or not finite.
    :raises TypeError: when training starts, if the strategy's model is no diffusion model.
    """

    def __init__(
        self,
        lambd: float = 15_000.0,
        *,
        samples: int | None = None,
        control: str | None = None,
        chunk_size: int = 16,
    ):
        super().__init__()
        self.lambd = check_number("lambd", lambd, "0 or more")
        self.samples = None if samples is None else check_integer("samples", samples)
        if control is not None and control not in CONTROLS:
            raise ValueError(f"no control {control!r}; choose from {', '.join(CONTROLS)}")
        self.control = control
        self.chunk_size = check_integer("chunk_size", chunk_size)
        self.mu: dict[int, Tensor] = {}
        """By n, ``(P,)``: mu, permuted if shuffled; if diagonal, the scaled diagonal."""
        self.theta: dict[int, Tensor] = {}
        """By n, ``(P,)``: the weights that it is held at."""
        self.c: dict[int, float] = {}
        """By n."""
        self.share: dict[int, float] = {}
        """By n: ``c ||mu||^2 / E||g||^2``, from 0 to 1; that of mu, also with a control."""

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError for what cannot be held."""
        self.check_model(strategy.model)
        check_compatible(strategy)
        if not hasattr(strategy._criterion, "reduction"):
            raise ValueError(
                "RankOneEWCPlugin needs the loss of a sample: a criterion with reduction, "
                "such as DenoisingLoss"
            )
        behind = strategy.plugins[strategy.plugins.index(self) :]
        if any(isinstance(plugin, EMAPlugin) for plugin in behind):
            raise ValueError(
                "the average of EMAPlugin replaces the weights that RankOneEWCPlugin "
                "holds; put it before that in plugins"
            )

    def check_model(self, model: Any) -> None:
        """Raise TypeError unless it is a :class:`~avalanche_gd.DiffusionModel`."""
        for method in ("noise_ahead", "denoise"):
            if not callable(getattr(model, method, None)):
                raise TypeError(
                    "RankOneEWCPlugin needs a DiffusionModel; "
                    f"{type(model).__name__} has no method {method}"
                )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Raise ValueError for an experience without data."""
        ExperienceCount.of(strategy).begin(strategy)
        if len(strategy.experience.dataset) == 0:
            number = strategy.experience.current_experience + 1
            raise ValueError(f"experience {number} is empty; leave it out of the stream")

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        n = experience_number(strategy)
        if self._before(n):
            strategy.loss = strategy.loss + self.penalty(strategy.model, before=n)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Hold the weights as they are now."""
        ExperienceCount.of(strategy).end()
        n = experience_number(strategy)
        with _same_draws(strategy.device):
            fisher = fisher_along_mean(strategy, self.samples, self.chunk_size)
            mu = fisher.mu
            if self.control == "shuffled":
                mu = mu[torch.randperm(len(mu)).to(mu.device)]
            elif self.control == "diagonal":
                mu = fisher.share * fisher.squares
        self.mu[n], self.c[n], self.share[n] = mu, fisher.c, fisher.share
        self.theta[n] = _flat(_trained(strategy.model)).detach().clone()

    def penalty(self, model: Any, *, before: int | None = None) -> Tensor:
        """``(lambda/2) sum_k c_k (mu_k . (theta - theta_k))^2``, a scalar.

        With the control ``"diagonal"``, ``(lambda/2) sum_k d_k . (theta - theta_k)^2``.

        :param model: whose weights are theta.
        :param before: of the experiences k < n; None for those so far.
        :raises ValueError: if no such experience has been learned.
        """
        past = self._before(before)
        if self.control != "diagonal" or not past:
            anchors = [RankOneAnchor(self.theta[k], self.mu[k], self.c[k]) for k in past]
            return rank_one_penalty(model.denoiser.parameters(), anchors, self.lambd)
        theta = _flat(_trained(model))
        terms = [self.mu[k] @ (theta - self.theta[k]).square() for k in past]
        return self.lambd / 2 * torch.stack(terms).sum()

    def _before(self, number: int | None) -> list[int]:
        """The experiences k < n that weights are held for."""
        return [k for k in self.mu if number is None or k < number]


class RankOneAnchor(NamedTuple):
    """What rank-1 EWC keeps of an experience."""

    theta: Tensor
    """The weights that it ended with, ``(P,)``."""
    mu: Tensor
    """``E[g]``, along which they are held, ``(P,)``."""
    c: float
    """``E[(mu . g)^2] / ||mu||^4``."""


def rank_one_anchor(
    model: Any, batches: Iterable[Taught], *, weights: Tensor | None = None
) -> RankOneAnchor:
    """Measure at the end of an experience how its weights are to be held.

    As in :class:`~avalanche_gd.RankOneEWCPlugin`, by two passes over the same batches: 3F
    for ``mu`` and 3F for c.

    :param model: a :class:`~avalanche_gd.DiffusionModel`, or its denoiser.
    :param batches: noised data of the experience, a list or what else gives the same
        batches again.
    :param weights: of a sample's loss by its timestep, ``(T,)``; None for 1.
    :raises ValueError: if there is no batch, or the mean gradient is zero or not finite.
    """
    count = sum(len(batch.x_t) for batch in batches)
    if count == 0:
        raise ValueError("no batch of the experience was given")
    losses = _SampleLosses(
        _denoiser(model), lambda denoising, _: squared_errors(denoising, weights)
    )

    def mean(summed: Callable[[Batch], Tensor], total: Tensor) -> Tensor:
        for batch in batches:
            parts = dict(x_t=batch.x_t, timesteps=batch.timesteps, target=batch.target)
            if batch.condition is not None:
                parts["class_labels"] = batch.condition
            total = total + summed(parts)
        return total / count

    mu, c = _along_mean(losses, mean)
    return RankOneAnchor(_flat(_trained(model)).detach().clone(), mu, c)


def rank_one_penalty(
    parameters: Iterable[Tensor], anchors: Sequence[RankOneAnchor], lambd: float = 15_000.0
) -> Tensor:
    """``(lambda/2) sum_k c_k (mu_k . (theta - theta_k))^2``, a scalar.

    (arXiv 2509.23593.)

    :param parameters: theta, those of the denoiser; of these, what is trained.
    :param anchors: one an experience, of :func:`rank_one_anchor`.
    :param lambd: lambda, 0 or more.
    :raises ValueError: without an anchor, for one of other weights, or for another lambda.
    """
    check_number("lambd", lambd, "0 or more")
    if not anchors:
        raise ValueError("no experience was learned yet that a penalty could hold")
    theta = _flat(p for p in parameters if p.requires_grad)
    terms = []
    for held, mu, c in anchors:
        if len(held) != len(theta):
            raise ValueError(
                f"an anchor holds {len(held)} weights, but {len(theta)} are trained; "
                "give it the denoiser that it was measured on"
            )
        terms.append(c * (mu @ (theta - held)).square())
    return lambd / 2 * torch.stack(terms).sum()


class FisherAlongMean(NamedTuple):
    """What gradients g of single samples say of the Fisher matrix ``E[g g^T]``."""

    mu: Tensor
    """``E[g]``, ``(P,)``."""
    c: float
    """``E[(mu . g)^2] / ||mu||^4``."""
    squares: Tensor
    """``E[g^2]``, ``(P,)``: the diagonal."""

    @property
    def share(self) -> float:
        """``c ||mu||^2 / E||g||^2``: what ``c mu mu^T`` has of the trace."""
        return self.c * _square(self.mu) / self.squares.double().sum().item()


def fisher_along_mean(
    strategy: Any, samples: int | None = None, chunk_size: int = 16
) -> FisherAlongMean:
    """Measure it on a strategy's experience, in three passes with the same noise.

    Of several processes, each passes its share of a batch.

    :param samples: as in :class:`RankOneEWCPlugin`.
    :param chunk_size: as in :class:`RankOneEWCPlugin`.
    :raises ValueError: if the mean gradient is zero or not finite.
    """
    criterion = copy.copy(strategy._criterion)
    criterion.reduction = "none"
    losses = _SampleLosses(strategy.model.denoiser, criterion)
    size = len(strategy.experience.dataset)
    count = size if samples is None else min(samples, size)

    def mean(summed: Callable[[Batch], Tensor], total: Tensor) -> Tensor:
        with _same_draws(strategy.device):
            for batch in _noised_batches(strategy, count):
                total = total + summed(batch)
        processes = DistributedHelper.world_size
        return (average(total) * processes if processes > 1 else total) / count

    mu, c = _along_mean(losses, mean, strategy)
    zeros = torch.zeros_like(mu)
    squares = mean(lambda batch: losses.squares(batch, chunk_size), zeros)
    return FisherAlongMean(mu, c, squares)


def _along_mean(
    losses: "_SampleLosses",
    mean: Callable[[Callable[[Batch], Tensor], Tensor], Tensor],
    strategy: Any = None,
) -> tuple[Tensor, float]:
    """``mu`` and c.

    :param mean: over the samples, of a sum over a batch, and what that is added to.
    :param strategy: in whose experience they are, if in one.
    """
    zeros = torch.zeros_like(_flat(losses.weights.values()))
    mu = mean(losses.gradient, zeros)
    norm = _square(mu)
    if not (math.isfinite(norm) and norm > 0):
        where = "" if strategy is None else f" of experience {experience_number(strategy)}"
        raise ValueError(
            f"the mean gradient{where} has the norm {norm**0.5:g}, along which no "
            "weight can be held; lower the learning rate"
        )
    second = mean(lambda batch: losses.along(mu, batch).square().sum(), zeros[0])
    return mu, second.item() / norm**2


class _SampleLosses(nn.Module):
    """The loss of each sample as a function of the weights, and its derivatives.

    Of a copy of the denoiser in evaluation mode and float32, whose passes nobody counts.
    """

    def __init__(self, denoiser: nn.Module, criterion: Any):
        super().__init__()
        self.denoiser = copy.deepcopy(denoiser).eval()
        self.criterion = criterion
        named = self.denoiser.named_parameters("denoiser")
        self.weights = {name: p.detach() for name, p in named if p.requires_grad}

    def forward(
        self,
        x_t: Tensor,
        timesteps: Tensor,
        target: Tensor,
        labels: Tensor | None = None,
        **condition: Any,
    ) -> Tensor:
        # The fused kernels of attention have no derivative in forward mode.
        with sdpa_kernel(SDPBackend.MATH):
            prediction = Execution()(self.denoiser, x_t, timesteps, **condition)
        return self.criterion(Denoising(prediction, target, timesteps), labels)

    def gradient(self, batch: Batch) -> Tensor:
        """The sum of g over a batch, ``(P,)``."""
        return _flat(grad(self._sum)(self.weights, batch).values())

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
            total = total + _flat(part.square().sum(0) for part in found)
        return total

    def _sum(self, weights: dict[str, Tensor], batch: Batch) -> Tensor:
        return functional_call(self, weights, (), batch).sum()


def _noised_batches(strategy: Any, count: int) -> Iterator[Batch]:
    """Samples of the experience, noised; of several processes, the share of this one."""
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
        whole = noised | {"labels": labels} | model.class_labels(condition)
        for hook in model.pass_hooks:
            hook(len(images))()  # counts a pass and one backward, 3F
        if len(images) > DistributedHelper.rank:
            yield {name: part[own] for name, part in whole.items()}


def _same_draws(device: torch.device) -> AbstractContextManager[None]:
    """Have what is drawn in here be drawn again after it."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _denoiser(model: Any) -> nn.Module:
    return getattr(model, "denoiser", model)


def _trained(model: Any) -> list[nn.Parameter]:
    return [p for p in _denoiser(model).parameters() if p.requires_grad]


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _square(vector: Tensor) -> float:
    """``||v||^2``."""
    return vector.double().square().sum().item()
