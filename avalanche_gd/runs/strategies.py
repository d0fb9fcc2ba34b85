"""The strategies of a run: one that trains a generator, one that trains a solver."""

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
from avalanche.models.generator import MlpVAE
from avalanche.training.plugins import (
    EvaluationPlugin,
    GenerativeReplayPlugin,
    LRSchedulerPlugin,
)
from avalanche.training.plugins.generative_replay import TrainGeneratorAfterExpPlugin
from avalanche.training.supervised import VAETraining
from torchvision.transforms import Normalize

from avalanche_gd.distributed.launch import is_main
from avalanche_gd.metrics import denoising_loss_metrics, generated_image_metrics
from avalanche_gd.models import DiffusionModel, SmallCNN
from avalanche_gd.plugins import SoftGenerativeReplayPlugin
from avalanche_gd.runs.columns import generation_metrics
from avalanche_gd.runs.config import RunConfig
from avalanche_gd.training import BudgetedTemplate, DiffusionTraining, SoftGenerativeReplay


class BudgetedVAETraining(BudgetedTemplate, VAETraining):
    """Avalanche's ``VAETraining`` with a budget in steps."""


class CumulativePlugin(SupervisedPlugin, supports_distributed=True):
    """Trains an experience on its data and that of all experiences before it."""

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Bring the data of the experiences before along."""
        experience = strategy.experience
        so_far = experience.origin_stream[: experience.current_experience + 1]
        strategy.adapted_dataset = concat_datasets([exp.dataset for exp in so_far])


class _LinearDecayPlugin(  # type: ignore[call-arg]
    LRSchedulerPlugin, supports_distributed=True
):
    """Avalanche's plugin, which asks for no metric here."""


class _PrefixedTensorboardLogger(TensorboardLogger):
    """Keeps the losses of generator and solver apart."""

    def __init__(self, folder: Path, prefix: str):
        super().__init__(folder, filename_suffix=f".{prefix}")
        self.prefix = prefix

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        super().log_single_metric(f"{self.prefix}/{name}", value, x_plot)


def make_generator(config: RunConfig) -> torch.nn.Module | None:
    """The generative model of the method, with random weights; None if it has none."""
    device = config.torch_device
    kind = config.method.generator
    if kind == "none":
        return None
    if kind == "vae":
        vae = MlpVAE(config.sample_shape, device=device)
        # Avalanche's decoder ends in the range of its own MNIST; ours is [-1, 1].
        vae.decoder.invTrans = Normalize((0.5,), (0.5,))
        return vae.to(device)
    return config.model.make(config.benchmark.n_classes).to(device)


def generator_strategy(
    config: RunConfig,
    model: torch.nn.Module,
    plugins: list[Any],
    folder: Path,
) -> BudgetedTemplate:
    """What trains the generator.

    :param model: of :func:`make_generator`.
    :param plugins: all of its plugins but the one of the learning rate.
    :param folder: for TensorBoard's files.
    """
    sampling = config.evaluation.sampling()
    budget = config.generator
    optimizer = _adam(model, budget.learning_rate)
    metrics: list[Any] = [
        loss_metrics(epoch=True, experience=True, stream=True),
        *generation_metrics(sampling),
        generated_image_metrics(sampling=sampling, shown=min(64, sampling.images)),
    ]
    if isinstance(model, DiffusionModel):
        metrics.append(denoising_loss_metrics())
    common: dict[str, Any] = dict(
        model=model,
        optimizer=optimizer,
        train_mb_size=budget.batch_size,
        eval_mb_size=256,
        train_steps=budget.steps,
        device=config.torch_device,
        plugins=[*plugins, *_decay(config, optimizer)],
        evaluator=EvaluationPlugin(*metrics, loggers=_loggers(folder, "generator")),
    )
    if isinstance(model, DiffusionModel):
        return DiffusionTraining(ema_decay=budget.ema_decay, **common)
    return BudgetedVAETraining(**common)


def solver_strategy(
    config: RunConfig,
    generator: BudgetedTemplate | None,
    plugins: list[Any],
    folder: Path,
) -> BudgetedTemplate:
    """What trains the solver, and after it, where the solver replays, the generator.

    :param generator: of :func:`generator_strategy`.
    :param plugins: all of its plugins.
    :param folder: for TensorBoard's files.
    """
    budget = config.solver
    classifier = SmallCNN(config.sample_shape, config.benchmark.n_classes)
    classifier.to(config.torch_device)
    common: dict[str, Any] = dict(
        model=classifier,
        optimizer=_adam(classifier, budget.learning_rate),
        train_mb_size=budget.batch_size,
        eval_mb_size=256,
        train_steps=budget.steps,
        device=config.torch_device,
        plugins=plugins,
        evaluator=EvaluationPlugin(
            accuracy_metrics(experience=True, stream=True),
            forgetting_metrics(experience=True, stream=True),
            loss_metrics(epoch=True, stream=True),
            loggers=_loggers(folder, "solver"),
        ),
    )
    if not config.method.solver_replays:
        return BudgetedTemplate(**common)
    if config.method.generator == "vae":
        # Avalanche's GenerativeReplay, whose template knows no budget in steps.
        replay = GenerativeReplayPlugin(generator_strategy=generator)
        common["plugins"] = [*plugins, replay, TrainGeneratorAfterExpPlugin()]
        return BudgetedTemplate(**common)
    replay = SoftGenerativeReplayPlugin(
        generator,
        temperature=budget.temperature,
        teacher_steps=budget.replay_steps,
        pool_size=budget.pool_size,
        labels=budget.replay_labels,
    )
    return SoftGenerativeReplay(replay=replay, **common)


def _loggers(folder: Path, prefix: str) -> list[TensorboardLogger]:
    return [_PrefixedTensorboardLogger(folder, prefix)] if is_main() else []


def _decay(config: RunConfig, optimizer: torch.optim.Optimizer) -> list[SupervisedPlugin]:
    """Linear decay of the learning rate at the end of each experience."""
    steps, decay_steps = config.generator.steps, config.generator.decay_steps
    if decay_steps == 0:
        return []
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (steps - step) / decay_steps)
    )
    return [_LinearDecayPlugin(schedule, step_granularity="iteration")]


def _adam(model: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
