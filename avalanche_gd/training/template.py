"""What the templates of generators and solvers share."""

import math
import sys
from collections.abc import Iterable
from typing import Any

import torch
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.distributed import DistributedHelper
from avalanche.training.plugins import EarlyStoppingPlugin
from avalanche.training.templates import SupervisedTemplate
from avalanche.training.templates.base_sgd import PeriodicEval
from torch import Tensor

from avalanche_gd.checks import check_integer
from avalanche_gd.data.images import image_of, read_batches_at_once
from avalanche_gd.data.model_space import has_label
from avalanche_gd.distributed.gradients import (
    average,
    average_gradients,
    check_processes,
)
from avalanche_gd.distributed.shares import check_shares, own_share, sharing, unshared
from avalanche_gd.models.diffusion import DiffusionModel
from avalanche_gd.models.random_state import same_draws, seeded
from avalanche_gd.plugins.compatibility import check_needs_no_labels

_CHECK_EVERY = 50  # steps between checks of the loss on an accelerator, which must wait
_EVALUATION_SEED = 0


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number."""


class BudgetedTemplate(SupervisedTemplate):
    """Avalanche's ``SupervisedTemplate`` with a budget in steps.

    - With ``train_steps``, an experience is trained for that many optimizer steps on
      full batches, however much data it has, so that methods can be compared. This is also
      true for what Avalanche's ``ReplayPlugin`` adds to a batch. (If data or a memory are
      smaller than a batch, they are the whole batch.)
    - With ``eval_every`` there is also one evaluation at the end of an experience.
    - Evaluation draws from a random state of its own, the same each time: it does not
      change the training, and its losses can be compared.
    - A loss that is not finite stops the training with an error that names the step.
    - An empty experience is refused before any is trained.
    - A diffusion model that is not conditioned needs no labels: the items of a dataset can
      be images only, alone or as tuples of one.
    - Several processes train one model together
      (:mod:`avalanche_gd.distributed.gradients`).

    :param train_steps: optimizer steps an experience; None to use ``train_epochs``.
    :param train_mb_size: batch size in training.
    :param eval_mb_size: batch size in evaluation.
    :param kwargs: the other arguments of Avalanche's ``SupervisedTemplate``: ``model``,
        ``optimizer``, ``criterion``, ``train_epochs``, ``device``, ``plugins``,
        ``evaluator``, ``eval_every``, ...
    :raises ValueError: unless steps and batch sizes are integers of 1 or more and epochs
        of 0 or more, for both steps and epochs, or if the optimizer has none of the model's
        parameters.
    """

    def __init__(
        self,
        *,
        train_steps: int | None = None,
        train_mb_size: int = 64,
        eval_mb_size: int = 256,
        **kwargs: Any,
    ):
        if train_steps is not None:
            train_steps = check_integer("train_steps", train_steps)
            if "train_epochs" in kwargs:
                raise ValueError(
                    "train_steps and train_epochs cannot both be given; give one"
                )
            kwargs["train_epochs"] = sys.maxsize
        check_integer("train_epochs", kwargs.get("train_epochs", 1), 0)
        check_integer("train_mb_size", train_mb_size)
        check_integer("eval_mb_size", eval_mb_size)
        _check_optimizer(kwargs.get("optimizer"), kwargs.get("model"))
        super().__init__(train_mb_size=train_mb_size, eval_mb_size=eval_mb_size, **kwargs)
        self.train_steps = train_steps

    def train(self, experiences: Any, eval_streams: Any = None, **kwargs: Any) -> Any:
        """Train on experiences, as Avalanche does.

        :raises ValueError: for an experience that this strategy or one of its plugins
            cannot train on, or processes that cannot train together, before any is trained;
            for an epoch without a batch, as with epochs and ``drop_last=True`` if the data
            are smaller than a batch.
        :raises NonFiniteLossError: if the loss becomes infinite or not a number.
        """
        if not isinstance(experiences, Iterable):
            experiences = [experiences]
        experiences = list(experiences)
        for experience in experiences:
            self.check_experience(experience)
            for plugin in self.plugins:
                if hasattr(plugin, "check_experience"):
                    plugin.check_experience(experience)
        check_processes(self)
        return super().train(experiences, eval_streams, **kwargs)

    def check_experience(self, experience: Any) -> None:
        """Raise ValueError if it is empty, or a model or plugin needs labels it lacks."""
        dataset = getattr(experience, "dataset", None)
        if dataset is None or len(dataset) == 0:
            lack = "has no dataset" if dataset is None else "is empty"
            raise ValueError(
                f"experience {experience.current_experience + 1} {lack}; "
                "leave it out of the stream"
            )
        try:
            with same_draws():  # its transforms may draw
                item = dataset[0]
        except AttributeError as error:
            raise ValueError(
                f"experience {experience.current_experience + 1} cannot be read ({error}); "
                "Avalanche appends task labels to tuples, not to bare images: give (image,)"
            ) from error
        if has_label(item, dataset):
            return
        if isinstance(self.model, DiffusionModel) and self.model.num_classes is None:
            check_needs_no_labels(self.plugins)
        else:
            raise ValueError(
                f"experience {experience.current_experience + 1} has no labels, but a "
                f"{type(self.model).__name__} is trained with them; only a diffusion model "
                "without num_classes needs none"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the graph of a step, which cannot be copied, after an interruption."""
        loss = self.loss.detach() if isinstance(self.loss, Tensor) else self.loss
        return {**self.__dict__, "mb_output": None, "loss": loss}

    @torch.no_grad()
    def eval(self, exp_list: Any, **kwargs: Any) -> Any:
        """Evaluate, as Avalanche does, without a change of the random state."""
        with unshared(), seeded(_EVALUATION_SEED, self.device):
            return super().eval(exp_list, **kwargs)

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """Make Avalanche's data loader; ``train_steps`` is without a last small batch."""
        if self.train_steps is not None:
            has_a_batch = len(self.adapted_dataset) >= self.train_mb_size
            kwargs["drop_last"] = has_a_batch and kwargs.get("drop_last", True)
        if not kwargs.get("drop_last"):
            last = len(self.adapted_dataset) % self.train_mb_size
            name = "the last batch of an epoch (give drop_last=True, or train_steps)"
            check_shares(name, last, DistributedHelper.world_size)
        super().make_train_dataloader(**kwargs)

    def training_epoch(self, **kwargs: Any) -> None:
        """Train; with several processes, on this process's share of each batch.

        :raises ValueError: if the data do not make a batch.
        """
        if hasattr(self.dataloader, "distributed_sampling"):  # a plugin may have made it
            self.dataloader.distributed_sampling = False
        if self.train_steps is not None:
            self._drop_small_batches()
        read_batches_at_once(self.dataloader)
        before = self.clock.train_exp_iterations
        with sharing(DistributedHelper.rank, DistributedHelper.world_size):
            super().training_epoch(**kwargs)
        if self.clock.train_exp_iterations == before and not self._stop_training:
            raise ValueError(
                f"experience {self.experience.current_experience + 1} does not make one "
                f"batch of {self.train_mb_size}; leave drop_last out, or lower "
                "train_mb_size"
            )

    def _drop_small_batches(self) -> None:
        """Make a loader of several datasets, as for replay, give full batches only, too."""
        loader = self.dataloader
        if isinstance(loader, MultiDatasetDataLoader):
            parts = zip(loader.datasets, loader.batch_sizes, strict=True)
            # A dataset smaller than its share of a batch is still used.
            loader.batch_sizes = [min(len(data), size) for data, size in parts]
            loader.loader_kwargs["drop_last"] = True

    def backward(self) -> None:
        """Run the backward pass, and raise an error if the loss is not finite.

        With several processes, each gets the mean loss and the mean gradients of all.
        """
        super().backward()
        if DistributedHelper.is_distributed:
            self.average_gradients()
            self.loss: Tensor = average(self.loss)
        self._check_loss()

    def average_gradients(self) -> None:
        """Average the gradients over the processes, after the backward pass."""
        average_gradients(self.optimizer)

    def _check_loss(self) -> None:
        step = self.clock.train_exp_iterations
        if self.device.type == "cpu" or step % _CHECK_EVERY == 0:
            loss = self.loss.item()
            if not math.isfinite(loss):
                raise NonFiniteLossError(
                    f"the loss of the {type(self.model).__name__} is {loss} at step "
                    f"{step + 1} of experience {self.experience.current_experience + 1}; "
                    "lower the learning rate or lambda"
                )

    def _obtain_common_dataloader_parameters(self, **kwargs: Any) -> dict[str, Any]:
        """Change Avalanche's parameters for data on a GPU, and for several processes.

        Only data in the CPU's memory can be pinned, and all processes load whole batches.
        """
        first = image_of(self.adapted_dataset[0])
        if isinstance(first, torch.Tensor) and first.device.type != "cpu":
            kwargs["pin_memory"] = False
        if self.is_eval or hasattr(self.experience, "task_labels"):  # Avalanche's loaders
            kwargs["distributed_sampling"] = False
        return super()._obtain_common_dataloader_parameters(**kwargs)

    def _before_eval_exp(self, **kwargs: Any) -> None:
        self.check_experience(self.experience)
        super()._before_eval_exp(**kwargs)

    def _unpack_minibatch(self) -> None:
        """Unpack this process's share of a batch; missing labels become -1."""
        parts = [self.mbatch] if isinstance(self.mbatch, Tensor) else list(self.mbatch)
        if not has_label(parts, self.adapted_dataset):
            parts.insert(1, torch.full((len(parts[0]),), -1))
        self.mbatch: list[Tensor] = [own_share(part) for part in parts]
        super()._unpack_minibatch()

    def _after_training_exp(self, **kwargs: Any) -> None:
        """Evaluate at the end, unless the last periodic evaluation was there.

        Avalanche decides that from ``train_epochs`` at the beginning of an experience.
        """
        for plugin in self.plugins:
            if isinstance(plugin, PeriodicEval):
                plugin.do_final = self._lacks_final_evaluation(plugin)
        super()._after_training_exp(**kwargs)

    def _lacks_final_evaluation(self, periodic: PeriodicEval) -> bool:
        every, mode = periodic.eval_every, periodic.peval_mode
        if every <= 0 or mode == "experience":
            return every >= 0
        if any(isinstance(plugin, EarlyStoppingPlugin) for plugin in self.plugins):
            return True  # it may have gone back to the weights of an earlier evaluation
        iterations, epochs = self.clock.train_exp_iterations, self.clock.train_exp_epochs
        trained = iterations if mode == "iteration" else epochs
        return (trained - 1) % every != 0  # Avalanche's first one is after the first step

    def _after_training_iteration(self, **kwargs: Any) -> None:
        super()._after_training_iteration(**kwargs)
        if self.clock.train_exp_iterations == self.train_steps:
            self.stop_training()


def _check_optimizer(optimizer: Any, model: Any) -> None:
    """Raise ValueError if an optimizer has none of a model's parameters.

    This happens if the model was copied or made again after the optimizer. If the model or
    the optimizer has no parameters at all, Avalanche raises an error.
    """
    if optimizer is None or model is None:
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held.isdisjoint(map(id, model.parameters())):
        raise ValueError(
            "the optimizer has none of the model's parameters; make it from the "
            "model.parameters() of the model that you train"
        )
