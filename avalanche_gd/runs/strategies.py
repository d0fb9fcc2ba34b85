"""The strategies of a run: one that trains a generator, one that trains a solver."""

from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
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

from avalanche_gd.data import stream_tensors
from avalanche_gd.distributed.launch import is_main
from avalanche_gd.metrics import (
    denoising_loss_metrics,
    fisher_share_metrics,
    generated_image_metrics,
)
from avalanche_gd.metrics.labeller import resnet18_labeller
from avalanche_gd.metrics.shared_images import SharedImages
from avalanche_gd.models import DiffusionModel
from avalanche_gd.models.classifier import classifier
from avalanche_gd.plugins import ClassifierGuidance, SoftGenerativeReplayPlugin
from avalanche_gd.runs.config import RunConfig, SolverConfig
from avalanche_gd.runs.errors import naming
from avalanche_gd.training import BudgetedTemplate, DiffusionTraining


class BudgetedVAETraining(BudgetedTemplate, VAETraining):
    """Avalanche's ``VAETraining`` with a budget in steps."""


class CumulativePlugin(SupervisedPlugin, supports_distributed=True):
    """Trains an experience on its data and on that of all experiences before it."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Make metrics count those too, if they were not trained by themselves."""
        experience = strategy.experience
        for before in experience.origin_stream[: experience.current_experience]:
            SharedImages.of(strategy).observe(before)

    def after_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Add the data of the experiences before."""
        experience = strategy.experience
        so_far = experience.origin_stream[: experience.current_experience + 1]
        strategy.adapted_dataset = concat_datasets([exp.dataset for exp in so_far])


class NewOptimizerStatePlugin(SupervisedPlugin, supports_distributed=True):
    """Starts each experience with a new state of the optimizer."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Delete the old state."""
        strategy.make_optimizer(reset_optimizer_state=True)


class _LinearDecayPlugin(  # type: ignore[call-arg]
    LRSchedulerPlugin, supports_distributed=True
):
    """Lowers a learning rate, in one process or several, as it needs no metric."""


class _PrefixedTensorboardLogger(TensorboardLogger):
    """Separates the losses of generator and solver by a prefix."""

    def __init__(self, folder: Path, prefix: str):
        super().__init__(folder, filename_suffix=f".{prefix}")
        self.prefix = prefix

    def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
        super().log_single_metric(f"{self.prefix}/{name}", value, x_plot)


def make_generator(config: RunConfig) -> torch.nn.Module | None:
    """Make the generative model of the method, with random weights; None without one."""
    device = config.torch_device
    kind = config.method.generator
    if kind == "none":
        return None
    if kind == "vae":
        vae = MlpVAE(config.model.shape, device=device)
        # Avalanche's decoder ends in the range of its own MNIST; ours is [-1, 1].
        vae.decoder.invTrans = Normalize((0.5,), (0.5,))
        return vae.to(device)
    return config.model.make(config.benchmark.n_classes).to(device)


def make_labeller(config: RunConfig, benchmark: Any) -> torch.nn.Module | None:
    """Make or load the labeller of a run's generated images; None for the oracle.

    :raises ValueError: if its weights cannot be found or read.
    """
    evaluation = config.evaluation
    if evaluation.labeller == "oracle" or config.method.generator == "none":
        return None
    images, labels = stream_tensors(benchmark.train_stream)
    with naming("evaluation"):
        return resnet18_labeller(images, labels, weights_path=evaluation.labeller_weights)


def generator_strategy(
    config: RunConfig,
    model: torch.nn.Module,
    plugins: list[Any],
    labeller: torch.nn.Module | None = None,
) -> BudgetedTemplate:
    """Make the strategy that trains the generator.

    :param model: from :func:`make_generator`.
    :param plugins: all its plugins except the one of the learning rate.
    :param labeller: from :func:`make_labeller`.
    """
    sampling = config.evaluation.sampling()
    metrics: list[Any] = [
        loss_metrics(epoch=True, experience=True, stream=True),
        *config.evaluation.metrics(labeller),
        generated_image_metrics(sampling=sampling, shown=min(64, sampling.images)),
    ]
    if isinstance(model, DiffusionModel):
        metrics += [denoising_loss_metrics(), fisher_share_metrics()]
    options = _options(config, "generator", model, metrics)
    budget = config.budget("generator")
    steps, decay_steps = budget.steps, budget.decay_steps
    if steps is not None and decay_steps > 0:
        schedule = torch.optim.lr_scheduler.LambdaLR(
            options["optimizer"], lambda step: min(1.0, (steps - step) / decay_steps)
        )
        plugins = [*plugins, _LinearDecayPlugin(schedule, step_granularity="iteration")]
    if isinstance(model, DiffusionModel):
        ema_decay = config.generator.ema_decay
        return DiffusionTraining(ema_decay=ema_decay, plugins=plugins, **options)
    return BudgetedVAETraining(plugins=plugins, **options)


def solver_strategy(config: RunConfig, plugins: list[Any]) -> BudgetedTemplate:
    """Make the strategy that trains the solver.

    :param plugins: all its plugins, those of :func:`solver_replay` last.
    """
    architecture, shape = config.solver.architecture, config.model.shape
    solver = classifier(architecture, shape, config.benchmark.n_classes)
    metrics = [
        accuracy_metrics(experience=True, stream=True),
        forgetting_metrics(experience=True, stream=True),
        loss_metrics(epoch=True, stream=True),
    ]
    options = _options(config, "solver", solver.to(config.torch_device), metrics)
    return BudgetedTemplate(plugins=plugins, **options)


def solver_replay(config: SolverConfig, strategy: Any) -> list[Any]:
    """Make the plugins with which a solver replays a generator and then trains it.

    :param strategy: the strategy that trains the generator.
    """
    if not isinstance(strategy.model, DiffusionModel):  # like Avalanche's GenerativeReplay
        return [GenerativeReplayPlugin(strategy), TrainGeneratorAfterExpPlugin()]
    guidance = None
    if config.guidance is not None:
        guidance = ClassifierGuidance(scale=config.guidance_scale, towards=config.guidance)
    soft = dict(temperature=config.temperature)
    replay = SoftGenerativeReplayPlugin(
        strategy,
        **({} if config.replay_labels == "condition" else soft),
        teacher_steps=config.replay_steps,
        look_ahead=config.look_ahead,
        pool_size=config.pool_size,
        labels=config.replay_labels,
        teacher_eta=config.replay_eta,
        increasing_replay_size=config.increasing_replay_size,
        samples_only_from=config.samples_only_from,
        regenerate_from=config.regenerate_from,
        guidance=guidance,
    )
    return [replay]


def _options(
    config: RunConfig, name: str, model: torch.nn.Module, metrics: list[Any]
) -> dict[str, Any]:
    """The arguments of a model's template, without its plugins.

    :param name: the name of the model in the settings.
    """
    budget = config.budget(name)
    spent: dict[str, int | None] = {"train_steps": budget.steps}
    if budget.epochs is not None:
        spent = {"train_epochs": budget.epochs}
    loggers = [_PrefixedTensorboardLogger(config.folder, name)] if is_main() else []
    return dict(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), budget.learning_rate, fused=True),
        train_mb_size=budget.batch_size,
        eval_mb_size=256,
        device=config.torch_device,
        evaluator=EvaluationPlugin(*metrics, loggers=loggers),
        **spent,
    )
