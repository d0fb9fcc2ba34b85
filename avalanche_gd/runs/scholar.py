"""A scholar: a generator and a solver that learn a stream together."""

from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import (
    accuracy_metrics,
    forgetting_metrics,
    loss_metrics,
)
from avalanche.logging import TensorboardLogger
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin

from avalanche_gd.metrics import (
    class_balance_metrics,
    denoising_loss_metrics,
    fid_metrics,
    generated_image_metrics,
)
from avalanche_gd.metrics.generation import Generation
from avalanche_gd.models import DiffusionModel, SmallCNN
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.runs.progress import Progress
from avalanche_gd.runs.seeds import SeedPlugin
from avalanche_gd.training import BudgetedTemplate, DiffusionTraining, SoftGenerativeReplay

_GENERATOR, _SOLVER = 1, 2  # numbers of their random states
_CLOCK = (
    "train_iterations",
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "total_iterations",
)


class CumulativePlugin(SupervisedPlugin):
    """Trains an experience on its data and that of all experiences before it."""

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Bring the data of the experiences before along."""
        experience = strategy.experience
        so_far = experience.origin_stream[: experience.current_experience + 1]
        strategy.adapted_dataset = concat_datasets([exp.dataset for exp in so_far])


class _PrefixedTensorboardLogger(TensorboardLogger):
    """Keeps the losses of generator and solver apart."""

    def __init__(self, folder: Path, prefix: str):
        super().__init__(folder, filename_suffix=f".{prefix}")
        self.prefix = prefix

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        super().log_single_metric(f"{self.prefix}/{name}", value, x_plot)


class Scholar:
    """A diffusion model and a classifier under one method.

    :param config: of the run.
    :param folder: for TensorBoard's files.
    """

    def __init__(self, config: RunConfig, folder: Path):
        self.config = config
        device = config.torch_device
        self.diffusion_model = DiffusionModel.from_preset(config.model.preset).to(device)
        self.classifier = SmallCNN(config.sample_shape, config.benchmark.n_classes)
        self.classifier.to(device)
        n_experiences = config.benchmark.n_experiences
        self.progress = {
            name: Progress(name, n_experiences) for name in ("generator", "solver")
        }
        sampling = config.evaluation.sampling()
        optimizer = _adam(self.diffusion_model, config.generator.learning_rate)
        self.generator = DiffusionTraining(
            model=self.diffusion_model,
            optimizer=optimizer,
            train_mb_size=config.generator.batch_size,
            train_steps=config.generator.steps,
            device=device,
            plugins=[
                SeedPlugin(config.seed, _GENERATOR),
                *self._data_plugins(),
                *config.make_plugins(),
                *self._decay(optimizer),
                self.progress["generator"],
            ],
            evaluator=EvaluationPlugin(
                loss_metrics(epoch=True, experience=True, stream=True),
                denoising_loss_metrics(),
                fid_metrics(sampling=sampling),
                class_balance_metrics(sampling=sampling),
                generated_image_metrics(sampling=sampling, shown=min(64, sampling.images)),
                loggers=[_PrefixedTensorboardLogger(folder, "generator")],
            ),
        )
        self.solver = self._make_solver(device, folder)

    def train(self, experience: Any) -> None:
        """Train the solver on an experience, then the generator."""
        self.solver.train(experience, eval_streams=[])
        if not self.config.method.solver_replays:
            self.generator.train(experience, eval_streams=[])

    def evaluate(self, stream: Any) -> dict[str, float]:
        """The metrics of both by ``generator/NAME`` and ``solver/NAME``."""
        values = {}
        for prefix, strategy in (("generator", self.generator), ("solver", self.solver)):
            strategy.evaluator.reset_last_metrics()
            for name, value in strategy.eval(stream).items():
                if isinstance(value, float):  # images are for the loggers
                    values[f"{prefix}/{name}"] = value
        return values

    def generated_images(self) -> torch.Tensor:
        """The images of the last evaluation, ``(N, C, H, W)``, in model space."""
        sampling = self.config.evaluation.sampling()
        return Generation.of(self.generator).images(self.diffusion_model, sampling)

    def state_dict(self) -> dict[str, Any]:
        """All that the next experience depends on, in tensors and plain containers."""
        return {
            "generator": _strategy_state(self.generator),
            "solver": _strategy_state(self.solver),
            "seconds": {name: p.seconds for name, p in self.progress.items()},
        }

    def load_state_dict(self, state: dict[str, Any], seen: Any) -> None:
        """Go on from a state.

        :param state: from :meth:`state_dict`.
        :param seen: the training experiences that led to it.
        """
        _load_strategy_state(self.generator, state["generator"])
        _load_strategy_state(self.solver, state["solver"])
        for name, progress in self.progress.items():
            progress.seconds = state["seconds"][name]
        for experience in seen:
            Generation.of(self.generator).observe(experience)

    def _data_plugins(self) -> list[SupervisedPlugin]:
        return [CumulativePlugin()] if self.config.method.cumulative else []

    def _decay(self, optimizer: torch.optim.Optimizer) -> list[SupervisedPlugin]:
        """Linear decay of the learning rate at the end of each experience."""
        steps, decay_steps = self.config.generator.steps, self.config.generator.decay_steps
        if decay_steps == 0:
            return []
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (steps - step) / decay_steps)
        )
        return [LRSchedulerPlugin(schedule, step_granularity="iteration")]

    def _make_solver(self, device: torch.device, folder: Path) -> BudgetedTemplate:
        config = self.config.solver
        common: dict[str, Any] = dict(
            model=self.classifier,
            optimizer=_adam(self.classifier, config.learning_rate),
            train_mb_size=config.batch_size,
            eval_mb_size=256,
            train_steps=config.steps,
            device=device,
            plugins=[
                SeedPlugin(self.config.seed, _SOLVER),
                *self._data_plugins(),
                self.progress["solver"],
            ],
            evaluator=EvaluationPlugin(
                accuracy_metrics(experience=True, stream=True),
                forgetting_metrics(experience=True, stream=True),
                loss_metrics(epoch=True, stream=True),
                loggers=[_PrefixedTensorboardLogger(folder, "solver")],
            ),
        )
        if not self.config.method.solver_replays:
            return BudgetedTemplate(**common)
        return SoftGenerativeReplay(
            generator_strategy=self.generator,
            temperature=config.temperature,
            teacher_steps=config.replay_steps,
            **common,
        )


def _adam(model: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)


def _strategy_state(strategy: Any) -> dict[str, Any]:
    return {
        "model": strategy.model.state_dict(),
        "optimizer": strategy.optimizer.state_dict(),
        "clock": {name: getattr(strategy.clock, name) for name in _CLOCK},
        "first_values": {
            str(metric): dict(metric.forgetting.initial)
            for metric in strategy.evaluator.metrics
            if hasattr(metric, "forgetting")
        },
    }


def _load_strategy_state(strategy: Any, state: dict[str, Any]) -> None:
    strategy.model.load_state_dict(state["model"])
    # Avalanche empties the optimizer the first time it sees the model: let it do so now.
    strategy.make_optimizer(reset_optimizer_state=True)
    strategy.optimizer.load_state_dict(state["optimizer"])
    for name, count in state["clock"].items():
        setattr(strategy.clock, name, count)
    for metric in strategy.evaluator.metrics:
        if hasattr(metric, "forgetting"):
            metric.forgetting.initial = dict(state["first_values"][str(metric)])
