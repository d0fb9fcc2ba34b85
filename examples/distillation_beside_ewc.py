"""Generative distillation beside EWC, Avalanche's own, in one strategy.

Plugins add up: each adds its term to the loss of a plain ``SupervisedTemplate`` that trains
a diffusion model with ``DenoisingLoss``. Here EWC alone, distillation alone, and both.

You should see that EWC alone does not hold a diffusion model: its FID (0 for real images)
is far from the other two.

    python examples/distillation_beside_ewc.py
"""

import argparse

import torch
from avalanche.training import SupervisedTemplate
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin

from avalanche_gd import (
    DenoisingLoss,
    DiffusionModel,
    GenerativeDistillationPlugin,
    SplitDigits,
    class_balance_metrics,
    fid_metrics,
)

parser = argparse.ArgumentParser(description="Distillation beside EWC.")
parser.add_argument("--epochs", type=int, default=40, help="of each experience")
args = parser.parse_args()

benchmark = SplitDigits(n_experiences=5, shuffle=False)
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
        evaluator=EvaluationPlugin(
            fid_metrics(), class_balance_metrics(histogram=True), loggers=[]
        ),
    )
    for experience in benchmark.train_stream:
        strategy.train(experience)
    values = strategy.eval(benchmark.test_stream)
    shares = [share for name, share in values.items() if name.startswith("ClassRatio")]
    print(" and ".join(names), f"FID {values['FID_Stream/eval_phase/test_stream']:.0f}")
    print("  share of each digit", *(f"{share:.2f}" for share in shares))
