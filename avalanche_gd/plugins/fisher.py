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
"""What may replace ``mu``, to measure what its direction is worth."""

Batch = dict[str, Tensor]
"""What the losses of samples depend on in addition to the weights, each ``(N, ...)``."""


class RankOneEWCPlugin(SupervisedPlugin, supports_distributed=True):
    """Keep a diffusion model's weights in place along the mean gradients of the past.

    g is the gradient of one sample's loss at a uniform t, and theta_k are the weights at
    the end of experience k. The loss of experience n gets the term (arXiv 2509.23593)::

        (lambda/2) sum_{k<n} c_k (mu_k . (theta - theta_k))^2
        mu_k = E[g],   c_k = E[(mu_k . g)^2] / ||mu_k||^4

    ``c mu mu^T`` is the Fisher matrix ``E[g g^T]`` along ``mu``. Its share of the trace,
    ``c ||mu||^2 / E||g||^2``, would be 1 if the matrix had rank 1: see :attr:`share`.

    It works together with :class:`~avalanche_gd.GenerativeDistillationPlugin`,
    :class:`~avalanche_gd.GenerativeReplayPlugin` and other plugins. The expectations are
    means over one pass through the data of the experience, of the criterion's loss of a
    sample (also if it is weighted by timestep), in evaluation mode and float32, and with
    no class dropped. They do not change the random state of training. In an online stream
    they are over the last piece of an origin experience.

    Memory: two vectors of the size of the model per experience, ``mu`` and ``theta``. Cost
    in F (one forward pass of the denoiser over one batch): a step still costs 3F. The end
    of an experience costs 9F for a batch of its data: 3F for ``mu``, 3F for ``mu . g`` of
    its samples by one product in forward mode, and 3F for ``E[g^2]``, from ``chunk_size``
    gradients at a time. (Measured on one thread of a CPU, with the U-Net of
    the digits and batches of 64: 2.5F, 4F, and 12F in chunks of 16.)

    :param lambd: lambda, 0 or more. The paper's value is 15,000.
    :param samples: over how many random samples of an experience the expectations are;
        None for the whole experience.
    :param control: ``"diagonal"`` to replace ``c mu mu^T`` by the diagonal of the Fisher
        matrix, scaled to the same trace; ``"shuffled"`` to permute the entries of ``mu`` at
        random; None for the method itself.
    :param chunk_size: how many gradients of single samples are in memory at once.
    :raises ValueError: for a lambda that is negative or not finite, samples or a chunk size
        that are not integers of 1 or more, or an unknown control; when training starts, for
        a criterion without ``reduction``, an :class:`~avalanche_gd.plugins.EMAPlugin`
        behind this plugin, which would change the weights after it has kept them, an
        experience without data, a strategy whose weights the plugin has forgotten because
        it began to keep those of another, or a metric or plugin of Avalanche that cannot
        work with a diffusion model; at the end of an experience, for a mean gradient that
        is zero or not finite.
    :raises TypeError: when training starts, if the strategy's model is not a diffusion
        model.
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
        """By n, ``(P,)``: theta, the weights at the end of the experience."""
        self.c: dict[int, float] = {}
        """By n: c."""
        self.share: dict[int, float] = {}
        """By n: ``c ||mu||^2 / E||g||^2``, from 0 to 1; that of mu, also with a control."""
        self._count: ExperienceCount | None = None  # of the strategy whose weights it keeps

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise TypeError or ValueError if the strategy cannot use the penalty."""
        self._begin(ExperienceCount.of(strategy))
        self.check_model(strategy.model)
        check_compatible(strategy)
        if not hasattr(strategy._criterion, "reduction"):
            raise ValueError(
                "RankOneEWCPlugin needs the loss per sample: a criterion with reduction, "
                "such as DenoisingLoss"
            )
        behind = strategy.plugins[strategy.plugins.index(self) :]
        if any(isinstance(plugin, EMAPlugin) for plugin in behind):
            raise ValueError(
                "EMAPlugin replaces the weights by their average after RankOneEWCPlugin "
                "has kept them; put EMAPlugin before it in plugins"
            )

    def _begin(self, count: ExperienceCount) -> None:
        """Forget the weights of another strategy when a new one begins.

        :raises ValueError: if the plugin has forgotten those of this strategy.
        """
        if self._count not in (None, count):
            if count.number > 0:
                raise ValueError(
                    "this RankOneEWCPlugin keeps the weights of another strategy; make "
                    "one for each strategy"
                )
            self.mu, self.theta, self.c, self.share = {}, {}, {}, {}
        self._count = count

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
        """Keep the present weights, and measure mu and c."""
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

        :param model: the model whose weights are theta.
        :param before: n, for the sum over experiences k < n; None for those so far.
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
        """The experiences k < n for which weights are kept."""
        return [k for k in self.mu if number is None or k < number]


class RankOneAnchor(NamedTuple):
    """What rank-1 EWC keeps of an experience."""

    theta: Tensor
    """The weights at the end of the experience, ``(P,)``."""
    mu: Tensor
    """``E[g]``, the direction in which they are kept, ``(P,)``."""
    c: float
    """``E[(mu . g)^2] / ||mu||^4``."""


def rank_one_anchor(
    model: Any, batches: Iterable[Taught], *, weights: Tensor | None = None
) -> RankOneAnchor:
    """Measure, at the end of an experience, what :func:`rank_one_penalty` needs of it.

    As in :class:`~avalanche_gd.RankOneEWCPlugin`, by two passes over the same batches: 3F
    for ``mu`` and 3F for c.

    :param model: a :class:`~avalanche_gd.DiffusionModel`, or its denoiser.
    :param batches: noised data of the experience: a list, or another iterable that gives
        the same batches twice.
    :param weights: the weight of a sample's loss by its timestep, ``(T,)``; None for 1.
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

    :param parameters: theta, the denoiser's parameters; those that are trained count.
    :param anchors: one per past experience, from :func:`rank_one_anchor`.
    :param lambd: lambda, 0 or more.
    :raises ValueError: without an anchor, for an anchor of other weights, or for a lambda
        that is negative or not finite.
    """
    check_number("lambd", lambd, "0 or more")
    if not anchors:
        raise ValueError("the penalty needs the anchor of a past experience, got none")
    theta = _flat(p for p in parameters if p.requires_grad)
    terms = []
    for held, mu, c in anchors:
        if len(held) != len(theta):
            raise ValueError(
                f"an anchor has {len(held)} weights, but {len(theta)} are trained; give it "
                "the denoiser that it was measured on"
            )
        terms.append(c * (mu @ (theta - held)).square())
    return lambd / 2 * torch.stack(terms).sum()


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

    :param mean: takes a function that sums over a batch, and a start; returns the mean over
        the samples.
    :param strategy: the strategy in whose experience they are; None without a strategy.
    """
    zeros = torch.zeros_like(_flat(losses.weights.values()))
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


class _SampleLosses(nn.Module):
    """The loss of each sample as a function of the weights, and its derivatives.

    It works on a copy of the denoiser in evaluation mode and float32, whose passes are not
    counted.
    """

    def __init__(self, denoiser: nn.Module, criterion: Any):
        super().__init__()
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
        whole = noised | {"labels": labels} | model.class_labels(condition)
        for hook in model.pass_hooks:
            hook(len(images))()  # counts a pass and one backward, 3F
        if len(images) > DistributedHelper.rank:
            yield {name: part[own] for name, part in whole.items()}


def _same_draws(device: torch.device) -> AbstractContextManager[None]:
    """Restore the random state at the end, so that the same numbers are drawn again."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _denoiser(model: Any) -> nn.Module:
    return getattr(model, "denoiser", model)


def _trained(model: Any) -> list[nn.Parameter]:
    return [p for p in _denoiser(model).parameters() if p.requires_grad]


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def _square(vector: Tensor) -> float:
    """``||v||^2``."""
    return vector.double().square().sum().item()
