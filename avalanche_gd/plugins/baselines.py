"""Avalanche's plugins in a version that works with a diffusion model.

EWC, A-GEM and experience replay need no such version, as they only call
``criterion(model(x), y)``. Use Avalanche's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import qpsolvers
import torch
from avalanche.training import plugins as avalanche_plugins
from avalanche.training.plugins.mir import cycle
from avalanche.training.utils import ParamData, zerolike_params_dict
from torch import nn
from torch.utils.data import DataLoader

from avalanche_gd.models.denoising import NoisyImages


class SynapticIntelligencePlugin(avalanche_plugins.SynapticIntelligencePlugin):
    """Synaptic intelligence that also works on the CPU, and is faster.

    Avalanche's plugin wants to keep the weights from before a step. On the CPU it keeps a
    reference, which changes with the step: no weight seems to move, and the penalty stays
    zero. This plugin keeps a copy. Avalanche's also looks up four times a step, for each
    module and all in it, which weights are excluded, which takes as long as the passes of
    the U-Net. This one looks it up once an experience. Weights may also be of float64. One
    that is frozen in a later experience keeps its importance, where Avalanche's
    adds the last step of the experience before, again in each step.

    The arguments are those of Avalanche's plugin.

    :raises ValueError: when an experience begins, for weights in bfloat16 that are trained
        and not excluded: NumPy, by which Avalanche's plugin computes, does not have it.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the weights from before the experience.

        :raises ValueError: for weights that Avalanche's plugin cannot compute with.
        """
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0])
        allowed = self.allowed_parameters(strategy.model, self.excluded_parameters)
        if any(parameter.dtype == torch.bfloat16 for _, parameter in allowed):
            raise ValueError(
                "SynapticIntelligencePlugin cannot compute with weights in bfloat16; keep "
                'them in float32, and have passes in bfloat16 by Execution("bfloat16")'
            )
        self._allowed = _Parameters(dict(allowed))
        for name, parameter in allowed:  # new ones are float32, whatever the weights are
            for kept in (self.ewc_data[1], *self.syn_data.values()):
                kept[name].data = kept[name].data.to(parameter.dtype)
        for name in self.syn_data["grad"].keys() - dict(allowed).keys():  # now frozen
            self.syn_data["grad"][name].data.zero_()

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Keep the weights from before the step."""
        self.pre_update(self._allowed, self.syn_data, set())
        _copy(self.syn_data["old_theta"])

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty."""
        number = min(strategy.clock.train_exp_counter, len(self.si_lambda) - 1)
        penalty = self.compute_ewc_loss(
            self._allowed,
            self.ewc_data,
            set(),
            self.device(strategy),
            lambd=self.si_lambda[number],
        )
        if penalty is not None:
            strategy.loss += penalty.to(strategy.device)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Update the importances with the step of the weights."""
        self.post_update(self._allowed, self.syn_data, set())


class _Parameters(nn.Module):
    """The parameters of a model under their names in it, without its modules."""

    def __init__(self, parameters: dict[str, nn.Parameter]):
        super().__init__()
        self._named = parameters

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return iter(self._named.items())


class MASPlugin(avalanche_plugins.MASPlugin):
    """Memory aware synapses, for the prediction of a diffusion model.

    Avalanche's plugin takes the norm of the model's output, which must be a tensor. This
    plugin takes the norm of the prediction: the importance of a weight is the mean over
    batches of ``|d mean_i ||eps_theta(x_t, t)||^2 / d theta|`` (arXiv 1711.09601, eq. 2).
    A model that is not conditioned needs no labels.

    :param lambda_reg: the weight of the penalty.
    :param alpha: the share of earlier experiences in the importances.
    """

    def __init__(self, lambda_reg: float = 1.0, alpha: float = 0.5):
        super().__init__(lambda_reg, alpha)

    def _get_importance(self, strategy: Any) -> dict[str, ParamData]:
        importance = dict(zerolike_params_dict(strategy.model))
        dataset = strategy.experience.dataset
        loader = DataLoader(
            dataset, batch_size=strategy.train_mb_size, collate_fn=dataset.collate_fn
        )
        for batch in loader:
            parts = [batch] if isinstance(batch, torch.Tensor) else batch
            output = strategy.model(parts[0].to(strategy.device))
            if isinstance(output, NoisyImages):
                output = output.given(parts[1].to(strategy.device))
            strategy.model.zero_grad()
            output.prediction.square().flatten(1).sum(1).mean().backward()
            for name, parameter in strategy.model.named_parameters():
                if parameter.grad is not None:
                    importance[name].data += parameter.grad.abs() / len(loader)
        strategy.model.zero_grad()
        return importance


class MIRPlugin(avalanche_plugins.MIRPlugin):
    """Maximally interfered retrieval, with the same noise before and after the step.

    MIR replays the samples whose loss a step would raise most. A diffusion model draws new
    timesteps and noise at each call, and these change the loss more than the step does; so
    here both calls draw the same. Avalanche's plugin was made for streams of small
    experiences and leaves out the classes of the last batch, so that it never replays the
    experience before; this one replays from the whole memory.

    :param batch_size_mem: how many samples a step replays.
    :param mem_size: how many samples are in memory.
    :param subsample: how many samples a step compares.
    :raises ValueError: when training starts, for a model with frozen weights.
    """

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Raise ValueError for frozen weights, which MIR's trial step cannot leave out."""
        for name, parameter in strategy.model.named_parameters():
            if not parameter.requires_grad:
                raise ValueError(
                    f"MIR takes a trial step of all weights, but {name} is frozen; train "
                    "it too, or use Avalanche's ReplayPlugin"
                )

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the loss on the replayed samples."""
        with _same_noise(strategy.model):
            super().before_backward(strategy, **kwargs)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Update the memory."""
        self.storage_policy.post_adapt(strategy, strategy.experience)
        self.load_memory()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loader, which cannot be copied or saved."""
        return {**self.__dict__, "replay_loader": self.replay_loader is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.replay_loader = None
        if state["replay_loader"]:
            self.load_memory()

    def load_memory(self) -> None:
        """Replay from the present memory from now on."""
        loader = DataLoader(
            self.storage_policy.buffer, batch_size=self.subsample, shuffle=True
        )
        self.replay_loader = cycle(loader)


class RWalkPlugin(avalanche_plugins.RWalkPlugin):
    """Riemannian walk that stays in training mode, and refuses too short experiences.

    Avalanche's plugin scores the weights every ``delta_t`` iterations. An experience with
    fewer iterations has no score, and the division by the highest score makes all penalties
    NaN. Also, that plugin leaves the model in evaluation mode for training.

    :param ewc_lambda: the weight of the penalty.
    :param ewc_alpha: the weight of new importances in their moving average.
    :param delta_t: iterations between two scores.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Raise ValueError if the experience has fewer than delta_t iterations."""
        iterations = getattr(strategy, "train_steps", None)
        if iterations is None:
            iterations = strategy.train_epochs * len(strategy.dataloader)
        if iterations < self.delta_t:
            raise ValueError(
                f"RWalk needs experiences of delta_t = {self.delta_t} iterations or more, "
                f"got {iterations}; train longer, or lower delta_t"
            )

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Update the importances."""
        super().before_training_iteration(strategy, **kwargs)
        strategy.model.train()


class GEMPlugin(avalanche_plugins.GEMPlugin):
    """Gradient episodic memory; raises an error at once if ``quadprog`` is not installed.

    :param patterns_per_experience: how many samples of each experience are in memory.
    :param memory_strength: gamma, the offset of the projection.
    :raises ValueError: if the package ``quadprog`` is not installed.
    """

    def __init__(self, patterns_per_experience: int, memory_strength: float = 0.5):
        if "quadprog" not in qpsolvers.available_solvers:
            raise ValueError("GEM needs quadprog: pip install 'avalanche-gd[gem]'")
        super().__init__(patterns_per_experience, memory_strength)


def _copy(parameters: dict[str, Any]) -> None:
    """Copy the data of parameters, so that a step does not change them."""
    for parameter in parameters.values():
        parameter.data = parameter.data.clone()


@contextmanager
def _same_noise(model: nn.Module) -> Iterator[None]:
    """Make all calls of the model and of its copies draw the same random numbers."""
    device = next(model.parameters()).device
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind(*_: Any) -> None:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)

    handle = model.register_forward_pre_hook(rewind)
    try:
        yield
    finally:
        handle.remove()
