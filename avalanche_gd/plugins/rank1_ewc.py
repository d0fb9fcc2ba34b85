"""Rank-1 elastic weight consolidation: a penalty along the mean gradient."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from avalanche_gd.checks import check_choice, check_integer, check_number
from avalanche_gd.models.denoising import squared_errors
from avalanche_gd.models.random_state import same_draws
from avalanche_gd.plugins.compatibility import check_compatible
from avalanche_gd.plugins.ema import EMAPlugin
from avalanche_gd.plugins.experiences import ExperienceCount, experience_number
from avalanche_gd.plugins.fisher import (
    Batch,
    SampleLosses,
    along_mean,
    check_sample_losses,
    denoiser_of,
    fisher_along_mean,
    flat,
    trained,
)
from avalanche_gd.plugins.teaching import Taught

CONTROLS = ("diagonal", "shuffled")
"""What may replace ``mu``, to measure what its direction is worth."""


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
        a criterion without ``reduction``, or that does not give one loss a sample with the
        reduction ``"none"``, weights of 16 bits, an
        :class:`~avalanche_gd.plugins.EMAPlugin` behind this plugin, which would change the
        weights after it has kept them, an experience without data, a strategy whose weights
        the plugin has forgotten because it began to keep those of another, or a metric or
        plugin of Avalanche that cannot work with a diffusion model; at the end of an
        experience, for a mean gradient that is zero or not finite.
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
        self.control = control
        if control is not None:
            check_choice("control", control, CONTROLS)
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
        check_sample_losses(strategy)
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
        with same_draws(strategy.device):
            fisher = fisher_along_mean(strategy, self.samples, self.chunk_size)
            mu = fisher.mu
            if self.control == "shuffled":
                mu = mu[torch.randperm(len(mu)).to(mu.device)]
            elif self.control == "diagonal":
                mu = fisher.share * fisher.squares
        self.mu[n], self.c[n], self.share[n] = mu, fisher.c, fisher.share
        self.theta[n] = flat(trained(strategy.model)).detach().clone()

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
        theta = flat(trained(model))
        with torch.autocast(theta.device.type, enabled=False):
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
    :param batches: noised data of the experience: a list, or another iterable that can be
        read again and has the same batches then.
    :param weights: the weight of a sample's loss by its timestep, ``(T,)``; None for 1.
    :raises ValueError: if there is no batch, the batches can be read only once or are
        others when they are read again, for weights of 16 bits, or if the mean gradient is
        zero or not finite.
    """
    if iter(batches) is batches:
        raise ValueError("the batches are read again; give a list of them, not an iterator")
    count = sum(len(batch.x_t) for batch in batches)
    if count == 0:
        raise ValueError("no batch of the experience was given")
    contents: set[str] = set()
    losses = SampleLosses(
        denoiser_of(model), lambda denoising, _: squared_errors(denoising, weights)
    )

    def mean(summed: Callable[[Batch], Tensor], total: Tensor) -> Tensor:
        content = 0.0
        for batch in batches:
            content += float(batch.x_t.double().sum() + batch.target.double().sum())
            parts = dict(x_t=batch.x_t, timesteps=batch.timesteps, target=batch.target)
            if batch.condition is not None:
                parts["class_labels"] = batch.condition
            total = total + summed(parts)
        contents.add(str(content))  # NaN is like itself
        if len(contents) > 1:
            raise ValueError(
                "the batches differ when they are read again, as a shuffled loader has it; "
                "give a list of them"
            )
        return total / count

    mu, c = along_mean(losses, mean)
    return RankOneAnchor(flat(trained(model)).detach().clone(), mu, c)


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
    theta = flat(p for p in parameters if p.requires_grad)
    terms = []
    full = torch.autocast(theta.device.type, enabled=False)
    for held, mu, c in anchors:
        if len(held) != len(theta):
            raise ValueError(
                f"an anchor has {len(held)} weights, but {len(theta)} are trained; give it "
                "the denoiser that it was measured on"
            )
        with full:
            terms.append(c * (mu @ (theta - held)).square())
    return lambd / 2 * torch.stack(terms).sum()
