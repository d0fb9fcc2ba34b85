"""Trainings, and refusals, for one process and for several that torchrun starts."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.distributed import DistributedHelper
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from torch import nn

from avalanche_gd import (
    ClassifierGuidance,
    DiffusionModel,
    DiffusionTraining,
    DistillFromPlugin,
    GenerativeDistillationPlugin,
    GenerativeReplayPlugin,
    RankOneEWCPlugin,
    Sampling,
    SmallCNN,
    SoftGenerativeReplay,
    SoftGenerativeReplayPlugin,
    SplitDigits,
    ddim_scheduler,
    denoising_loss_metrics,
    fid_metrics,
)
from avalanche_gd.data.augmentation import HorizontalFlipPlugin
from avalanche_gd.plugins import SOURCES
from avalanche_gd.training import BudgetedTemplate
from tests.helpers.bits import weights
from tests.helpers.small_models import SHAPE, TinyDenoiser, images, tiny

BATCH = 16
STEPS = 4


class Losses(SupervisedPlugin, supports_distributed=True):
    """Notes the loss of each step, and how many images it was of."""

    def __init__(self):
        super().__init__()
        self.values, self.sizes = [], []

    def after_training_iteration(self, strategy, **kwargs):
        self.values.append(strategy.loss.item())
        self.sizes.append(len(strategy.mb_x))


def conditioned_unet() -> DiffusionModel:
    return DiffusionModel.from_preset("digits", num_classes=10, condition_dropout=0.3)


def training(model: DiffusionModel, *plugins: Any, **options: Any) -> DiffusionTraining:
    settings: dict[str, Any] = dict(train_mb_size=BATCH, train_steps=STEPS, evaluator=None)
    # A U-Net's rounding grows at the higher rate, at which the tiny one shows more.
    rate = 1e-2 if isinstance(model.denoiser, TinyDenoiser) else 1e-3
    optimizer = torch.optim.Adam(model.parameters(), rate)
    return DiffusionTraining(
        model=model, optimizer=optimizer, plugins=list(plugins), **settings | options
    )


def outcome(strategy: Any, *watched: Any, **options: Any) -> dict[str, Any]:
    """Train two experiences and evaluate.

    :param watched: strategies whose losses and weights are kept; itself, if none.
    :param options: of ``train``.
    """
    watched = watched or (strategy,)
    losses = [Losses() for _ in watched]
    for one, noted in zip(watched, losses, strict=True):
        one.plugins.insert(0, noted)  # before an evaluation clears the batch
    benchmark = SplitDigits(5)
    streams = [benchmark.test_stream[:1]]
    strategy.train(benchmark.train_stream[:2], eval_streams=streams, **options)
    watched[-1].eval(benchmark.test_stream[:2])
    recorded = watched[-1].evaluator.get_all_metrics()
    return {
        "losses": [value for noted in losses for value in noted.values],
        "sizes": [size for noted in losses for size in noted.sizes],
        "weights": [weights(one.model) for one in watched],
        "values": {name: values for name, (_, values) in recorded.items()},
    }


def distilled(**options: Any) -> dict[str, Any]:
    """With a lambda at which its loss, which begins at 0, is as large as the other."""
    return outcome(training(tiny(), GenerativeDistillationPlugin(2, 100, **options)))


def guidance(towards: str) -> ClassifierGuidance:
    return ClassifierGuidance(SmallCNN(SHAPE, 10).eval(), towards=towards)


def conditionally_distilled(**options: Any) -> dict[str, Any]:
    return outcome(
        training(conditioned_unet(), GenerativeDistillationPlugin(2, 100, **options))
    )


def solved(generator: DiffusionModel, **options: Any) -> dict[str, Any]:
    of_generator = training(generator, GenerativeDistillationPlugin())
    solver = SmallCNN(SHAPE, 10)
    strategy = SoftGenerativeReplay(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), 1e-2),
        replay=SoftGenerativeReplayPlugin(of_generator, **options),
        train_mb_size=BATCH,
        train_steps=STEPS,
        evaluator=None,
    )
    return outcome(strategy, strategy, of_generator)


class OtherGenerator(nn.Module):
    """Not a diffusion model."""

    def generate(self, count: int) -> torch.Tensor:
        return images(count)


def solved_with_another_generator() -> dict[str, Any]:
    generator = SimpleNamespace(model=OtherGenerator(), train=lambda *_, **__: None)
    solver = SmallCNN(SHAPE, 10)
    strategy = BudgetedTemplate(
        model=solver,
        optimizer=torch.optim.Adam(solver.parameters(), 1e-2),
        plugins=[GenerativeReplayPlugin(generator)],
        train_mb_size=BATCH,
        train_steps=STEPS,
        evaluator=None,
    )
    return outcome(strategy)


def evaluated_in_the_midst() -> dict[str, Any]:
    metrics = [fid_metrics(sampling=Sampling(30, 2)), denoising_loss_metrics()]
    strategy = training(
        tiny(),
        GenerativeDistillationPlugin(),
        eval_every=2,
        peval_mode="iteration",
        evaluator=EvaluationPlugin(*metrics),
    )
    return outcome(strategy)


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "naive": lambda: outcome(training(DiffusionModel.from_preset("digits"))),
    "conditioned": lambda: outcome(training(conditioned_unet())),
    "epochs": lambda: outcome(
        training(tiny(), train_steps=None, train_epochs=1), drop_last=True
    ),
    "distillation": distilled,
    "distillation, pool": lambda: distilled(pool_size=50, pool_refresh=2),
    "distillation, ratio 1/2": lambda: distilled(replay_ratio=0.5),
    "distillation, EMA": lambda: outcome(
        training(tiny(), GenerativeDistillationPlugin(), ema_decay=0.9)
    ),
    "distillation, conditioned": conditionally_distilled,
    "distillation, conditioned, odd shares": lambda: outcome(
        training(conditioned_unet(), GenerativeDistillationPlugin(), train_mb_size=6)
    ),
    "conditioned, an image each": lambda: outcome(
        training(conditioned_unet(), train_mb_size=2, train_steps=1)
    ),
    "distillation, conditioned pool": lambda: conditionally_distilled(pool_size=50),
    "both predictions": lambda: conditionally_distilled(unconditional_weight=2.0),
    "both predictions, pairs": lambda: conditionally_distilled(
        unconditional_weight=2.0, pool_size=50, pool_of="pairs"
    ),
    "guided": lambda: distilled(guidance=guidance("missing")),
    "guided, pool": lambda: distilled(guidance=guidance("confused"), pool_size=50),
    "guided, conditioned": lambda: conditionally_distilled(guidance=guidance("missing")),
    "trajectory, conditioned": lambda: conditionally_distilled(source="trajectory"),
    "distillation, pairs": lambda: distilled(pool_size=50, pool_of="pairs"),
    "a teacher that follows": lambda: distilled(teacher_ema_decay=0.7),
    "split by SNR, conditioned": lambda: conditionally_distilled(source="snr_split"),
    "distilled from a model": lambda: outcome(training(tiny(), DistillFromPlugin(tiny()))),
    "current, ratio 3/2": lambda: distilled(source="current", replay_ratio=1.5),
    **{
        source: lambda source=source: distilled(source=source)
        for source in SOURCES
        if source != "generation"
    },
    "rank-1 EWC": lambda: outcome(training(tiny(), RankOneEWCPlugin(1000))),
    "rank-1 EWC, conditioned, diagonal": lambda: outcome(
        training(conditioned_unet(), RankOneEWCPlugin(samples=5, control="diagonal"))
    ),
    "rank-1 EWC beside distillation": lambda: outcome(
        training(
            tiny(),
            GenerativeDistillationPlugin(),
            RankOneEWCPlugin(samples=1, control="shuffled"),
        )
    ),
    "replay": lambda: outcome(training(tiny(), GenerativeReplayPlugin())),
    "replay, ratio 1/2": lambda: outcome(
        training(conditioned_unet(), GenerativeReplayPlugin(replay_ratio=0.5))
    ),
    "replay, size": lambda: outcome(
        training(tiny(), GenerativeReplayPlugin(replay_size=6, pool_size=50))
    ),
    "solver": lambda: solved(tiny()),
    "solver, condition": lambda: solved(
        conditioned_unet(), labels="condition", replay_size=8
    ),
    "solver, another generator": solved_with_another_generator,
    "flips": lambda: outcome(training(tiny(), HorizontalFlipPlugin())),
    "a memory": lambda: outcome(training(tiny(), ReplayPlugin(64)), drop_last=True),
    "evaluated in the midst": evaluated_in_the_midst,
}


def with_batch_norm() -> DiffusionTraining:
    denoiser = TinyDenoiser()
    denoiser.norm = nn.BatchNorm2d(1)
    return training(DiffusionModel(denoiser, ddim_scheduler(), SHAPE))


def with_other_weights() -> DiffusionTraining:
    torch.manual_seed(DistributedHelper.rank)
    model = tiny()
    torch.manual_seed(0)
    return training(model)


def with_other_draws() -> DiffusionTraining:
    strategy = training(tiny())
    torch.manual_seed(DistributedHelper.rank)
    return strategy


class NotANumber(SupervisedPlugin):
    """Spoils the loss of the last process, at the third step."""

    def before_backward(self, strategy, **kwargs):
        last = DistributedHelper.rank == DistributedHelper.world_size - 1
        if last and strategy.clock.train_exp_iterations == 2:
            strategy.loss = strategy.loss * float("nan")


REFUSED: dict[str, Callable[[], DiffusionTraining]] = {
    "a batch of 15": lambda: training(tiny(), train_mb_size=15),
    "a last batch": lambda: training(tiny(), train_steps=None, train_mb_size=2 * BATCH),
    "a replay ratio": lambda: training(
        tiny(), GenerativeDistillationPlugin(replay_ratio=0.2)
    ),
    "a replay size": lambda: training(tiny(), GenerativeReplayPlugin(replay_size=5)),
    "a trajectory": lambda: training(
        tiny(), GenerativeDistillationPlugin(3, source="trajectory")
    ),
    "batch normalization": with_batch_norm,
    "other weights": with_other_weights,
    "other draws": with_other_draws,
    "not a number": lambda: training(tiny(), NotANumber()),
}


def refusal(strategy: DiffusionTraining) -> tuple[str, int]:
    """The error, and after how many steps it was raised."""
    try:
        strategy.train(SplitDigits(5).train_stream[0], eval_streams=[])
    except (ValueError, ArithmeticError) as error:
        return str(error), strategy.clock.train_iterations
    return "", strategy.clock.train_iterations


def begun_alike(case: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return case()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    DistributedHelper.init_distributed(0, use_cuda=False)
    results = {name: begun_alike(case) for name, case in CASES.items()}
    refusals = {name: refusal(begun_alike(case)) for name, case in REFUSED.items()}
    torch.save((results, refusals), folder / f"{DistributedHelper.rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
