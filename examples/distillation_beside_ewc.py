"""Generative distillation together with Avalanche's own EWC, in one strategy.

Plugins add up: each adds its term to the loss of a plain ``SupervisedTemplate`` that trains
a diffusion model with ``DenoisingLoss``. Here: EWC alone, distillation alone, and both.

You should see that EWC alone does not keep a diffusion model from forgetting: its FID (0
for real images) is far from that of the other two. On these digits, EWC does not improve
distillation.

    python examples/distillation_beside_ewc.py
"""

import argparse

import torch
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin
from avalanche.training.templates import SupervisedTemplate

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    GenerativeDistillationPlugin,
    Sampling,
    SplitDigits,
    fid_metrics,
)

parser = argparse.ArgumentParser(description="Distillation together with EWC.")
parser.add_argument("--epochs", type=int, default=25, help="per experience")
parser.add_argument("--images", type=int, default=500, help="generated for metrics")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
sampling = Sampling(images=args.images)
for names in ("EWC",), ("distillation",), ("distillation", "EWC"):
    torch.manual_seed(0)
    plugins = {
        "EWC": EWCPlugin(ewc_lambda=100),
        "distillation": GenerativeDistillationPlugin(),
    }
    model = DiffusionModel.from_preset("digits")
    strategy = SupervisedTemplate(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=2e-3),
        criterion=DenoisingLoss(),
        train_mb_size=64,
        train_epochs=args.epochs,
        eval_mb_size=256,
        plugins=[plugins[name] for name in names],
        evaluator=EvaluationPlugin(fid_metrics(sampling=sampling), loggers=[]),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    values = strategy.eval(benchmark.test_stream)
    print(" and ".join(names), f"FID {values['FID_Stream/eval_phase/test_stream']:.0f}")
